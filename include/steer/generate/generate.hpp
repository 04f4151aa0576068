#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <steer/core/enum.hpp>
#include <steer/core/progress.hpp>
#include <steer/model/session.hpp>
#include <steer/steering/steering.hpp>

namespace steer {

/// How the next token is drawn. Applied in this order: bias, repetition penalty, presence and frequency penalties,
/// temperature, top-k, top-p, min-p.
struct SamplingOptions {
  double temperature = 0;         ///< 0: greedy
  double top_p = 1;               ///< keep the smallest set of tokens whose probability reaches this
  std::int64_t top_k = 0;         ///< keep the k likeliest; 0: all
  double min_p = 0;               ///< keep tokens at least this likely relative to the likeliest
  double repetition_penalty = 1;  ///< divides positive and multiplies negative logits of tokens seen (CTRL, 2019)
  double presence_penalty = 0;    ///< taken off the logit of every token generated so far
  double frequency_penalty = 0;   ///< taken off it as often as it was generated (both as in OpenAI's service)
  std::vector<std::pair<std::int64_t, double>> logit_bias{};  ///< (id, added to its logit); -infinity bars the token
};

enum class FinishReason {
  stop_token,
  stop_string,
  length,
  context,
  aborted,  ///< by the steering, by the caller, or by a cancellation
  failed,   ///< its logits were not finite, or a callback or hook of its own threw
};

template <>
struct EnumTable<FinishReason> {
  static constexpr std::string_view name = "finish reason";
  static constexpr EnumEntry<FinishReason> entries[] = {
      {FinishReason::stop_token, "stop_token"}, {FinishReason::stop_string, "stop_string"},
      {FinishReason::length, "length"},         {FinishReason::context, "context"},
      {FinishReason::aborted, "aborted"},       {FinishReason::failed, "failed"}};
};

/// A new token of one row, as it is drawn.
struct TokenEvent {
  std::int64_t row = 0;
  std::int64_t id = 0;         ///< -1: no token, but text that was held back until the row's end
  std::string_view text;       ///< what became final with it; may be empty
  double log_probability = 0;  ///< under the unfiltered distribution
};

struct GenerateOptions {
  SamplingOptions sampling{};
  std::int64_t max_tokens = 256;
  std::int64_t min_tokens = 0;      ///< before, no stop id is drawn
  bool ignore_eos = false;          ///< the model's own ends are tokens like others; what the options add still ends
  std::vector<std::string> stop{};  ///< the text ends before the first of these
  std::vector<std::int64_t> stop_ids{};    ///< besides the model's own end-of-sequence ids
  Steering steering{};                     ///< for rows that bring none of their own
  std::uint64_t seed = 0;                  ///< row r of a batch draws from derive_seed(seed, "row", r)
  std::int64_t batch = 32;                 ///< rows computed at once; a finished row makes room for the next
  bool require_fired = false;              ///< a steering that edited no token is an error
  OnWarning on_warning = OnWarning::keep;  ///< what a steering that warns is (see SessionOptions)
  std::int64_t top = 0;                    ///< also give the likeliest alternatives of each token
  bool keep_sequences = false;             ///< on a Session: rows' sequences stay open, for the next turn
  bool batch_invariant = true;  ///< exact independence of batch mates (see SessionOptions); false: up to rounding
  std::function<bool(const TokenEvent&)> on_token{};  ///< called per token; false ends that row
  Progress progress{};                                ///< counts rows
};

/// One row of a batch.
struct GenerateRequest {
  std::vector<std::int64_t> ids{};      ///< the prompt, BOS included
  std::optional<Steering> steering{};   ///< instead of the options'
  std::optional<std::uint64_t> seed{};  ///< instead of the derived one
  std::optional<SequenceId> after{};    ///< on a Session: `ids` follow what this sequence holds, which stays as it is
};

/// Alternatives of one token: (id, log-probability under the unfiltered distribution), likeliest first.
using TopTokens = std::vector<std::pair<std::int64_t, double>>;

struct GenerateResult {
  std::vector<std::int64_t> ids{};  ///< generated only, without the stop token
  std::string text{};
  FinishReason finish = FinishReason::length;
  std::string stop{};                       ///< for `stop_string`: which one
  std::string abort_reason{};               ///< for `aborted` and `failed`
  std::vector<double> log_probabilities{};  ///< of each id, under the unfiltered distribution
  std::vector<TopTokens> top{};             ///< by id, as many as were asked for
  std::vector<double>
      prompt_log_probabilities{};       ///< `EngineRequest::score_from`: of the prompt's tokens from there on
  std::vector<TopTokens> prompt_top{};  ///< beside them
  SteeringAudit audit{};
  std::vector<std::string> warnings{};  ///< what a person should know of this row's steering; a program prints them
  SequenceId sequence = -1;             ///< with `keep_sequences`: holds the prompt and `ids`
};

/// Generates for a batch of prompts. A row's result depends on its own prompt, steering and seed only, and a prefix
/// that several unsteered prompts have in common is computed once. Rows end at the model's end-of-sequence ids, its
/// chat format's end of turn, and what the options add. One thread; the model may be in use by others.
/// @return one result a request, in their order.
/// @throws Error(argument) for an empty prompt or options out of range; Error(shape) for a prompt as long as the
///         context or longer; Error(config) for stop strings without a tokenizer, or, with `require_fired`, a
///         steering that edited nothing; whatever `Session::open` throws.
std::vector<GenerateResult> generate(const Model& model, std::span<const GenerateRequest> requests,
                                     const GenerateOptions& options = {});
/// The same on a session of the caller's: its hooks see every step, and its options hold instead of `batch_invariant`
/// and `on_warning`. For the next turn of a chat keep a row's sequence (`keep_sequences`) and send what follows with
/// `GenerateRequest::after`.
std::vector<GenerateResult> generate(Session& session, std::span<const GenerateRequest> requests,
                                     const GenerateOptions& options = {});
/// The assistant's next message of a chat, in the model's own template. @throws as above, and as ChatTemplate::render.
GenerateResult generate(const Model& model, const std::vector<Message>& chat, const GenerateOptions& options = {});
/// The answer to a user's message, or the continuation of a text for a model without a chat format.
/// @throws as above; Error(config) for a steering that warns, which a text cannot carry, unless `on_warning` is ignore.
std::string generate(const Model& model, std::string_view text, const GenerateOptions& options = {});

}  // namespace steer
