#include <steer/eval/http_judge.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>

#include "core/format_text.hpp"
#include "eval/judge/http_post.hpp"
#include "eval/judge/judge_reply.hpp"
#include "io/strict_json.hpp"

namespace steer {
namespace eval::detail {

using Clock = std::chrono::steady_clock;

inline std::chrono::microseconds microseconds(double seconds) {
  return std::chrono::microseconds(static_cast<std::int64_t>(seconds * 1e6));
}

/// Gives out start times so that no more than so many requests start a minute.
class RateLimit {
 public:
  explicit RateLimit(double per_minute) : gap_(microseconds(per_minute > 0 ? 60 / per_minute : 0)) {}
  void wait() {
    if (gap_.count() == 0) return;
    Clock::time_point start;
    {
      const std::lock_guard lock(mutex_);
      start = std::max(next_, Clock::now());
      next_ = start + gap_;
    }
    std::this_thread::sleep_until(start);
  }

 private:
  std::chrono::microseconds gap_;
  std::mutex mutex_;
  Clock::time_point next_{};
};

/// What a server takes of a request's optional parts: learnt from its refusals.
struct Dialect {
  bool temperature = true;
  bool completion_tokens = true;  // max_completion_tokens, else the older max_tokens
};

}  // namespace eval::detail

namespace {

using eval::detail::Clock, eval::detail::Dialect, eval::detail::microseconds, eval::detail::RateLimit;

using nlohmann::json;
constexpr std::string_view kRedacted = "[key]";

/// How one attempt ended.
struct Attempt {
  std::optional<double> score;
  std::string problem;       // without a score
  bool reached = false;      // the server answered something
  bool answered = false;     // the model did: what it said is a result, with or without a score
  bool final = false;        // trying again would change nothing
  bool adapted = false;      // the server wants the request in another form, which the next attempt has
  double retry_after_s = 0;  // it asked for
};

std::int64_t token_count(const json& usage, const char* name) {
  const auto found = usage.find(name);
  if (found == usage.end() || !found->is_number()) return 0;
  const auto count = found->get<double>();
  return count >= 0 && count < 1e12 ? static_cast<std::int64_t>(count) : 0;
}

}  // namespace

struct HttpJudge::Impl {
  HttpJudgeOptions options;
  eval::detail::Endpoint endpoint;
  std::string key;
  RateLimit rate;
  mutable std::mutex mutex;
  JudgeUsage usage;
  Dialect dialect;

  explicit Impl(HttpJudgeOptions given)
      : options(std::move(given)),
        endpoint(eval::detail::parse_endpoint(options.url)),
        rate(options.requests_per_minute) {
    require(!options.model.empty(), ErrorCode::config, "HttpJudge", "expected the name of a judge model but got none");
    require(
        options.max_attempts >= 1 && options.parallel >= 1 && options.timeout_s > 0 && options.first_delay_s >= 0 &&
            options.max_delay_s >= 0 && options.requests_per_minute >= 0 && options.max_cost >= 0 &&
            options.max_tokens >= 0 && options.max_reply_bytes >= 1,
        ErrorCode::argument, "HttpJudge",
        "expected at least one attempt, one request at a time and one byte of reply, a timeout above 0 and limits of "
        "0 or more");
    if (options.key_variable.empty()) return;
    const char* value = std::getenv(options.key_variable.c_str());
    require(value && *value, ErrorCode::config, "HttpJudge",
            "expected the API key in the environment variable {} but it is not set", options.key_variable);
    key = value;
    // A line end in it would end the header and begin another.
    require(
        std::all_of(key.begin(), key.end(), [](unsigned char c) { return c > ' ' && c < 0x7f; }), ErrorCode::config,
        "HttpJudge",
        "expected a key of visible ASCII characters in {} but it holds a space, a line end or another character; is "
        "there a line end (or CR) at its end?",
        options.key_variable);
  }

  std::pair<std::string, std::string> key_header() const {
    if (key.empty()) return {};
    return {options.key_header, options.key_header == "Authorization" ? "Bearer " + key : key};
  }

