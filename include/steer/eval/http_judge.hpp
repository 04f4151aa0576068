#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <steer/core/progress.hpp>
#include <steer/eval/judge.hpp>

namespace steer {

struct HttpJudgeOptions {
  /// Of the API (`https://host/v1`; a query such as `?api-version=...` is kept), or the whole one of chat/completions.
  /// No user, password or key: it is written to journals and reports.
  std::string url = "https://api.openai.com/v1";
  std::string model{};                          ///< required
  std::string key_variable = "OPENAI_API_KEY";  ///< environment variable that holds the key; empty: send none
  std::string key_header =
      "Authorization";  ///< "Authorization: Bearer KEY"; another one ("api-key") holds the key alone
  std::optional<double> temperature = 0.0;  ///< none: not sent, as some models want it
  std::int64_t max_tokens = 0;              ///< of a reply, thought included; 0: not sent
  std::int64_t max_attempts = 5;            ///< for one judgement
  double first_delay_s = 1;  ///< before the second attempt; doubles, with random jitter, up to max_delay_s
  double max_delay_s = 60;
  double timeout_s = 60;                   ///< of one request, from connecting to the reply's last byte
  std::int64_t max_reply_bytes = 8 << 20;  ///< of one reply, unpacked
  double requests_per_minute = 0;          ///< 0: no limit
  std::int64_t parallel = 4;               ///< requests under way at once
  double price_per_million_input = 0;      ///< for `usage().cost`
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
/// A reply without a usable score, a timeout, a lost connection and the statuses 408, 409, 425, 429 and 5xx are tried
/// again with exponential backoff (`Retry-After`, in seconds or as a date, is respected up to max_delay_s). A judgement
/// that stays unusable is a failure of that row; where the server gave no reply of the model, it is `unanswered`. A
/// server that takes no temperature, or calls the token limit max_tokens, is asked again as it wants; `caveat` says so.
/// The key is read from the environment only, sent in one header only, and appears in no message or identity.
class HttpJudge : public Judge {
 public:
  /// @throws Error(config) for a missing model, a URL that is not http(s) or holds a secret, an environment variable
  ///         that is not set or whose key holds other than visible ASCII; Error(argument) for options out of range.
  explicit HttpJudge(HttpJudgeOptions options);
  ~HttpJudge() override;
  std::string identity() const override;
  std::string caveat() const override;
  /// @throws Error(io) when the server cannot be reached in any attempt, or the cost limit is met; Error(config) when
  ///         it refuses the key, the model or the request (other 4xx statuses).
  std::vector<Judgement> judge(Rubric rubric, std::span<const JudgeRequest> requests) override;
  JudgeUsage usage() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace steer
