// /v1/activations and /v1/logit_lens: what the model computes on the way.

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include <nlohmann/json.hpp>

#include <steer/model/session.hpp>

#include "core/format_text.hpp"
#include "serve/reading_input.hpp"
#include "serve/steering_request.hpp"

namespace steer::serve::detail {
namespace {

using nlohmann::json;

constexpr std::int64_t kMostNumbers = 16 << 20;  ///< in an answer

at::Tensor rows_of(const at::Tensor& values, const std::vector<std::int64_t>& positions) {
  return values.index_select(0, at::tensor(positions, at::kLong)).to(at::kFloat).contiguous();
}

/// {"shape", "values"} or, as base64 of f32, {"shape", "base64"}.
json tensor_json(const at::Tensor& values, bool base64) {
  const float* data = values.const_data_ptr<float>();
  const auto count = static_cast<std::size_t>(values.numel());
  json result{{"shape", std::vector<std::int64_t>(values.sizes().begin(), values.sizes().end())}};
  if (base64)
    result["base64"] = encode_base64({reinterpret_cast<const char*>(data), count * sizeof(float)});
  else
    result["values"] = std::vector<float>(data, data + count);
  return result;
}

bool read_encoding(Fields& fields) {
  const std::string encoding = fields.text("encoding", "list");
  if (encoding != "list" && encoding != "base64") fields.fail("encoding", "expected \"encoding\" of list or base64");
  return encoding == "base64";
}

std::vector<std::string> read_points(Fields& fields, std::vector<std::string> fallback) {
  if (!fields.has("points")) return fallback;
  std::vector<std::string> points;
  for (const json& point : fields.array("points")) {
    if (!point.is_string()) fields.fail("points", "expected \"points\" to hold names of hook points");
    points.push_back(point.get<std::string>());
  }
  return points;
}

/// The SAE's features of some tokens: the chosen ones, or each token's strongest.
json features_json(const ServedSae& served, const at::Tensor& x, const std::vector<std::int64_t>& positions,
                   const std::vector<std::int64_t>& chosen, std::int64_t top) {
  json result{{"sae", served.name}};
  if (!chosen.empty()) {
    result["features"] = chosen;
    result["values"] = tensor_json(served.sae.encode_subset(x, chosen).contiguous(), false);
    return result;
  }
  const SparseActivations active = served.sae.encode_sparse(x, top);
  const auto* offsets = active.offsets.const_data_ptr<std::int64_t>();
  const auto* index = active.index.const_data_ptr<std::int64_t>();
  const auto* value = active.value.const_data_ptr<float>();
  result["tokens"] = json::array();
  for (std::size_t row = 0; row < positions.size(); ++row) {
    json list = json::array();
    for (auto i = offsets[row]; i < offsets[row + 1]; ++i) {
      json entry = feature_json(served, index[i]);
      entry["value"] = value[i];
      list.push_back(std::move(entry));
    }
    result["tokens"].push_back({{"position", positions[row]}, {"top", std::move(list)}});
  }
  return result;
}

json activations(Service& service, const HttpRequest& request) {
  const json body = parse_body(request.body);
  Fields fields(body);
  const auto ids = read_text(fields, service);
  const auto positions = read_positions(fields, std::ssize(ids), all_positions(std::ssize(ids)));
  auto points = read_points(fields, {});
  const bool base64 = read_encoding(fields);
  const SteeringRequest steering = read_steering(fields, service);
  const ServedSae* served = nullptr;
  std::vector<std::int64_t> chosen;
  std::int64_t top = 0;
  if (fields.has("features") || fields.has("top") || fields.has("sae")) {
    served = &read_sae(fields, service);
    chosen = fields.integers("features", 0, served->sae.d_sae() - 1);
    top = fields.integer("top", 10, 1, served->sae.d_sae());
  }
  fields.done();
  if (points.empty() && !served) fields.fail("points", "expected \"points\", or an SAE's \"features\" or \"top\"");
  const std::string sae_point = served ? steer::sae_point(service.model, served->sae).name() : "";
  auto wanted = points;
  if (served) wanted.push_back(sae_point);

  ActivationCache cache;
  {
    const std::lock_guard lock(service.reading);
    Session session(service.model);
    cache = session.run_with_cache(ids, wanted, {.steering = steering.steering, .logits = Logits::none});
  }
  json result{{"object", "activations"}, {"model", service.name()}, {"tokens", tokens_json(service, ids, positions)}};
  result["usage"] = {{"prompt_tokens", ids.size()}, {"total_tokens", ids.size()}};
  std::int64_t numbers = 0;
  if (!points.empty()) {
    result["activations"] = json::object();
    for (const auto& [point, values] : cache.all()) {
      if (served && points.empty()) continue;
      // Attention patterns are [heads, queries, keys]: whole.
      const at::Tensor kept = values.dim() == 2 ? rows_of(values, positions) : values.to(at::kFloat).contiguous();
      if ((numbers += kept.numel()) > kMostNumbers)
        throw ApiError(
            400,
            format_text("the answer would hold more than {} numbers; ask for fewer points or positions", kMostNumbers),
            "points");
      result["activations"][point.name()] = tensor_json(kept, base64);
    }
  }
  if (served) result["features"] = features_json(*served, rows_of(cache[sae_point], positions), positions, chosen, top);
  return result;
}

json top_tokens(const Service& service, const at::Tensor& log_probabilities, std::int64_t top) {
  const auto [values, ids] = log_probabilities.topk(top);
  json list = json::array();
  for (std::int64_t i = 0; i < top; ++i) {
    const auto id = ids[i].item<std::int64_t>();
    list.push_back({{"id", id}, {"token", service.token_text(id)}, {"logprob", values[i].item<double>()}});
  }
  return list;
}

/// What the model would say if each layer were its last: its output through the final norm and the unembedding
/// (nostalgebraist 2020, "interpreting GPT: the logit lens").
json logit_lens(Service& service, const HttpRequest& request) {
  const json body = parse_body(request.body);
  Fields fields(body);
  const auto ids = read_text(fields, service);
  const auto positions = read_positions(fields, std::ssize(ids), {std::ssize(ids) - 1});
  const auto points = read_points(fields, {"blocks.*.hook_resid_post"});
  const std::int64_t top = fields.integer("top", 5, 1, std::min<std::int64_t>(100, service.model.config().vocab_size));
  const SteeringRequest steering = read_steering(fields, service);
  fields.done();
  json layers = json::array();
  {
    const std::lock_guard lock(service.reading);
    Session session(service.model);
    const auto cache = session.run_with_cache(ids, points, {.steering = steering.steering, .logits = Logits::none});
    if (std::ssize(cache.all()) * std::ssize(positions) * top > kMostNumbers / 16)
      throw ApiError(400, "the answer would be too long; ask for fewer positions", "positions");
    for (const auto& [point, values] : cache.all()) {
      if (values.dim() != 2 || values.size(1) != service.model.config().d_model)
        throw ApiError(400, format_text("expected points of the residual stream but got {}", point.name()), "points");
      const at::Tensor logits = service.model.unembed(rows_of(values, positions)).log_softmax(-1);
      json list = json::array();
      for (std::size_t i = 0; i < positions.size(); ++i)
        list.push_back(
            {{"position", positions[i]}, {"top", top_tokens(service, logits[static_cast<std::int64_t>(i)], top)}});
      layers.push_back({{"point", point.name()}, {"positions", std::move(list)}});
    }
  }
  return {{"object", "logit_lens"},
          {"model", service.name()},
          {"tokens", tokens_json(service, ids, positions)},
          {"layers", std::move(layers)}};
}

}  // namespace

std::vector<Route> reading_routes(Service& service) {
  return {{"POST", "/v1/activations", [&service](const HttpRequest& r) { return json_reply(activations(service, r)); }},
          {"POST", "/v1/logit_lens", [&service](const HttpRequest& r) { return json_reply(logit_lens(service, r)); }}};
}

}  // namespace steer::serve::detail
