#include "serve/generation_call.hpp"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <random>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"

namespace steer::serve::detail {

using nlohmann::json;

namespace {

constexpr std::int64_t kMostStops = 16;
constexpr double kPenalty = 100;
constexpr double kBias = 100;  ///< as far as OpenAI's API goes: it bars a token, or leaves no other

std::vector<std::string> read_stop(Fields& fields) {
  const json* value = fields.find("stop");
  if (!value) return {};
  std::vector<std::string> stop;
  for (const json& item : value->is_array() ? *value : json::array({*value})) {
    if (!item.is_string() || item.get_ref<const std::string&>().empty())
      fields.fail("stop", "expected \"stop\" to be a string or a list of them, none empty");
    stop.push_back(item.get<std::string>());
  }
  if (std::ssize(stop) > kMostStops) fields.fail("stop", format_text("expected at most {} stop strings", kMostStops));
  return stop;
}

/// {"id": added}, ids as JSON's keys.
std::vector<std::pair<std::int64_t, double>> read_bias(Fields& fields, const Service& service) {
  std::vector<std::pair<std::int64_t, double>> bias;
  if (!fields.has("logit_bias")) return bias;
  Fields entries = fields.object("logit_bias");
  for (const auto& [key, value] : fields.at("logit_bias").items()) {
    std::int64_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 || id >= service.model.config().vocab_size)
      fields.fail("logit_bias", format_text("expected token ids in [0, {}) as keys of \"logit_bias\"",
                                            service.model.config().vocab_size));
    bias.emplace_back(id, entries.number(key, -kBias, kBias));
  }
  return bias;
}

std::uint64_t read_seed(Fields& fields) {
  if (!fields.has("seed")) {
    std::random_device device;
    return std::uint64_t{device()} << 32 | device();
  }
  return static_cast<std::uint64_t>(fields.integer("seed", INT64_MIN, INT64_MAX));
}

}  // namespace

GenerationCall read_generation(Fields& fields, const Service& service) {
  GenerationCall call;
  call.sampling.temperature = fields.number("temperature", 1, 0, 100);
  call.sampling.top_p = fields.number("top_p", 1, 0, 1);
  call.sampling.top_k = std::max<std::int64_t>(fields.integer("top_k", 0, -1, INT32_MAX), 0);
  call.sampling.min_p = fields.number("min_p", 0, 0, 1);
  call.sampling.repetition_penalty = fields.number("repetition_penalty", 1, 1e-3, 1e3);
  call.stop = read_stop(fields);
  call.stop_ids = fields.integers("stop_token_ids", 0, service.model.config().vocab_size - 1);
  call.min_tokens = fields.integer("min_tokens", 0, 0, service.model.config().context);
  call.ignore_eos = fields.boolean("ignore_eos", false);
  call.seed = read_seed(fields);
  call.choices = fields.integer("n", 1, 1, service.options.max_choices);
  call.priority = static_cast<int>(-fields.integer("priority", 0, -1000, 1000));  // lower ones first, as in vLLM
  if (fields.has("prompt_logprobs")) call.prompt_top = fields.integer("prompt_logprobs", 0, 20);
  call.stream = fields.boolean("stream", false);
  if (fields.has("stream_options")) {
    Fields options = fields.object("stream_options");
    call.include_usage = options.boolean("include_usage", false);
    options.ignore({"include_obfuscation", "continuous_usage_stats"});
    options.done();
    if (!call.stream) fields.fail("stream_options", "\"stream_options\" needs \"stream\": true");
  }
  call.steering = read_steering(fields, service);
  call.sampling.presence_penalty = fields.number("presence_penalty", 0, -kPenalty, kPenalty);
  call.sampling.frequency_penalty = fields.number("frequency_penalty", 0, -kPenalty, kPenalty);
  call.sampling.logit_bias = read_bias(fields, service);
  fields.ignore(
      {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"});
  return call;
}

EngineRequest engine_request(const GenerationCall& call, std::vector<std::int64_t> ids, const Service& service) {
  const std::int64_t context = service.model.config().context;
  if (std::ssize(ids) >= context)
    throw ApiError(400,
                   format_text("the prompt has {} tokens, and this model's context holds {}, of which the answer needs "
                               "at least one; shorten the prompt",
                               ids.size(), context),
                   {}, "context_length_exceeded");
  const std::int64_t prompt = std::ssize(ids), room = context - prompt;
  const std::int64_t allowed = service.options.max_tokens > 0 ? service.options.max_tokens : context;
  if (call.max_tokens && *call.max_tokens > allowed && service.options.max_tokens > 0)
    throw ApiError(
        400, format_text("{} new tokens were asked for, and this server gives at most {}", *call.max_tokens, allowed),
        "max_tokens");
  if (const auto load = service.loop.load(); load.running + load.waiting + call.choices > service.options.max_waiting)
    throw ApiError(429, format_text("the queue is full: {} rows are under way or wait, of {} at most; try again",
                                    load.running + load.waiting, service.options.max_waiting));
  return {.ids = std::move(ids),
          .steering = call.steering.steering,
          .sampling = call.sampling,
          .max_tokens = std::min({call.max_tokens.value_or(room), room, allowed}),
          .stop = call.stop,
          .stop_ids = call.stop_ids,
          .seed = call.seed,
          .samples = call.choices,
          .priority = call.priority,
          .min_tokens = call.min_tokens,
          .ignore_eos = call.ignore_eos,
          .top = std::max<std::int64_t>(call.top, 0),
          .score_from = call.prompt_top >= 0 && prompt > 1 ? 1 : -1,
          .prompt_top = std::max<std::int64_t>(call.prompt_top, 0)};
}

std::optional<ResidualCapture> residual_capture(const GenerationCall& call, const Service& service) {
  const auto& layers = call.steering.residual_layers;
  if (layers.empty()) return {};
  if (call.stream) throw ApiError(400, "\"output_residual_stream\" is not supported with \"stream\"", "vllm_xargs");
  return ResidualCapture(layers, service.model.config().d_model);
}

const char* finish_word(FinishReason reason) {
  switch (reason) {
    case FinishReason::stop_token:
    case FinishReason::stop_string:
      return "stop";
    case FinishReason::length:
    case FinishReason::context:
      return "length";
    case FinishReason::aborted:
    case FinishReason::failed:
      return "content_filter";
  }
  return "stop";
}

json stop_reason(const GenerateResult& result) {
  if (!result.abort_reason.empty()) return result.abort_reason;
  return result.stop.empty() ? json() : json(result.stop);
}

void Usage::add(const GenerateResult& result) {
  completion += std::ssize(result.ids);
  audits.push_back(result.audit);
  for (const auto& warning : result.warnings)
    if (std::ranges::find(warnings, warning) == warnings.end()) warnings.push_back(warning);
}

void Usage::check_fired(const SteeringRequest& steering) const {
  if (!steering.require_fired) return;
  try {
    for (const auto& audit : audits) audit.require_fired("Server");
  } catch (const Error& error) {
    throw ApiError(422, error.what(), "steering", "steering_not_fired");
  }
}

json Usage::to_json(const SteeringRequest& steering) const {
  json usage{{"prompt_tokens", prompt}, {"completion_tokens", completion}, {"total_tokens", prompt + completion}};
  if (steering.given) usage["steering"] = audit_json(audits, warnings);
  return usage;
}

std::string Usage::note(const SteeringRequest& steering) const {
  return format_text(R"("prompt_tokens":{},"completion_tokens":{},"steered":{})", prompt, completion,
                     !steering.steering.empty());
}

}  // namespace steer::serve::detail
