#pragma once
// What the server has done so far, as Prometheus reads it.

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include <steer/generate/engine.hpp>

namespace steer::serve::detail {

class Metrics {
 public:
  /// @param route  the route's path, not the request's: there are few of them.
  void count_request(std::string_view route, int status, double seconds);
  void count_first_token(double seconds);
  void count_prompt_tokens(std::int64_t count) { prompt_tokens_ += count; }
  void count_completion_tokens(std::int64_t count) { completion_tokens_ += count; }
  /// Prometheus' text format, version 0.0.4.
  std::string text(const Engine::Load& load, std::int64_t connections) const;

 private:
  struct Times {
    static constexpr std::array bounds{0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0};
    std::array<std::int64_t, bounds.size()> at_most{};
    std::int64_t count = 0;
    double sum = 0;
    void add(double seconds);
    void print(std::string_view name, std::string_view help, std::string& out) const;
  };
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, std::int64_t> requests_;
  Times request_seconds_, first_token_seconds_;
  std::atomic<std::int64_t> prompt_tokens_ = 0, completion_tokens_ = 0;
};

}  // namespace steer::serve::detail
