#pragma once
// What a request asks of a generation, and how it becomes the engine's.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <steer/generate/engine.hpp>

#include "serve/service.hpp"
#include "serve/steering_request.hpp"
#include "serve/steering_shapes.hpp"

namespace steer::serve::detail {

struct GenerationCall {
  SamplingOptions sampling{};
  std::optional<std::int64_t> max_tokens{};  ///< absent: what the context holds
  std::vector<std::string> stop{};
  std::vector<std::int64_t> stop_ids{};
  std::int64_t min_tokens = 0;
  bool ignore_eos = false;
  std::uint64_t seed = 0;
  std::int64_t choices = 1;      ///< of each prompt
  std::int64_t top = -1;         ///< alternatives of each new token; -1: no log-probabilities
  std::int64_t prompt_top = -1;  ///< the same of the prompt's
  int priority = 0;
  bool stream = false, include_usage = false;
  SteeringRequest steering{};
};

/// Reads the fields that all ways to ask for text have in common.
GenerationCall read_generation(Fields& fields, const Service& service);
/// The engine's request for one prompt. @throws ApiError(400) for a prompt that leaves no room.
EngineRequest engine_request(const GenerationCall& call, std::vector<std::int64_t> ids, const Service& service);

/// What collects the layers' outputs that the request asks for; nothing without. They come whole, not streamed.
std::optional<ResidualCapture> residual_capture(const GenerationCall& call, const Service& service);

/// OpenAI's word for why a row ended.
const char* finish_word(FinishReason reason);
/// What vLLM's "stop_reason" says beside it: the stop string, or why the steering ended the row; null without.
nlohmann::json stop_reason(const GenerateResult& result);

/// Counts an answer's tokens, for "usage", the log and the metrics.
struct Usage {
  std::int64_t prompt = 0, completion = 0;
  std::vector<SteeringAudit> audits{};
  std::vector<std::string> warnings{};
  void add(const GenerateResult& result);
  /// @throws ApiError(422) where the steering must fire and changed no token.
  void check_fired(const SteeringRequest& steering) const;
  /// {"prompt_tokens", "completion_tokens", "total_tokens"} and, for a steered one, "steering".
  nlohmann::json to_json(const SteeringRequest& steering) const;
  /// Members of the log's line.
  std::string note(const SteeringRequest& steering) const;
};

}  // namespace steer::serve::detail
