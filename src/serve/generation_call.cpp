#include "serve/generation_call.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>

#include <steer/core/error.hpp>
#include <steer/model/session.hpp>

#include "model/reproducible.hpp"

namespace steer::serve::detail {

using nlohmann::json;

namespace {

constexpr std::int64_t kMostStops = 16;
constexpr double kAnything = 1e300;

std::vector<std::string> read_stop(Fields& fields) {
  const json* value = fields.find("stop");
  if (!value) return {};
  std::vector<std::string> stop;
  for (const json& item : value->is_array() ? *value : json::array({*value})) {
    if (!item.is_string() || item.get_ref<const std::string&>().empty())
      fields.fail("stop", "expected \"stop\" to be a string or a list of them, none empty");
    stop.push_back(item.get<std::string>());
  }
  if (std::ssize(stop) > kMostStops) fields.fail("stop", fmt::format("expected at most {} stop strings", kMostStops));
  return stop;
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
  for (const char* penalty : {"presence_penalty", "frequency_penalty"})
    if (fields.number(penalty, 0, -kAnything, kAnything) != 0)
      fields.fail(penalty, fmt::format("\"{}\" is not supported yet", penalty));
  fields.refuse({"logit_bias"}, "not yet");
  fields.ignore(
      {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"});
  return call;
}

EngineRequest engine_request(const GenerationCall& call, std::vector<std::int64_t> ids, const Service& service) {
  const std::int64_t context = service.model.config().context;
  if (std::ssize(ids) >= context)
    throw ApiError(400,
                   fmt::format("the prompt has {} tokens, and this model's context holds {}, of which the answer needs "
                               "at least one; shorten the prompt",
                               ids.size(), context),
                   {}, "context_length_exceeded");
  const std::int64_t room = context - std::ssize(ids);
  const std::int64_t allowed = service.options.max_tokens > 0 ? service.options.max_tokens : context;
  if (call.max_tokens && *call.max_tokens > allowed && service.options.max_tokens > 0)
    throw ApiError(
        400, fmt::format("{} new tokens were asked for, and this server gives at most {}", *call.max_tokens, allowed),
        "max_tokens");
  return {.ids = std::move(ids),
          .steering = call.steering.steering,
          .sampling = call.sampling,
          .max_tokens = std::min({call.max_tokens.value_or(room), room, allowed}),
          .stop = call.stop,
          .stop_ids = call.stop_ids,
          .seed = call.seed,
          .samples = call.choices,
          .priority = call.priority};
}

PromptScores score_prompt(Service& service, const GenerationCall& call, const std::vector<std::int64_t>& ids) {
  if (ids.size() < 2) return {};
  const std::lock_guard lock(service.reading);
  Session session(service.model, model::detail::reproducible(service.model));
  auto scores = session.log_probabilities(
      ids, {.steering = call.steering.steering, .top = std::max<std::int64_t>(call.prompt_top, 0)});
  return {std::move(scores.tokens), std::move(scores.top)};
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
      return "content_filter";
  }
  return "stop";
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
  return fmt::format(R"("prompt_tokens":{},"completion_tokens":{},"steered":{})", prompt, completion,
                     !steering.steering.empty());
}

}  // namespace steer::serve::detail
