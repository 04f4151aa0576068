// Goodfire's features: search, rerank, list, lookup, neighbours, contrast, inspection, attribution.

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include <steer/features/attribution.hpp>
#include <steer/features/contrast.hpp>
#include <steer/features/neighbours.hpp>
#include <steer/features/search.hpp>
#include <steer/model/session.hpp>

#include "core/format_text.hpp"
#include "serve/chat_messages.hpp"
#include "serve/goodfire.hpp"

namespace steer::serve::detail {
namespace {

using nlohmann::json;

constexpr std::int64_t kMostFeatures = 1000;  ///< in an answer
constexpr std::int64_t kMostActive = 200;     ///< of a token

json list_of(const ServedSae& served, const std::vector<std::int64_t>& features) {
  json list = json::array();
  for (const auto feature : features) list.push_back(goodfire_feature(served, feature));
  return list;
}

std::int64_t argument(const HttpRequest& request, std::string_view name, std::int64_t fallback, std::int64_t most) {
  const std::string text(request.argument(name));
  if (text.empty()) return fallback;
  const json value = json::parse(text, nullptr, false);
  if (!value.is_number_integer() || value < 1 || value > most)
    throw ApiError(400, format_text("expected \"{}\" in [1, {}]", name, most), std::string(name));
  return value.get<std::int64_t>();
}

json search(Service& service, const HttpRequest& request) {
  const ServedSae& served = service.sae({}, "model");
  const std::int64_t count = argument(request, "perPage", 10, kMostFeatures);
  const std::int64_t page = argument(request, "page", 1, kMostFeatures);
  const auto hits = search_labels(goodfire_labels(served), request.argument("query"), count * page);
  json list = json::array();
  for (auto i = static_cast<std::size_t>(count * (page - 1)); i < hits.size(); ++i) {
    list.push_back(goodfire_feature(served, hits[i].feature));
    list.back()["relevance"] = hits[0].score > 0 ? hits[i].score / hits[0].score : 0;
  }
  return {{"features", std::move(list)}};
}

json list(Service& service, const HttpRequest& request) {
  json list = json::array();
  for (const auto& [name, value] : request.query)
    if (name == "feature_id") {
      const auto [served, feature] = feature_of_uuid(service, value);
      list.push_back(goodfire_feature(*served, feature));
    }
  return {{"features", std::move(list)}};
}

json rerank(Service& service, const HttpRequest& request) {
  const json body = parse_body(request.body);
  Fields fields(body);
  service.check_model(fields);
  const ServedSae& served = service.sae({}, "model");
  const std::string query = fields.text("query");
  const std::int64_t top = fields.integer("top_k", 10, 1, kMostFeatures);
  std::map<std::int64_t, double> score;
  for (const auto& hit : search_labels(goodfire_labels(served), query, served.sae.d_sae()))
    score[hit.feature] = hit.score;
  std::vector<std::int64_t> features;
  for (const json& id : fields.array("feature_ids")) {
    if (!id.is_string()) fields.fail("feature_ids", "expected \"feature_ids\" to be a list of strings");
    features.push_back(feature_of_uuid(service, id.get_ref<const std::string&>()).second);
  }
  fields.done();
  std::ranges::stable_sort(features, [&](auto a, auto b) { return score[a] > score[b]; });
  if (std::ssize(features) > top) features.resize(static_cast<std::size_t>(top));
  json result = list_of(served, features);
  const double most = features.empty() ? 0 : score[features[0]];
  for (std::size_t i = 0; i < features.size(); ++i) result[i]["relevance"] = most > 0 ? score[features[i]] / most : 0;
  return {{"features", std::move(result)}};
}

json lookup(Service& service, const HttpRequest& request) {
  const json body = parse_body(request.body);
  Fields fields(body);
  service.check_model(fields);
  const ServedSae& served = service.sae({}, "model");
  json list = json::array();
  for (const auto feature : fields.integers("indices", 0, served.sae.d_sae() - 1))
    list.push_back(goodfire_feature(served, feature, "uuid"));
  fields.done();
  return {{"features", std::move(list)}};
}

/// By the largest cosine to any of the features.
json neighbours(Service& service, const HttpRequest& request) {
  const json body = parse_body(request.body);
  Fields fields(body);
  service.check_model(fields);
  const ServedSae& served = service.sae({}, "model");
  const auto features = fields.integers("feature_indices", 0, served.sae.d_sae() - 1);
  const std::int64_t top = fields.integer("top_k", 10, 1, kMostFeatures);
  fields.done();
  std::map<std::int64_t, double> best;
  for (const auto feature : features)
    for (const auto& near : neighbours_by_decoder(served.sae, feature, top + std::ssize(features)))
      if (std::ranges::find(features, near.feature) == features.end())
        best[near.feature] = std::max(near.similarity, best.contains(near.feature) ? best[near.feature] : -1.0);
  std::vector<std::int64_t> order;
  for (const auto& [feature, similarity] : best) order.push_back(feature);
  std::ranges::stable_sort(order, [&](auto a, auto b) { return best[a] > best[b]; });
  if (std::ssize(order) > top) order.resize(static_cast<std::size_t>(top));
  return {{"neighbors", list_of(served, order)}};
}

/// Conversations as texts, of which the assistant's last message counts; all of one without.
std::vector<TokenizedText> conversations(Fields& fields, std::string_view key, const Service& service) {
  std::vector<TokenizedText> texts;
  for (const json& entry : fields.array(key)) {
    const auto messages = read_messages(entry, fields.name(key));
    auto chat = service.model.chat().render(messages, {.generation_prompt = false});
    TokenizedText text{.ids = std::move(chat.ids)};
    if (const auto last = chat.messages.back(); messages.back().role == Role::assistant && last.end > last.begin)
      text.begin = last.begin, text.end = last.end;
    texts.push_back(std::move(text));
  }
  if (texts.empty()) fields.fail(key, format_text("expected a conversation in \"{}\"", key));
  return texts;
}

/// Features by how much they are the first set's; with one conversation a set there is no spread to divide by.
std::vector<std::pair<double, std::int64_t>> differences(const at::Tensor& first, const at::Tensor& second) {
  std::vector<std::pair<double, std::int64_t>> found;
  if (first.size(0) > 1 && second.size(0) > 1) {
    for (const auto& c : contrast_features(first, second, {.limit = 0, .bootstrap = 0}))
      if (!c.always_on) found.emplace_back(c.standardised, c.feature);
  } else {
    const at::Tensor difference = (first.mean(0) - second.mean(0)).contiguous();
    for (std::int64_t i = 0; i < difference.numel(); ++i) found.emplace_back(difference.const_data_ptr<float>()[i], i);
  }
  std::ranges::stable_sort(found, std::greater<>());
  return found;
}

json contrast(Service& service, const HttpRequest& request) {
  const json body = parse_body(request.body);
  Fields fields(body);
  service.check_model(fields);
  const ServedSae& served = service.sae({}, "model");
  const auto first = conversations(fields, "dataset_1", service), second = conversations(fields, "dataset_2", service);
  const std::int64_t add = fields.integer("k_to_add", 5, 0, kMostFeatures);
  const std::int64_t remove = fields.integer("k_to_remove", 5, 0, kMostFeatures);
  fields.done();
  std::vector<std::pair<double, std::int64_t>> found;
  {
    const std::lock_guard lock(service.reading);
    Session session(service.model);
    found = differences(pooled_features(session, served.sae, first), pooled_features(session, served.sae, second));
  }
  std::vector<std::int64_t> ones, others;
  for (std::size_t i = 0; i < found.size() && std::ssize(ones) < add && found[i].first > 0; ++i)
    ones.push_back(found[i].second);
  for (auto i = found.size(); i > 0 && std::ssize(others) < remove && found[i - 1].first < 0; --i)
    others.push_back(found[i - 1].second);
  return {{"dataset_1_features", list_of(served, ones)}, {"dataset_2_features", list_of(served, others)}};
}

json inspect(Service& service, const HttpRequest& request) {
  const json body = parse_body(request.body);
  Fields fields(body);
  service.check_model(fields);
  const ServedSae& served = service.sae({}, "model");
  const auto ids = goodfire_prompt(fields, service, false);
  fields.text("aggregate_by", "count");  // the client aggregates itself
  const auto wanted = fields.integers("include_feature_indexes", 0, served.sae.d_sae() - 1);
  const Steering steering = read_controller(fields, service);
  fields.done();
  const auto rows =
      observed_features(service, served, ids, steering, {.top = wanted.empty() ? kMostActive : 0}, request.gone);
  json tokens = json::array();
  for (std::size_t t = 0; t < rows.size(); ++t) {
    json active = json::array();
    for (const auto& [feature, value] : rows[t])
      if (value > 0)
        active.push_back(
            {{"id", feature_uuid(served, feature)}, {"index_in_sae", feature}, {"activation_strength", value}});
    tokens.push_back({{"token", service.token_text(ids[t])}, {"attributions", std::move(active)}});
  }
  return {{"tokens", std::move(tokens)}};
}

json attribute(Service& service, const HttpRequest& request) {
  const json body = parse_body(request.body);
  Fields fields(body);
  service.check_model(fields);
  const ServedSae& served = service.sae({}, "model");
  const auto ids = goodfire_prompt(fields, service, false);
  const std::int64_t begin = fields.integer("startIndex", 1, std::ssize(ids) - 1);
  const std::int64_t end = fields.integer("endIndex", begin, std::ssize(ids) - 1);
  fields.done();
  at::Tensor effect;
  {
    const std::lock_guard lock(service.reading);
    Session session(service.model);
    effect = attribute_features(session, served.sae, ids, sequence_log_probability(ids, begin, end + 1)).effect;
  }
  const at::Tensor best = std::get<1>(effect.abs().topk(std::min<std::int64_t>(20, effect.numel())));
  ObserveFeaturesOptions chosen;
  for (std::int64_t i = 0; i < best.numel(); ++i) chosen.features.push_back(best[i].item<std::int64_t>());
  const auto rows = observed_features(service, served, ids, {}, chosen, request.gone);
  json list = json::array();
  for (std::size_t i = 0; i < chosen.features.size(); ++i) {
    json tokens = json::array();
    for (std::size_t t = 0; t < rows.size(); ++t)
      if (i < rows[t].size() && rows[t][i].second > 0)
        tokens.push_back({{"index", t}, {"activation_strength", rows[t][i].second}});
    list.push_back({{"id", feature_uuid(served, chosen.features[i])},
                    {"value", effect[chosen.features[i]].item<double>()},
                    {"tokens", std::move(tokens)}});
  }
  return {{"to_ablate", std::move(list)}, {"num_input_tokens", ids.size()}};
}

json generate_contrast(Service&, const HttpRequest&) {
  throw ApiError(400, "this server does not write contrastive conversations; give contrast two sets of your own");
}

}  // namespace

std::vector<Route> goodfire_feature_routes(Service& service) {
  using Answer = json (*)(Service&, const HttpRequest&);
  const auto route = [&service](const char* method, const char* path, Answer answer) {
    return Route{method, format_text("{}{}", kGoodfire, path),
                 [&service, answer](const HttpRequest& r) { return json_reply(answer(service, r)); }};
  };
  return {route("GET", "/features/search", search),
          route("GET", "/features/", list),
          route("POST", "/features/rerank", rerank),
          route("POST", "/features/lookup", lookup),
          route("POST", "/attributions/neighbors", neighbours),
          route("POST", "/attributions/compute-logit-attribution", attribute),
          route("POST", "/attributions/generate-contrastive-dataset", generate_contrast),
          route("POST", "/chat-attribution/contrast", contrast),
          route("POST", "/chat-attribution/compute-features", inspect)};
}

}  // namespace steer::serve::detail
