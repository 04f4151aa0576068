#include "serve/metrics.hpp"

#include "core/format_text.hpp"

namespace steer::serve::detail {

void Metrics::Times::add(double seconds) {
  for (std::size_t i = 0; i < bounds.size(); ++i) at_most[i] += seconds <= bounds[i];
  ++count;
  sum += seconds;
}

void Metrics::Times::print(std::string_view name, std::string_view help, std::string& out) const {
  out += format_text("# HELP {0} {1}\n# TYPE {0} histogram\n", name, help);
  for (std::size_t i = 0; i < bounds.size(); ++i)
    out += format_text("{}_bucket{{le=\"{}\"}} {}\n", name, bounds[i], at_most[i]);
  out += format_text("{0}_bucket{{le=\"+Inf\"}} {1}\n{0}_sum {2}\n{0}_count {1}\n", name, count, sum);
}

void Metrics::count_request(std::string_view route, int status, double seconds) {
  const std::lock_guard lock(mutex_);
  ++requests_[{std::string(route), status}];
  request_seconds_.add(seconds);
}

void Metrics::count_first_token(double seconds) {
  const std::lock_guard lock(mutex_);
  first_token_seconds_.add(seconds);
}

std::string Metrics::text(const Engine::Load& load, std::int64_t connections) const {
  std::string out;
  const auto number = [&](std::string_view name, std::string_view type, std::string_view help, auto value) {
    out += format_text("# HELP {0} {1}\n# TYPE {0} {2}\n{0} {3}\n", name, help, type, value);
  };
  number("steer_rows_running", "gauge", "Rows computed in each step.", load.running);
  number("steer_rows_waiting", "gauge", "Rows that wait for a place.", load.waiting);
  number("steer_connections", "gauge", "Open connections.", connections);
  number("steer_cache_bytes", "gauge", "Bytes of keys and values, kept prompts included.", load.cache_bytes);
  number("steer_generated_tokens_total", "counter", "Tokens drawn.", load.tokens);
  number("steer_computed_prompt_tokens_total", "counter", "Prompt tokens computed.", load.prompt_tokens);
  number("steer_prefix_tokens_total", "counter", "Prompt tokens taken from a kept prompt instead.", load.shared_tokens);
  number("steer_steps_total", "counter", "Passes over the model.", load.steps);
  number("steer_set_back_total", "counter", "Times that a row lost its cache to others.", load.set_back);
  number("steer_prompt_tokens_total", "counter", "Prompt tokens of answered requests.", prompt_tokens_.load());
  number("steer_completion_tokens_total", "counter", "New tokens of answered requests.", completion_tokens_.load());
  const std::lock_guard lock(mutex_);
  out += "# HELP steer_requests_total Answered requests.\n# TYPE steer_requests_total counter\n";
  for (const auto& [key, count] : requests_)
    out += format_text("steer_requests_total{{route=\"{}\",status=\"{}\"}} {}\n", key.first, key.second, count);
  request_seconds_.print("steer_request_seconds", "From a request's arrival to its answer's last byte.", out);
  first_token_seconds_.print("steer_first_token_seconds", "From a request's arrival to its first token.", out);
  return out;
}

}  // namespace steer::serve::detail
