#include <steer/eval/http_judge.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

// As the distribution builds the library: the header and the library must agree.
#ifndef CPPHTTPLIB_OPENSSL_SUPPORT
#define CPPHTTPLIB_OPENSSL_SUPPORT
#define CPPHTTPLIB_ZLIB_SUPPORT
#endif
#include <httplib.h>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>
#include <steer/core/random.hpp>

#include "io/strict_json.hpp"

namespace steer {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

std::chrono::microseconds microseconds(double seconds) {
  return std::chrono::microseconds(static_cast<std::int64_t>(seconds * 1e6));
}

struct Endpoint {
  std::string host;  // scheme://host[:port]
  std::string path;
};

Endpoint split(const std::string& url) {
  const bool http = url.starts_with("http://"), https = url.starts_with("https://");
  require(http || https, ErrorCode::config, "HttpJudge",
          "expected a URL that starts with http:// or https:// but got \"{}\"", url);
  const auto slash = url.find('/', https ? 8 : 7);
  Endpoint endpoint{url.substr(0, slash), slash == std::string::npos ? "" : url.substr(slash)};
  while (endpoint.path.ends_with('/')) endpoint.path.pop_back();
  endpoint.path += "/chat/completions";
  return endpoint;
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

/// How one attempt ended.
struct Attempt {
  std::optional<double> score;
  std::string problem;       // without a score
  bool reached = false;      // the server answered something
  double retry_after_s = 0;  // it asked for
};

}  // namespace

struct HttpJudge::Impl {
  HttpJudgeOptions options;
  Endpoint endpoint;
  std::string key;
  RateLimit rate;
  mutable std::mutex mutex;
  JudgeUsage usage;

  explicit Impl(HttpJudgeOptions given)
      : options(std::move(given)), endpoint(split(options.url)), rate(options.requests_per_minute) {
    require(!options.model.empty(), ErrorCode::config, "HttpJudge", "expected the name of a judge model but got none");
    require(options.max_attempts >= 1 && options.parallel >= 1 && options.timeout_s > 0 && options.first_delay_s >= 0 &&
                options.max_delay_s >= 0 && options.requests_per_minute >= 0 && options.max_cost >= 0,
            ErrorCode::argument, "HttpJudge",
            "expected at least one attempt and one request at a time, a timeout above 0 and "
            "limits of 0 or more");
    if (options.key_variable.empty()) return;
    const char* value = std::getenv(options.key_variable.c_str());
    require(value && *value, ErrorCode::config, "HttpJudge",
            "expected the API key in the environment variable {} but it is not set", options.key_variable);
    key = value;
  }

  /// A server's text for a message: short, and without the key should it be echoed.
  std::string quote(std::string text) const {
    if (!key.empty())
      for (auto at = text.find(key); at != std::string::npos; at = text.find(key))
        text.replace(at, key.size(), "[key]");
    return text.size() > 160 ? text.substr(0, 160) + "..." : text;
  }

  void count(const json& reply) {
    const std::lock_guard lock(mutex);
    const json used = reply.value("usage", json::object());
    const auto tokens = [&](const char* name) {
      return used.is_object() && used.contains(name) && used[name].is_number_integer() ? used[name].get<std::int64_t>()
                                                                                       : 0;
    };
    usage.input_tokens += tokens("prompt_tokens");
    usage.output_tokens += tokens("completion_tokens");
    usage.cost = (static_cast<double>(usage.input_tokens) * options.price_per_million_input +
                  static_cast<double>(usage.output_tokens) * options.price_per_million_output) /
                 1e6;
  }

  Attempt attempt(httplib::Client& client, Rubric rubric, const JudgeRequest& request, const std::string& body) {
    rate.wait();
    {
      const std::lock_guard lock(mutex);
      require(options.max_cost == 0 || usage.cost < options.max_cost, ErrorCode::io, "HttpJudge::judge",
              "expected to stay under a cost of {} but {} is spent; raise max_cost to go on", options.max_cost,
              usage.cost);
      ++usage.requests;
    }
    httplib::Headers headers;
    if (!key.empty()) headers.emplace("Authorization", "Bearer " + key);
    const auto response = client.Post(endpoint.path, headers, body, "application/json");
    Attempt result;
    if (!response) {
      result.problem = "no connection: " + httplib::to_string(response.error());
      return result;
    }
    result.reached = true;
    if (response->status != 200) {
      result.problem = fmt::format("status {}: {}", response->status, quote(response->body));
      require(response->status == 408 || response->status == 429 || response->status >= 500, ErrorCode::config,
              "HttpJudge::judge", "expected the judge at {} to accept the request but got {}; check key, model and URL",
              options.url, result.problem);
      result.retry_after_s = std::atof(response->get_header_value("Retry-After").c_str());
      return result;
    }
    const json reply = io::detail::find_json(response->body).value_or(nullptr);
    if (!reply.is_object()) {
      result.problem = "not JSON: " + quote(response->body);
      return result;
    }
    count(reply);
    const auto content = json::json_pointer("/choices/0/message/content");
    if (!reply.contains(content) || !reply[content].is_string()) {
      result.problem = "no message: " + quote(response->body);
      return result;
    }
    const auto& text = reply[content].get_ref<const std::string&>();
    result.score = parse_judgement(rubric, request, text);
    if (!result.score) result.problem = "no score: " + quote(text);
    return result;
  }

  Judgement judge(httplib::Client& client, Rubric rubric, const JudgeRequest& request, const std::atomic<bool>& stop) {
    const std::string body = json{{"model", options.model},
                                  {"temperature", options.temperature},
                                  {"messages", {{{"role", "user"}, {"content", judge_prompt(rubric, request)}}}}}
                                 .dump(-1, ' ', false, json::error_handler_t::replace);
    Rng jitter(derive_seed(0, body));
    double delay = options.first_delay_s;
    bool reached = false;
    Attempt last;
    for (std::int64_t tries = 1; tries <= options.max_attempts && !stop; ++tries) {
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
      last = attempt(client, rubric, request, body);
      if (last.score) return {last.score, ""};
      reached |= last.reached;
    }
    require(reached || stop, ErrorCode::io, "HttpJudge::judge",
            "expected an answer from {} but got none in {} attempts ({}); nothing is lost, start again when it is up",
            options.url, options.max_attempts, last.problem);
    const std::lock_guard lock(mutex);
    ++usage.failed;
    return {std::nullopt, last.problem};
  }
};

HttpJudge::HttpJudge(HttpJudgeOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
HttpJudge::~HttpJudge() = default;

std::string HttpJudge::identity() const {
  return fmt::format("http {} {} temperature {}", impl_->options.url, impl_->options.model, impl_->options.temperature);
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
      httplib::Client client(impl_->endpoint.host);
      client.set_keep_alive(true);
      const auto timeout = microseconds(impl_->options.timeout_s);
      client.set_connection_timeout(timeout);
      client.set_read_timeout(timeout);
      client.set_write_timeout(timeout);
      for (std::size_t i; !stop && (i = next++) < requests.size();)
        judgements[i] = impl_->judge(client, rubric, requests[i], stop);
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
