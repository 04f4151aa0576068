// /v1/features: what an SAE's features are called, lie near, react to and cause.

#include <ATen/core/Tensor.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>
#include <steer/features/attribution.hpp>
#include <steer/features/contrast.hpp>
#include <steer/features/inspect.hpp>
#include <steer/features/neighbours.hpp>
#include <steer/features/search.hpp>
#include <steer/model/session.hpp>

#include "core/format_text.hpp"
#include "serve/reading_input.hpp"

namespace steer::serve::detail {
namespace {

using nlohmann::json;

constexpr std::int64_t kMostFeatures = 1000;  ///< in an answer

std::int64_t read_top(Fields& fields, std::int64_t fallback) {
  return fields.integer("top", fallback, 1, kMostFeatures);
}

json search(Service& service, const HttpRequest& request) {
  const json body = parse_body(request.body);
  Fields fields(body);
  const ServedSae& served = read_sae(fields, service);
  const std::string query = fields.text("query");
  const std::int64_t top = read_top(fields, 10);
  fields.done();
  if (!served.labels)
    throw ApiError(400,
                   format_text("the SAE \"{}\" has no labels; start the server with them (--labels PATH)", served.name),
                   "sae");
  json list = json::array();
  for (const auto& hit : search_labels(*served.labels, query, top)) {
    json entry = feature_json(served, hit.feature);
    entry["score"] = hit.score;
    if (const auto most = served.labels->max_activation(hit.feature)) entry["max_activation"] = *most;
    list.push_back(std::move(entry));
  }
  return {{"sae", served.name}, {"features", std::move(list)}};
}

json neighbours(Service& service, const HttpRequest& request) {
  const json body = parse_body(request.body);
  Fields fields(body);
  const ServedSae& served = read_sae(fields, service);
  const std::int64_t feature = read_feature(fields, served), top = read_top(fields, 10);
  std::vector<TokenizedText> texts;  // with texts: active on the same tokens; without: alike in what they write
  if (fields.has("texts")) texts = read_texts(fields, "texts", service);
  fields.done();
  std::vector<FeatureNeighbour> found;
  if (texts.empty()) {
    found = neighbours_by_decoder(served.sae, feature, top);
  } else {
    const std::lock_guard lock(service.reading);
    Session session(service.model);
    found = neighbours_by_coactivation(session, served.sae, feature, texts, top);
  }
  json list = json::array();
  for (const auto& near : found) {
    json entry = feature_json(served, near.feature);
    entry["similarity"] = near.similarity;
    list.push_back(std::move(entry));
  }
  return {{"sae", served.name}, {"feature", feature}, {"features", std::move(list)}};
}

json inspect(Service& service, const HttpRequest& request) {
  const json body = parse_body(request.body);
  Fields fields(body);
  const ServedSae& served = read_sae(fields, service);
  const auto ids = read_text(fields, service);
  InspectOptions options{.top_features = read_top(fields, 30),
                         .top_per_token = fields.integer("top_per_token", 5, 1, kMostFeatures)};
  fields.done();
  if (served.labels)
    options.label = [&served](std::int64_t feature) { return std::string(served.labels->label(feature)); };
  const std::lock_guard lock(service.reading);
  Session session(service.model);
  json result = inspect_features(session, served.sae, ids, options).to_json();
  result["sae"] = served.name;
  return result;
}

json contrast(Service& service, const HttpRequest& request) {
  const json body = parse_body(request.body);
  Fields fields(body);
  const ServedSae& served = read_sae(fields, service);
  const auto positive = read_texts(fields, "positive", service), negative = read_texts(fields, "negative", service);
  const ContrastOptions options{.limit = read_top(fields, 20), .bootstrap = 0};
  const auto pooling = fields.text("pooling", "mean");
  fields.done();
  const std::lock_guard lock(service.reading);
  Session session(service.model);
  const auto pooled = [&](const auto& texts) {
    return pooled_features(session, served.sae, texts, parse_enum<Pooling>(pooling, "Server"));
  };
  json list = json::array();
  for (const auto& found : contrast_features(pooled(positive), pooled(negative), options)) {
    json entry = feature_json(served, found.feature);
    entry["standardised"] = found.standardised;
    entry["auroc"] = found.auroc;
    entry["mean_positive"] = found.mean_positive;
    entry["mean_negative"] = found.mean_negative;
    entry["always_on"] = found.always_on;
    list.push_back(std::move(entry));
  }
  return {{"sae", served.name}, {"features", std::move(list)}};
}

/// The token that a field names: an id, or text of which it is the first token.
std::int64_t read_token(Fields& fields, std::string_view key, const Service& service) {
  if (!fields.at(key).is_string()) return fields.integer(key, 0, service.model.config().vocab_size - 1);
  const auto ids = service.encode(fields.text(key), false);
  if (ids.empty()) fields.fail(key, format_text("expected a token in \"{}\"", fields.name(key)));
  return ids.front();
}

json attribute(Service& service, const HttpRequest& request) {
  const json body = parse_body(request.body);
  Fields fields(body);
  const ServedSae& served = read_sae(fields, service);
  const auto ids = read_text(fields, service);
  const std::int64_t top = std::min(read_top(fields, 20), served.sae.d_sae());
  LogitMetric metric;
  if (fields.has("token"))
    metric = logit_difference(read_token(fields, "token", service), read_token(fields, "against", service));
  else
    metric = sequence_log_probability(ids, fields.integer("begin", std::ssize(ids) - 1, 1, std::ssize(ids) - 1),
                                      fields.integer("end", std::ssize(ids), 2, std::ssize(ids)));
  fields.done();
  const std::lock_guard lock(service.reading);
  Session session(service.model);
  const Attribution found = attribute_features(session, served.sae, ids, metric);
  const auto order = std::get<1>(found.effect.abs().topk(top));
  json list = json::array();
  for (std::int64_t i = 0; i < top; ++i) {
    const auto feature = order[i].item<std::int64_t>();
    json entry = feature_json(served, feature);
    entry["effect"] = found.effect[feature].item<double>();
    list.push_back(std::move(entry));
  }
  return {{"sae", served.name}, {"metric", found.metric}, {"features", std::move(list)}};
}

/// One feature: what is known of it, and what it says through the unembedding.
json feature(Service& service, const HttpRequest& request) {
  const ServedSae& served = service.sae(request.argument("sae"), "sae");
  const std::string& text = request.captured[0];
  std::int64_t index = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
  if (error != std::errc() || end != text.data() + text.size() || index < 0 || index >= served.sae.d_sae())
    throw ApiError(404,
                   format_text("expected a feature in [0, {}) of the SAE \"{}\"", served.sae.d_sae(), served.name));
  json result = feature_json(served, index);
  result["sae"] = served.name;
  if (served.labels) {
    result["explanations"] = served.labels->explanations(index);
    if (const auto most = served.labels->max_activation(index)) result["max_activation"] = *most;
    if (const auto share = served.labels->frac_nonzero(index)) result["frac_nonzero"] = *share;
  }
  if (served.sae.d_out() == service.model.config().d_model) {
    const auto tokens = [&](const std::vector<TokenEffect>& effects) {
      json list = json::array();
      for (const auto& effect : effects)
        list.push_back({{"id", effect.token}, {"token", service.token_text(effect.token)}, {"effect", effect.effect}});
      return list;
    };
    const LogitEffects effects = logit_effects(service.model, served.sae, index);
    result["promoted"] = tokens(effects.promoted);
    result["suppressed"] = tokens(effects.suppressed);
  }
  return result;
}

}  // namespace

std::vector<Route> feature_routes(Service& service) {
  const auto route = [&service](const char* path, json (*answer)(Service&, const HttpRequest&)) {
    return Route{"POST", path, [&service, answer](const HttpRequest& r) { return json_reply(answer(service, r)); }};
  };
  return {route("/v1/features/search", search),
          route("/v1/features/neighbours", neighbours),
          route("/v1/features/inspect", inspect),
          route("/v1/features/contrast", contrast),
          route("/v1/features/attribute", attribute),
          {"GET", "/v1/features/{}", [&service](const HttpRequest& r) { return json_reply(feature(service, r)); }}};
}

}  // namespace steer::serve::detail
