// OpenAI's shapes over HTTP against the same work in process.

#include <gtest/gtest.h>

#include "demo_server.hpp"

namespace {

using namespace steer_test;
using nlohmann::json;
using steer::Steering;

const std::string kQuestion = "In the land of Pelia, what is the feast?";

class ServeOpenAi : public testing::Test {
 protected:
  steer::Server server_{demo_model(), demo_options()};
  int port() const { return server_.port(); }
  std::vector<std::int64_t> ids_ = demo_model().tokenizer().encode(kQuestion);

  steer::GenerateResult in_process(const steer::GenerateOptions& options) const {
    const steer::GenerateRequest request{.ids = ids_, .seed = options.seed};
    return steer::generate(demo_model(), std::span(&request, 1), options).front();
  }
};

TEST_F(ServeOpenAi, ACompletionIsWhatGenerateGives) {
  const auto expected = in_process({.max_tokens = 24, .seed = 7});
  const json body{{"model", "demo"}, {"prompt", kQuestion}, {"max_tokens", 24}, {"temperature", 0}, {"logprobs", 1}};
  const auto answer = post(port(), "/v1/completions", body);
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json choice = answer.json()["choices"][0];
  EXPECT_EQ(choice["text"], expected.text);
  EXPECT_EQ(choice["logprobs"]["token_logprobs"].get<std::vector<double>>(), expected.log_probabilities);
  EXPECT_EQ(answer.json()["usage"]["prompt_tokens"], ids_.size());
  EXPECT_EQ(answer.json()["usage"]["completion_tokens"], expected.ids.size());

  json ids = body;
  ids["prompt"] = ids_;
  EXPECT_EQ(post(port(), "/v1/completions", ids).json()["choices"][0]["text"], expected.text);
}

TEST_F(ServeOpenAi, SampledChoicesAreTheSeedsOwn) {
  const json body{{"prompt", kQuestion}, {"max_tokens", 16}, {"temperature", 1.3}, {"seed", 5}, {"n", 3}};
  const json first = post(port(), "/v1/completions", body).json()["choices"];
  ASSERT_EQ(first.size(), 3);
  EXPECT_EQ(post(port(), "/v1/completions", body).json()["choices"], first);
  const auto expected = in_process({.sampling = {.temperature = 1.3}, .max_tokens = 16, .seed = 5});
  EXPECT_EQ(first[0]["text"], expected.text);
  EXPECT_NE(first[1]["text"], first[0]["text"]);
}

TEST_F(ServeOpenAi, SteeredNumbersEqualThoseInProcess) {
  Steering steering;
  steering.nudge(demo_sae(), 330, 6);
  const auto expected = in_process({.max_tokens = 24, .steering = steering});
  const json body{{"prompt", kQuestion},
                  {"max_tokens", 24},
                  {"temperature", 0},
                  {"logprobs", 0},
                  {"steering", {{"feature", 330}, {"strength", 6}}}};
  const auto answer = post(port(), "/v1/completions", body);
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json choice = answer.json()["choices"][0];
  EXPECT_EQ(choice["text"], expected.text);
  EXPECT_EQ(choice["logprobs"]["token_logprobs"].get<std::vector<double>>(), expected.log_probabilities);
  const json edit = answer.json()["usage"]["steering"]["edits"][0];
  EXPECT_EQ(edit["seen"], expected.audit.edits[0].seen);
  EXPECT_EQ(edit["edited"], expected.audit.edits[0].edited);
  EXPECT_NEAR(edit["mean_change"].get<double>(), expected.audit.edits[0].mean_change, 1e-12);
  EXPECT_EQ(answer.json()["usage"]["steering"]["fired"], true);

  json whole = body;
  whole["steering"] = steering.to_json();
  EXPECT_EQ(post(port(), "/v1/completions", whole).json()["choices"][0]["text"], expected.text);
}

TEST_F(ServeOpenAi, EchoedLogProbabilitiesAreThoseOfScore) {
  for (const bool steered : {false, true}) {
    steer::ScoreRequest request{.ids = ids_};
    json body{{"prompt", ids_}, {"max_tokens", 1}, {"temperature", 0}, {"logprobs", 2}, {"echo", true}};
    if (steered) {
      request.steering = Steering().nudge(demo_sae(), 330, 6);
      body["steering"] = {{"feature", 330}, {"strength", 6}};
    }
    const auto expected = steer::score_texts(demo_model(), std::span(&request, 1)).front();
    const json lists = post(port(), "/v1/completions", body).json()["choices"][0]["logprobs"];
    ASSERT_EQ(lists["token_logprobs"].size(), ids_.size() + 1);
    EXPECT_TRUE(lists["token_logprobs"][0].is_null());
    for (std::size_t i = 1; i < ids_.size(); ++i)
      EXPECT_NEAR(lists["token_logprobs"][i].get<double>(), expected.token_log_probabilities[i - 1], 1e-6);
    EXPECT_GE(lists["top_logprobs"][1].size(), 2);
  }
}

TEST_F(ServeOpenAi, StreamedPiecesMakeTheWhole) {
  json body{{"messages", {{{"role", "user"}, {"content", json::array({{{"type", "text"}, {"text", kQuestion}}})}}}},
            {"max_completion_tokens", 32},
            {"temperature", 0.9},
            {"seed", 11}};
  const json whole = post(port(), "/v1/chat/completions", body).json();
  ASSERT_TRUE(whole.contains("choices")) << whole;
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  const auto streamed = post(port(), "/v1/chat/completions", body);
  const auto events = streamed.events();
  ASSERT_GE(events.size(), 4);
  EXPECT_EQ(events.back(), "[DONE]");
  std::string text;
  for (std::size_t i = 0; i + 2 < events.size(); ++i) {
    const json event = json::parse(events[i]);
    EXPECT_EQ(event["object"], "chat.completion.chunk");
    text += event["choices"][0]["delta"].value("content", "");
  }
  EXPECT_EQ(whole["choices"][0]["message"]["content"], text);
  EXPECT_EQ(json::parse(events[events.size() - 2])["usage"], whole["usage"]);
}

TEST_F(ServeOpenAi, RowsOfOneBatchAreSteeredEachInItsOwnWay) {
  std::vector<std::string> expected(6);
  std::vector<HttpAnswer> answers(6);
  std::vector<std::thread> clients;
  for (int i = 0; i < 6; ++i) {
    Steering steering;
    if (i > 0) steering.nudge(demo_sae(), 100 * i + 30, 4);
    expected[static_cast<std::size_t>(i)] = in_process({.max_tokens = 20, .steering = steering}).text;
    clients.emplace_back([&, i] {
      json body{{"prompt", kQuestion}, {"max_tokens", 20}, {"temperature", 0}};
      if (i > 0) body["steering"] = {{"feature", 100 * i + 30}, {"strength", 4}};
      answers[static_cast<std::size_t>(i)] = post(port(), "/v1/completions", body);
    });
  }
  for (auto& client : clients) client.join();
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(answers[i].json()["choices"][0]["text"], expected[i]);
}

TEST_F(ServeOpenAi, SteeringThatChangesNothingIsAnErrorWhereItMustFire) {
  json body{
      {"prompt", kQuestion},
      {"max_tokens", 4},
      {"require_fired", true},
      {"steering", {{"feature", 330}, {"strength", 1}, {"scope", {{"where", "span"}, {"begin", 90}, {"end", 95}}}}}};
  const auto answer = post(port(), "/v1/completions", body);
  EXPECT_EQ(answer.status, 422) << answer.body;
  EXPECT_EQ(answer.json()["error"]["code"], "steering_not_fired");
  body["require_fired"] = false;
  EXPECT_EQ(post(port(), "/v1/completions", body).json()["usage"]["steering"]["fired"], false);
}

TEST_F(ServeOpenAi, TokensAndTextAgree) {
  const auto tokens = post(port(), "/tokenize", {{"prompt", kQuestion}}).json();
  EXPECT_EQ(tokens["tokens"].get<std::vector<std::int64_t>>(), ids_);
  EXPECT_EQ(tokens["count"], ids_.size());
  EXPECT_EQ(post(port(), "/detokenize", {{"tokens", ids_}}).json()["prompt"], demo_model().tokenizer().decode(ids_));
  EXPECT_EQ(call(port(), "GET", "/tokenizer_info").status, 200);
  EXPECT_EQ(call(port(), "GET", "/v1/models").json()["data"][0]["id"], "demo");
  EXPECT_EQ(call(port(), "GET", "/v1/models/demo").status, 200);
  EXPECT_EQ(call(port(), "GET", "/v1/models/other").status, 404);
  const auto metrics = call(port(), "GET", "/metrics").body;
  EXPECT_NE(metrics.find("steer_requests_total{route=\"/tokenize\",status=\"200\"} 1"), std::string::npos) << metrics;
}

struct Refusal {
  json change;
  int status;
  std::string param;
};

TEST_F(ServeOpenAi, WhatCannotBeDoneIsRefusedByName) {
  const json good{{"prompt", "a"}, {"max_tokens", 1}};
  const json chat{{"messages", {{{"role", "user"}, {"content", "a"}}}}, {"max_tokens", 1}};
  ASSERT_EQ(post(port(), "/v1/completions", good).status, 200);
  ASSERT_EQ(post(port(), "/v1/chat/completions", chat).status, 200);
  const std::vector<Refusal> completions{
      {{{"model", "gpt-4o"}}, 404, "model"},
      {{{"prompt", 5}}, 400, "prompt"},
      {{{"prompt", json::array()}}, 400, "prompt"},
      {{{"prompt", {1, -2}}}, 400, "prompt"},
      {{{"prompt", {1 << 30}}}, 400, "prompt"},
      {{{"prompt", {{1}, "a", 2}}}, 400, "prompt"},
      {{{"max_tokens", "3"}}, 400, "max_tokens"},
      {{{"max_tokens", 2.5}}, 400, "max_tokens"},
      {{{"max_tokens", 0}}, 400, "max_tokens"},
      {{{"max_tokens", -1}}, 400, "max_tokens"},
      {{{"temperature", -0.1}}, 400, "temperature"},
      {{{"temperature", "hot"}}, 400, "temperature"},
      {{{"top_p", 1.5}}, 400, "top_p"},
      {{{"n", 0}}, 400, "n"},
      {{{"n", 1000000}}, 400, "n"},
      {{{"best_of", 4}}, 400, "best_of"},
      {{{"suffix", "x"}}, 400, "suffix"},
      {{{"stop", 3}}, 400, "stop"},
      {{{"stop", {"a", ""}}}, 400, "stop"},
      {{{"seed", "x"}}, 400, "seed"},
      {{{"logprobs", 21}}, 400, "logprobs"},
      {{{"stream", "yes"}}, 400, "stream"},
      {{{"stream_options", {{"include_usage", true}}}}, 400, "stream_options"},
      {{{"temprature", 1}}, 400, "temprature"},
      {{{"steering", 5}}, 400, "steering"},
      {{{"steering", "nobody"}}, 404, "steering"},
      {{{"steering", "../../etc/passwd"}}, 404, "steering"},
      {{{"steering", {{"feature", 1000000}, {"strength", 1}}}}, 400, "steering"},
      {{{"steering", {{"feature", -1}, {"strength", 1}}}}, 400, "steering"},
      {{{"steering", {{"feature", "330"}, {"strength", 1}}}}, 400, "steering"},
      {{{"steering", {{"feature", 330}, {"strength", "a"}}}}, 400, "steering"},
      {{{"steering", {{"feature", 330}, {"strength", 1}, {"stength", 2}}}}, 400, "steering"},
      {{{"steering", {{"feature", 330}, {"sae", "none"}, {"strength", 1}}}}, 404, "steering.sae"},
      {{{"steering", {{"vector", "!!"}, {"point", "blocks.1.hook_resid_post"}}}}, 400, "steering.vector"},
      {{{"steering", {{"vector", "AACAPw=="}, {"point", "blocks.1.hook_resid_post"}}}}, 400, ""},
      {{{"steering", {{"edits", json::array()}, {"vectors", {{"path", "/etc/passwd"}}}}}}, 400, "steering.vectors"},
      {{{"steering", {{"edits", json::array()}, {"saes", {{"x", {{"path", "/etc/passwd"}}}}}}}},
       404,
       "steering.saes.x"},
  };
  for (const auto& refusal : completions) {
    json body = good;
    body.update(refusal.change);
    const auto answer = post(port(), "/v1/completions", body);
    EXPECT_EQ(answer.status, refusal.status) << refusal.change << answer.body;
    const json error = answer.json()["error"];
    EXPECT_EQ(error["type"], "invalid_request_error");
    EXPECT_EQ(error["message"].get<std::string>().find("\"\""), std::string::npos) << answer.body;
    if (!refusal.param.empty()) {
      EXPECT_EQ(error["param"], refusal.param) << answer.body;
    }
  }
  const std::vector<Refusal> chats{
      {{{"messages", json::array()}}, 400, "messages"},
      {{{"messages", {{{"role", "tool"}, {"content", "x"}}}}}, 400, "messages[0].role"},
      {{{"messages", {{{"role", "user"}, {"content", 3}}}}}, 400, "messages[0].content"},
      {{{"messages", {{{"role", "user"}, {"content", {{{"type", "image_url"}}}}}}}}, 400, "messages[0].content.type"},
      {{{"response_format", {{"type", "json_object"}}}}, 400, "response_format"},
      {{{"tools", {{{"type", "function"}}}}}, 400, "tools"},
      {{{"top_logprobs", 3}}, 400, "top_logprobs"},
      {{{"max_completion_tokens", 0}}, 400, "max_completion_tokens"},
  };
  for (const auto& refusal : chats) {
    json body = chat;
    body.update(refusal.change);
    const auto answer = post(port(), "/v1/chat/completions", body);
    EXPECT_EQ(answer.status, refusal.status) << refusal.change << answer.body;
    EXPECT_EQ(answer.json()["error"]["param"], refusal.param) << answer.body;
  }
  EXPECT_EQ(rows(port()), 0);
}

}  // namespace
