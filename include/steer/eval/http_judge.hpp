#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <steer/core/progress.hpp>
#include <steer/eval/judge.hpp>

namespace steer {

struct HttpJudgeOptions {
  std::string url = "https://api.openai.com/v1";  ///< of the API; requests go to `<url>/chat/completions`
  std::string model;                              ///< required
  std::string key_variable = "OPENAI_API_KEY";    ///< environment variable that holds the key; empty: send none
  double temperature = 0;
  std::int64_t max_attempts = 5;  ///< for one judgement
  double first_delay_s = 1;       ///< before the second attempt; doubles, with random jitter, up to max_delay_s
  double max_delay_s = 60;
  double timeout_s = 60;               ///< of one request
  double requests_per_minute = 0;      ///< 0: no limit
  std::int64_t parallel = 4;           ///< requests under way at once
  double price_per_million_input = 0;  ///< for `usage().cost`
  double price_per_million_output = 0;
  double max_cost = 0;  ///< stop before more is spent; 0: no limit
};

/// What a judge has used so far.
struct JudgeUsage {
  std::int64_t requests = 0, retries = 0, failed = 0;
  std::int64_t input_tokens = 0, output_tokens = 0;  ///< as the server reports them
  double cost = 0;
};

/// A judge behind an OpenAI-compatible HTTP API (a hosted service, or vLLM, llama.cpp, Ollama on one's own machine).
///
/// A reply without a usable score, a timeout, a lost connection and the statuses 408, 429 and 5xx are tried again with
/// exponential backoff (`Retry-After` is respected). A judgement that stays unusable is a failure of that row. The key
/// is read from the environment only, sent in the Authorization header only, and appears in no message or identity.
class HttpJudge : public Judge {
 public:
  /// @throws Error(config) for a missing model, a URL that is not http(s), or an environment variable that is not set;
  ///         Error(argument) for options out of range.
  explicit HttpJudge(HttpJudgeOptions options);
  ~HttpJudge() override;
  std::string identity() const override;
  /// @throws Error(io) when the server cannot be reached in any attempt, or the cost limit is met; Error(config) when
  /// it
  ///         refuses the key, the model or the request (other 4xx statuses).
  std::vector<Judgement> judge(Rubric rubric, std::span<const JudgeRequest> requests) override;
  JudgeUsage usage() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace steer
