// Bad input, clients that misbehave, and ends that come early: nothing crashes, no row is left over, other rows' bits
// do not change.

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <steer/core/random.hpp>

#include "demo_server.hpp"

namespace {

using namespace steer_test;
using nlohmann::json;

const std::string kLong = R"({"prompt": "In the land of Pelia,", "max_tokens": 400, "temperature": 1, "seed": 3,
  "stream": true, "n": 32, "ignore_eos": true})";

class ServeFaults : public testing::Test {
 protected:
  static steer::ServerOptions options() {
    auto options = demo_options();
    options.head_seconds = 0.5;
    options.body_seconds = 0.5;
    options.max_body_bytes = 12 << 20;
    return options;
  }
  steer::Server server_{demo_model(), options()};
  int port() const { return server_.port(); }
  bool idle() const {
    return comes_true([&] { return rows(port()) == 0; });
  }
  std::int64_t generated() const {
    const std::string text = call(port(), "GET", "/metrics").body;
    return std::stoll(text.substr(text.find("\nsteer_generated_tokens_total ") + 30));
  }
  HttpAnswer raw(std::string_view bytes) const {
    const Wire wire(port());
    wire.send(bytes);
    return wire.answer();
  }
};

TEST_F(ServeFaults, BodiesThatAreNoJsonAreRefused) {
  const auto refused = [&](const std::string& body, int status = 400) {
    const auto answer = call(port(), "POST", "/v1/completions", body);
    EXPECT_EQ(answer.status, status) << body.substr(0, 80) << answer.body;
    EXPECT_TRUE(answer.json()["error"]["message"].is_string());
  };
  refused("");
  refused("{");
  refused("[]");
  refused("null");
  refused("\xff\xfe{}");
  refused(R"({"prompt": ")"
          "\xc3\x28"
          R"("})");
  refused(R"({"prompt": "a", "prompt)" + std::string(1, '\0') + "\": 1}");
  refused(R"({"prompt": )" + std::string(100000, '[') + std::string(100000, ']') + "}");
  refused(R"({"steering": )" + std::string(100000, '{'));
  refused(R"({"prompt": "a", "seed": 1e400})");
  std::string nested = R"({"source":"entropy"})";
  for (int i = 0; i < 40; ++i) nested = R"({"source":"all_of","parts":[)" + nested + "]}";
  refused(R"({"prompt":"a","steering":{"feature":1,"strength":1,"when":)" + nested + "}}");
}

