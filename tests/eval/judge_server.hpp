#pragma once
// A server on the loopback, for tests of the HTTP judge.

#define CPPHTTPLIB_OPENSSL_SUPPORT
#define CPPHTTPLIB_ZLIB_SUPPORT
#include <httplib.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include <steer/eval/http_judge.hpp>

#include "core/format_text.hpp"

namespace steer::test {

inline constexpr const char* kJudgeKey = "sk-very-secret";

/// An OpenAI-compatible server whose n-th answer the test decides, whatever is asked.
class JudgeServer {
 public:
  using ParsedAnswer = std::function<void(int n, const httplib::Request&, httplib::Response&)>;
  explicit JudgeServer(ParsedAnswer answer) {
    server_.Post(".*", [this, answer](const httplib::Request& request, httplib::Response& response) {
      answer(count_++, request, response);
    });
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    while (!server_.is_running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ~JudgeServer() {
    server_.stop();
    thread_.join();
  }
  std::string url(const std::string& path = "/v1") const { return format_text("http://127.0.0.1:{}{}", port_, path); }
  int count() const { return count_; }

 private:
  httplib::Server server_;
  int port_ = 0;
  std::atomic<int> count_{0};
  std::thread thread_;
};

/// A chat completion with this text.
inline std::string chat_reply(const std::string& content) {
  return nlohmann::json{{"choices", {{{"message", {{"content", content}}}}}},
                        {"usage", {{"prompt_tokens", 100}, {"completion_tokens", 10}}}}
      .dump();
}

/// Options that wait little.
inline HttpJudgeOptions quick_judge(const std::string& url) {
  setenv("STEER_TEST_KEY", kJudgeKey, 1);
  HttpJudgeOptions options;
  options.url = url;
  options.model = "grader";
  options.key_variable = "STEER_TEST_KEY";
  options.first_delay_s = 0.001;
  options.max_delay_s = 0.01;
  options.timeout_s = 5;
  options.parallel = 1;
  options.price_per_million_input = 1;
  options.price_per_million_output = 10;
  return options;
}

}  // namespace steer::test