  /// A server's text for a message: short, and without the key should it be echoed.
  std::string quote(std::string text) const {
    if (!key.empty())
      for (auto at = text.find(key); at != std::string::npos; at = text.find(key, at + kRedacted.size()))
        text.replace(at, key.size(), kRedacted);
    return text.size() > 160 ? text.substr(0, 160) + "..." : text;
  }

  void count(const json& reply) {
    const auto found = reply.find("usage");
    const json used = found != reply.end() && found->is_object() ? *found : json::object();
    const std::lock_guard lock(mutex);
    usage.input_tokens += token_count(used, "prompt_tokens");
    usage.output_tokens += token_count(used, "completion_tokens");
    usage.cost = (static_cast<double>(usage.input_tokens) * options.price_per_million_input +
                  static_cast<double>(usage.output_tokens) * options.price_per_million_output) /
                 1e6;
  }

  std::string request_body(const std::string& prompt) const {
    json body{{"model", options.model}, {"messages", {{{"role", "user"}, {"content", prompt}}}}};
    const std::lock_guard lock(mutex);
    if (options.temperature && dialect.temperature) body["temperature"] = *options.temperature;
    if (options.max_tokens > 0)
      body[dialect.completion_tokens ? "max_completion_tokens" : "max_tokens"] = options.max_tokens;
    return body.dump(-1, ' ', false, json::error_handler_t::replace);
  }

  /// Whether a refusal is about a part that can be left out or named otherwise, which the next request then does.
  bool adapt(const std::string& refusal, const std::string& sent) {
    const std::lock_guard lock(mutex);
    if (refusal.find("temperature") != std::string::npos && sent.find("\"temperature\":") != std::string::npos) {
      dialect.temperature = false;
      return true;
    }
    if (refusal.find("max_completion_tokens") != std::string::npos &&
        sent.find("\"max_completion_tokens\":") != std::string::npos) {
      dialect.completion_tokens = false;
      return true;
    }
    return false;
  }

  Attempt attempt(eval::detail::HttpPoster& poster, Rubric rubric, const JudgeRequest& request,
                  const std::string& prompt) {
    rate.wait();
    {
      const std::lock_guard lock(mutex);
      require(options.max_cost == 0 || usage.cost < options.max_cost, ErrorCode::io, "HttpJudge::judge",
              "expected to stay under a cost of {} but {} is spent; raise max_cost to go on", options.max_cost,
              usage.cost);
      ++usage.requests;
    }
    const std::string body = request_body(prompt);
    const auto response = poster.post(body, key_header());
    Attempt result;
    if (response.status == 0) {
      result.problem = response.problem;
      return result;
    }
    result.reached = true;
    if (response.status != 200) {
      refused(response, body, result);
      return result;
    }
    read(response.body, rubric, request, result);
    return result;
  }

  void refused(const eval::detail::HttpReply& response, const std::string& sent, Attempt& result) {
    result.problem = format_text("status {}: {}", response.status, quote(response.body));
    if (response.status == 400 && adapt(response.body, sent)) {
      result.adapted = true;
      return;
    }
    const bool passing = response.status == 408 || response.status == 409 || response.status == 425 ||
                         response.status == 429 || response.status >= 500;
    require(passing, ErrorCode::config, "HttpJudge::judge",
            "expected the judge at {}{} to accept the request but got {}{}; check key, model and URL", endpoint.host,
            endpoint.path, result.problem,
            response.location.empty() ? "" : " (it points to " + quote(response.location) + ")");
    result.retry_after_s = eval::detail::retry_after(response.retry_after, std::time(nullptr));
  }