TEST_F(ServeFaults, ALongPromptIsRefusedAndALargeBodyNotRead) {
  std::string words;
  while (words.size() < 10'000'000) words += "land of Pelia ";
  const auto answer = post(port(), "/v1/completions", {{"prompt", words}});
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(answer.json()["error"]["code"], "context_length_exceeded");
  EXPECT_EQ(call(port(), "POST", "/v1/completions", std::string(13 << 20, ' ')).status, 413);
  // The same in chunks, whose sum the head does not tell.
  const Wire wire(port());
  wire.send("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
  const std::string chunk = "100000\r\n" + std::string(1 << 20, ' ') + "\r\n";
  for (int i = 0; i < 40 && wire.send(chunk); ++i) {
  }
  const int status = wire.answer().status;  // or the connection is broken while it still sends
  EXPECT_TRUE(status == 413 || status == 0) << status;
  EXPECT_EQ(call(port(), "GET", "/health").status, 200);
}

TEST_F(ServeFaults, HeadsThatLeaveTheBodysEndInDoubtAreRefused) {
  const std::string start = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n";
  EXPECT_EQ(raw(start + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}").status, 400);
  EXPECT_EQ(raw(start + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}").status, 400);
  EXPECT_EQ(raw(start + "Content-Length: -2\r\n\r\n{}").status, 400);
  EXPECT_EQ(raw(start + "Content-Length: 2x\r\n\r\n{}").status, 400);
  EXPECT_EQ(raw(start + "Transfer-Encoding: gzip\r\n\r\n{}").status, 501);
  EXPECT_EQ(raw(start + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}").status, 415);
  EXPECT_EQ(raw("nonsense\r\n\r\n").status, 400);
  EXPECT_EQ(raw("GET " + std::string(20000, '/') + " HTTP/1.1\r\n\r\n").status, 414);
  EXPECT_EQ(raw("GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + std::string(100000, 'a') + "\r\n\r\n").status, 431);
  EXPECT_EQ(call(port(), "GET", "/v1/completions").status, 405);
  EXPECT_EQ(call(port(), "PUT", "/health").status, 405);
  EXPECT_EQ(call(port(), "GET", "/nothing").status, 404);
  EXPECT_EQ(call(port(), "GET", "/../../etc/passwd").status, 404);
  EXPECT_EQ(call(port(), "GET", "/v1/models/..%2f..%2fetc%2fpasswd").status, 404);
}

TEST_F(ServeFaults, SlowClientsAreSentAway) {
  std::vector<Wire> slow;
  for (int i = 0; i < 50; ++i) {
    slow.emplace_back(port());
    slow.back().send("POST /v1/completions HT");
  }
  EXPECT_EQ(call(port(), "GET", "/health").status, 200);
  for (int i = 0; i < 20; ++i) {  // a byte now and then does not help
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    slow.front().send("T");
  }
  for (const auto& wire : slow) EXPECT_TRUE(wire.closed_within(10));
  const Wire body(port());
  body.send("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{");
  EXPECT_EQ(body.answer().status, 408);
}

TEST_F(ServeFaults, AClientThatGoesAwayFreesItsRows) {
  constexpr std::int64_t kAll = 32 * 400;  // what each request would generate
  for (const int how : {0, 1, 2}) {
    const std::int64_t before = generated();
    Wire wire(port());
    wire.send(request_text("POST", "/v1/completions", kLong));
    EXPECT_FALSE(wire.receive().empty());
    EXPECT_TRUE(comes_true([&] { return rows(port()) > 0; }));
    if (how == 0) wire.close();
    if (how == 1) wire.reset();
    if (how == 2) wire.half_close();
    EXPECT_TRUE(idle()) << how;
    EXPECT_LT(generated() - before, kAll) << how;
  }
  // One that waits for the whole, and has sent nothing but its request.
  const std::int64_t before = generated();
  json whole = json::parse(kLong);
  whole["stream"] = false;
  Wire wire(port());
  wire.send(request_text("POST", "/v1/completions", whole.dump()));
  EXPECT_TRUE(comes_true([&] { return rows(port()) > 0; }));
  wire.reset();
  EXPECT_TRUE(idle());
  EXPECT_LT(generated() - before, kAll);
}

TEST_F(ServeFaults, ASearchEndsWhenItsClientGoes) {
  Wire wire(port());
  wire.send(request_text("POST", "/api/inference/v1/features/auto-edits",
                         json{{"specification", "imaginative"}, {"model", "demo"}}.dump()));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  wire.reset();
  // One search at a time: the next one begins when that one has ended, which would take it some hundred answers.
  const auto job = post(port(), "/v1/auto_steer", {{"behaviour", "formal"}});
  ASSERT_EQ(job.status, 202) << job.body;
  const std::string path = "/v1/auto_steer/" + job.json()["id"].get<std::string>();
  EXPECT_TRUE(comes_true([&] { return call(port(), "GET", path).json()["progress"] != ""; }, 5));
  EXPECT_EQ(call(port(), "DELETE", path).json()["status"], "cancelled");
}

TEST_F(ServeFaults, OtherRowsBitsDoNotChange) {
  const json body{{"prompt", "In the land of Pelia, what is the feast?"},
                  {"max_tokens", 48},
                  {"temperature", 0.7},
                  {"seed", 9},
                  {"logprobs", 0}};
  // Those that went away hold their places for a moment, so the queue may be full: then this client asks again.
  const auto choices = [&]() -> json {
    HttpAnswer answer;
    EXPECT_TRUE(comes_true([&] { return (answer = post(port(), "/v1/completions", body)).status != 429; }));
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer.status == 200 ? answer.json()["choices"] : json();
  };
  const json alone = choices();
  std::vector<std::jthread> hostile;  // told to stop, and waited for, when they are cleared
  for (int i = 0; i < 6; ++i)
    hostile.emplace_back([&, i](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        Wire wire(port());
        if (i % 3 == 0) wire.send(request_text("POST", "/v1/completions", kLong)), wire.receive(), wire.reset();
        if (i % 3 == 1)
          post(port(), "/v1/completions",
               {{"prompt", "x"}, {"steering", {{"feature", 7}, {"strength", 1e37}}}, {"max_tokens", 4}});
        if (i % 3 == 2) call(port(), "POST", "/v1/chat/completions", "{\"messages\": [");
      }
    });
  for (int i = 0; i < 5; ++i) EXPECT_EQ(choices(), alone);
  hostile.clear();
  EXPECT_TRUE(idle());
}

/// A value somewhere in a tree, replaced, removed or moved.
void mutate(json& value, steer::Rng& rng) {
  static const json odd[] = {nullptr,
                             true,
                             -1,
                             0,
                             1e300,
                             1e-300,
                             INT64_MAX,
                             UINT64_MAX,
                             "",
                             "x",
                             "\u0000",
                             "\xEF\xBF\xBD",
                             json::array(),
                             json::object(),
                             {1, "a", nullptr},
                             {{"feature", 3}},
                             "generated",
                             "max_activation"};
  if (value.is_structured() && !value.empty() && rng.below(4) > 0) {
    auto at = value.begin();
    std::advance(at, static_cast<std::ptrdiff_t>(rng.below(value.size())));
    if (rng.below(8) == 0) {
      value.erase(at);
      return;
    }
    if (value.is_object() && rng.below(8) == 0) {
      const json moved = *at;
      value[at.key() + "s"] = moved;
      return;
    }
    return mutate(*at, rng);
  }
  value = odd[rng.below(std::size(odd))];
}

TEST_F(ServeFaults, RequestsOfEveryShapeAreAnsweredOrRefused) {
  const std::pair<const char*, json> seeds[] = {
      {"/v1/completions",
       {{"prompt", {"a", "b"}},
        {"max_tokens", 2},
        {"n", 2},
        {"stop", {"x"}},
        {"logit_bias", {{"5", 3}}},
        {"echo", true},
        {"logprobs", 1},
        {"stream_options", nullptr},
        {"seed", 3},
        {"steering",
         {{{"feature", 330},
           {"strength", 1},
           {"scope", {{"where", "onset"}, {"count", 2}}},
           {"when", {{"source", "feature"}, {"feature", 4}, {"above", 0.5}}}}}}}},
      {"/v1/chat/completions",
       {{"messages", {{{"role", "user"}, {"content", {{{"type", "text"}, {"text", "hello"}}}}}}},
        {"max_tokens", 2},
        {"top_logprobs", 2},
        {"logprobs", true},
        {"stream", true},
        {"stream_options", {{"include_usage", true}}},
        {"steering",
         {{"edits", {{{"kind", "add"}, {"point", "blocks.1.hook_resid_post"}, {"vector", {{"values", {1, 2}}}}}}}}}}},
      {"/v1/activations",
       {{"prompt", "a b"}, {"points", {"blocks.*.hook_resid_post"}}, {"positions", {-1}}, {"top", 3}}},
      {"/v1/logit_lens", {{"messages", {{{"role", "user"}, {"content", "hello"}}}}, {"positions", {0}}, {"top", 3}}},
      {"/v1/features/contrast", {{"positive", {"a", "b"}}, {"negative", {"c", {3, 4}}}, {"top", 3}}},
      {"/v1/features/attribute", {{"prompt", "a b c"}, {"token", "x"}, {"against", 7}, {"top", 2}}},
      {"/tokenize", {{"messages", {{{"role", "user"}, {"content", "hello"}}}}, {"return_token_strs", true}}},
  };
  steer::Rng rng(7);
  for (int i = 0; i < 800; ++i) {
    auto [path, body] = seeds[rng.below(std::size(seeds))];
    for (std::uint64_t n = 0; n <= rng.below(3); ++n) mutate(body, rng);
    std::string text = body.dump();
    if (rng.below(5) == 0 && !text.empty()) text[rng.below(text.size())] = static_cast<char>(rng.below(256));
    const auto answer = call(port(), "POST", path, text);
    EXPECT_TRUE(answer.status == 200 || (answer.status >= 400 && answer.status < 500)) << path << text << answer.body;
    if (answer.status != 200) {
      EXPECT_FALSE(answer.json()["error"]["message"].get<std::string>().empty());
    }
  }
  EXPECT_TRUE(idle());
}

TEST(ServeAccess, OnlyWithTheKey) {
  auto options = demo_options();
  options.key = "secret-key";
  const steer::Server server(demo_model(), options);
  const int port = server.port();
  EXPECT_EQ(call(port, "GET", "/health").status, 200);
  EXPECT_EQ(call(port, "GET", "/v1/models").status, 401);
  EXPECT_EQ(call(port, "POST", "/v1/completions", "{").status, 401);
  for (const char* key : {"secret-kez", "secret-ke", "secret-key2", "", "secret-keysecret-key"})
    EXPECT_EQ(call(port, "GET", "/v1/models", {}, std::string("Authorization: Bearer ") + key + "\r\n").status, 401)
        << key;
  EXPECT_EQ(call(port, "GET", "/v1/models", {}, "Authorization: Bearer secret-key\r\n").status, 200);
}

TEST(ServeAccess, OtherAddressesNeedAKeyAndOtherSitesPagesPermission) {
  auto options = demo_options();
  options.host = "0.0.0.0";
  EXPECT_THROW(steer::Server(demo_model(), options), steer::Error);
  options.host = "127.0.0.1";
  options.cors = {"https://friend.example"};
  std::string log;
  std::mutex mutex;
  options.log = [&](std::string_view line) {
    const std::lock_guard lock(mutex);
    log += std::string(line) + "\n";
  };
  {
    const steer::Server server(demo_model(), options);
    const int port = server.port();
    EXPECT_EQ(call(port, "GET", "/v1/models", {}, "Origin: https://foe.example\r\n").status, 403);
    const auto friendly = call(port, "GET", "/v1/models", {}, "Origin: https://friend.example\r\n");
    EXPECT_EQ(friendly.status, 200);
    EXPECT_NE(friendly.head.find("Access-Control-Allow-Origin: https://friend.example"), std::string::npos);
    EXPECT_EQ(call(port, "OPTIONS", "/v1/models", {}, "Origin: https://friend.example\r\n").status, 204);
    // A name of somebody else's that leads to this machine.
    const Wire wire(port);
    wire.send("GET /v1/models HTTP/1.1\r\nHost: foe.example\r\n\r\n");
    EXPECT_EQ(wire.answer().status, 403);
    call(port, "POST", "/v1/completions", R"({"prompt": "a secret text", "max_tokens": 2})",
         "Authorization: Bearer a-key-by-mistake\r\n");
  }
  EXPECT_NE(log.find("\"path\":\"/v1/completions\",\"status\":200"), std::string::npos) << log;
  EXPECT_NE(log.find("\"completion_tokens\":"), std::string::npos) << log;
  EXPECT_EQ(log.find("secret text"), std::string::npos);
  EXPECT_EQ(log.find("a-key-by-mistake"), std::string::npos);
}

TEST(ServeStop, AnswersUnderWayEndOrAreTold) {
  auto few = demo_options();
  few.engine.max_rows = 2;  // so that the long answer takes as long as it must, on any machine
  auto server = std::make_unique<steer::Server>(demo_model(), few);
  const int port = server->port();
  HttpAnswer brief, endless;
  std::thread first(
      [&] { brief = call(port, "POST", "/v1/completions", R"({"prompt": "a", "max_tokens": 8, "priority": -1})"); });
  std::thread second([&] {
    endless =
        call(port, "POST", "/v1/completions",
             R"({"prompt": "a", "max_tokens": 400, "n": 128, "temperature": 1, "stream": true, "ignore_eos": true})");
  });
  EXPECT_TRUE(comes_true([&] { return rows(port) >= 128; }));
  first.join();
  EXPECT_EQ(brief.status, 200);
  EXPECT_EQ(server->stop(0.05), 1);
  second.join();
  EXPECT_NE(endless.body.find("the server has stopped"), std::string::npos) << endless.body.substr(0, 300);
  EXPECT_THROW(Wire{port}, std::runtime_error);

  server = std::make_unique<steer::Server>(demo_model(), demo_options());
  std::thread third([&, port = server->port()] {
    brief = call(port, "POST", "/v1/completions", R"({"prompt": "a", "max_tokens": 400, "ignore_eos": true})");
  });
  EXPECT_TRUE(comes_true([&, port = server->port()] { return rows(port) == 1; }));
  EXPECT_EQ(server->stop(60), 0);  // all had time to end
  third.join();
  EXPECT_EQ(brief.status, 200);
  EXPECT_EQ(brief.json()["usage"]["completion_tokens"], 400);
}

TEST(ServeLimits, AThousandConnectionsAreServed) {
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  const int count = static_cast<int>(std::min<rlim_t>(1000, (files.rlim_cur - 100) / 2));
  auto options = demo_options();
  options.head_seconds = 60;
  const steer::Server server(demo_model(), options);
  std::vector<Wire> open;
  for (int i = 0; i < count; ++i) open.emplace_back(server.port());
  for (const auto& wire : open) ASSERT_TRUE(wire.send(request_text("GET", "/health")));
  int served = 0;
  for (const auto& wire : open) served += wire.answer().status == 200;
  EXPECT_EQ(served, count);
}

/// On a busy machine the server may look late. Here it always does: the time is over before it looks first.
TEST(ServeLimits, WhatHasArrivedCountsHoweverLateItIsSeen) {
  auto options = demo_options();
  options.head_seconds = 1e-9;
  const steer::Server server(demo_model(), options);
  EXPECT_TRUE(comes_true([&] { return call(server.port(), "GET", "/health").status == 200; }));
}

TEST(ServeLimits, AFullQueueIsToldToWait) {
  auto options = demo_options();
  options.max_waiting = 8;
  options.max_tokens = 300;
  const steer::Server server(demo_model(), options);
  const Wire busy(server.port());
  busy.send(request_text(
      "POST", "/v1/completions",
      R"({"prompt": "a", "max_tokens": 300, "n": 8, "temperature": 1, "stream": true, "ignore_eos": true})"));
  EXPECT_FALSE(busy.receive().empty());
  EXPECT_EQ(post(server.port(), "/v1/completions", {{"prompt", "a"}}).status, 429);
  EXPECT_EQ(post(server.port(), "/v1/completions", {{"prompt", "a"}, {"max_tokens", 301}}).status, 400);
}

TEST(ServeLimits, AnAnswerThatTakesTooLongIsEnded) {
  auto options = demo_options();
  options.max_seconds = 0.05;
  const steer::Server server(demo_model(), options);
  const auto answer = post(server.port(), "/v1/completions",
                           {{"prompt", "a"}, {"max_tokens", 400}, {"n", 64}, {"temperature", 1}, {"ignore_eos", true}});
  EXPECT_EQ(answer.status, 504) << answer.body.substr(0, 200);
  EXPECT_TRUE(comes_true([&] { return rows(server.port()) == 0; }));
}

}  // namespace