  /// The model's message in a reply with status 200.
  void read(const std::string& body, Rubric rubric, const JudgeRequest& request, Attempt& result) {
    const json reply = io::detail::find_json(body).value_or(json());
    if (!reply.is_object()) {
      result.problem = "not JSON: " + quote(body);
      return;
    }
    count(reply);
    const auto choices = reply.find("choices");
    if (choices == reply.end() || !choices->is_array() || choices->empty() || !(*choices)[0].is_object()) {
      result.problem = "no message: " + quote(body);  // an error of the provider behind the server
      return;
    }
    const json& choice = (*choices)[0];
    const auto reason = choice.find("finish_reason");
    const std::string ended = reason != choice.end() && reason->is_string() ? reason->get<std::string>() : "";
    const auto message = choice.find("message");
    const std::string text = message == choice.end() ? "" : eval::detail::message_text(*message);
    result.answered = true;
    result.final = ended == "content_filter";
    if (!result.final) result.score = parse_judgement(rubric, request, text);
    if (result.score) return;
    result.problem = text.empty() ? "no text in the reply" : "no score: " + quote(text);
    if (!ended.empty() && ended != "stop") result.problem += format_text(" (finish_reason {})", quote(ended));
  }

  Judgement judge(eval::detail::HttpPoster& poster, Rubric rubric, const JudgeRequest& request,
                  const std::atomic<bool>& stop) {
    const std::string prompt = judge_prompt(rubric, request);
    Rng jitter(derive_seed(0, prompt));
    double delay = options.first_delay_s;
    bool reached = false;
    Attempt last;
    for (std::int64_t tries = 1; tries <= options.max_attempts && !stop && !last.final; ++tries) {
      if (tries > 1) {
        {
          const std::lock_guard lock(mutex);
          ++usage.retries;
        }
        const double wait = std::max(std::min(delay, options.max_delay_s) * (0.5 + 0.5 * jitter.uniform()),
                                     std::min(last.retry_after_s, options.max_delay_s));
        std::this_thread::sleep_for(microseconds(wait));
        delay *= 2;
      }
      do {
        last = attempt(poster, rubric, request, prompt);
        reached |= last.reached;
      } while (last.adapted && !stop);
      if (last.score) return {.score = last.score};
    }
    require(reached || stop, ErrorCode::io, "HttpJudge::judge",
            "expected an answer from {} but got none in {} attempts ({}); nothing is lost, start again when it is up",
            endpoint.host, options.max_attempts, last.problem);
    const std::lock_guard lock(mutex);
    ++usage.failed;
    return {.failure = last.problem, .unanswered = !last.answered};
  }
};

HttpJudge::HttpJudge(HttpJudgeOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
HttpJudge::~HttpJudge() = default;

std::string HttpJudge::identity() const {
  const auto& options = impl_->options;
  return format_text("http {}{} {} temperature {}{}", impl_->endpoint.host, impl_->endpoint.path, options.model,
                     options.temperature ? format_text("{}", *options.temperature) : "of the server",
                     options.max_tokens > 0 ? format_text(" max tokens {}", options.max_tokens) : "");
}

std::string HttpJudge::caveat() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->dialect.temperature ? "" : "The server took no temperature: the model's own was used";
}

JudgeUsage HttpJudge::usage() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->usage;
}

std::vector<Judgement> HttpJudge::judge(Rubric rubric, std::span<const JudgeRequest> requests) {
  std::vector<Judgement> judgements(requests.size());
  std::atomic<std::size_t> next{0};
  std::atomic<bool> stop{false};
  std::exception_ptr error;
  std::mutex error_mutex;
  const auto work = [&] {
    try {
      eval::detail::HttpPoster poster(impl_->endpoint, impl_->options.timeout_s,
                                      static_cast<std::size_t>(impl_->options.max_reply_bytes));
      for (std::size_t i; !stop && (i = next++) < requests.size();)
        judgements[i] = impl_->judge(poster, rubric, requests[i], stop);
    } catch (...) {
      const std::lock_guard lock(error_mutex);
      if (!error) error = std::current_exception();
      stop = true;
    }
  };
  std::vector<std::thread> threads;
  const auto count = std::min<std::size_t>(static_cast<std::size_t>(impl_->options.parallel), requests.size());
  for (std::size_t i = 0; i < count; ++i) threads.emplace_back(work);
  for (auto& thread : threads) thread.join();
  if (error) std::rethrow_exception(error);
  return judgements;
}

}  // namespace steer
