#include <gtest/gtest.h>

#include <zlib.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include <steer/eval/results.hpp>
#include <steer/eval/text_metrics.hpp>
#include <steer/stats/statistics.hpp>

#include "eval/judge/http_post.hpp"
#include "judge_server.hpp"
#include "paper_data.hpp"

namespace steer {
namespace {

using Server = test::JudgeServer;
constexpr const char* kKey = test::kJudgeKey;
const auto& reply = test::chat_reply;
const auto& quick = test::quick_judge;

const Behaviour& funny() {
  static const Behaviour behaviour = select_behaviours(study_behaviours(), {"funny"}).at(0);
  return behaviour;
}

TEST(Judges, RepliesAreReadStrictly) {
  const JudgeRequest request{"2+2?", "4, said the duck", &funny()};
  EXPECT_EQ(parse_judgement(Rubric::behaviour, request, R"({"scores": [2, 1, 0.5]})"), 3.5);
  EXPECT_EQ(parse_judgement(Rubric::behaviour, request, R"({"scores": [0, 0, 0]})"), 1.0) << "the scale starts at 1";
  EXPECT_EQ(parse_judgement(Rubric::behaviour, request, "Sure!\n```json\n{\"scores\": [2,2,1]}\n```"), 5.0);
  for (const char* bad :
       {"5", "{}", R"({"scores": [2, 1]})", R"({"scores": [3, 1, 1]})", R"({"scores": ["two", 1, 1]})", "{{{", ""})
    EXPECT_EQ(parse_judgement(Rubric::behaviour, request, bad), std::nullopt) << bad;
  EXPECT_EQ(parse_judgement(Rubric::coherence, request, R"({"scores": [4]})"), 4.0);
  EXPECT_EQ(parse_judgement(Rubric::coherence, request, R"({"scores": [6]})"), std::nullopt);
  const std::string prompt = judge_prompt(Rubric::behaviour, request);
  for (const auto& criterion : funny().criteria) EXPECT_NE(prompt.find(criterion.description), std::string::npos);
  EXPECT_EQ(judge_prompt(Rubric::coherence, request).find("funny"), std::string::npos) << "coherence is judged blind";
}

TEST(Judges, HttpRetriesWhatMayPass) {
  Server server([](int n, const httplib::Request& request, httplib::Response& response) {
    EXPECT_EQ(request.get_header_value("Authorization"), std::string("Bearer ") + kKey);
    if (n == 0)
      response.status = 500;
    else if (n == 1) {
      response.status = 429;
      response.set_header("Retry-After", "0.005");
    } else if (n == 2)
      response.set_content("<html>proxy</html>", "text/html");
    else if (n == 3)
      response.set_content(reply("I would say four."), "application/json");
    else
      response.set_content(reply(R"({"scores": [4]})"), "application/json");
  });
  HttpJudge judge(quick(server.url()));
  const JudgeRequest request{"2+2?", "4", nullptr};
  const auto judgements = judge.judge(Rubric::coherence, std::span(&request, 1));
  EXPECT_EQ(judgements.at(0).score, 4.0) << judgements[0].failure;
  const auto usage = judge.usage();
  EXPECT_EQ(usage.requests, 5);
  EXPECT_EQ(usage.retries, 4);
  EXPECT_EQ(usage.input_tokens, 200);  // two replies had usage
  EXPECT_NEAR(usage.cost, 200e-6 + 200e-6, 1e-12);
  EXPECT_EQ(judge.identity().find(kKey), std::string::npos);
}

TEST(Judges, HttpGarbageBecomesMissingDataOfThatRow) {
  Server server([](int, const httplib::Request& request, httplib::Response& response) {
    const bool good = request.body.find("fine") != std::string::npos;
    response.set_content(good ? reply(R"({"scores": [5]})") : reply(std::string("no idea, ") + kKey),
                         "application/json");
  });
  HttpJudgeOptions options = quick(server.url());
  options.parallel = 3;
  HttpJudge judge(options);
  std::vector<JudgeRequest> requests;
  for (int i = 0; i < 9; ++i) requests.push_back({"?", i % 3 == 0 ? "broken" : "fine", nullptr});
  const auto judgements = judge.judge(Rubric::coherence, requests);
  for (int i = 0; i < 9; ++i) {
    const auto& j = judgements[static_cast<std::size_t>(i)];
    EXPECT_EQ(j.score.has_value(), i % 3 != 0);
    if (!j.score) {
      EXPECT_NE(j.failure.find("no score"), std::string::npos);
      EXPECT_EQ(j.failure.find(kKey), std::string::npos) << "an echoed key must not be kept";
    }
  }
  EXPECT_EQ(judge.usage().failed, 3);
}

TEST(Judges, HttpStopsWhereGoingOnIsPointless) {
  Server refuses([](int, const httplib::Request&, httplib::Response& response) {
    response.status = 401;
    response.set_content(std::string("bad key ") + kKey, "text/plain");
  });
  HttpJudge judge(quick(refuses.url()));
  const JudgeRequest request{"?", "!", nullptr};
  try {
    judge.judge(Rubric::coherence, std::span(&request, 1));
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::config);
    EXPECT_EQ(std::string(error.what()).find(kKey), std::string::npos);
  }
  EXPECT_EQ(refuses.count(), 1) << "a refused key is not tried again";

  HttpJudgeOptions down = quick("http://127.0.0.1:1/v1");
  HttpJudge nobody(down);
  EXPECT_STEER_ERROR(nobody.judge(Rubric::coherence, std::span(&request, 1)), ErrorCode::io,
                     "start again when it is up");
}

TEST(Judges, HttpLimits) {
  Server server([](int, const httplib::Request&, httplib::Response& response) {
    response.set_content(reply(R"({"scores": [3]})"), "application/json");
  });
  HttpJudgeOptions options = quick(server.url());
  options.max_cost = 0.0003;  // each reply costs 0.0002
  HttpJudge judge(options);
  std::vector<JudgeRequest> requests(5, {"?", "!", nullptr});
  EXPECT_STEER_ERROR(judge.judge(Rubric::coherence, requests), ErrorCode::io, "max_cost");
  EXPECT_EQ(server.count(), 2);

  unsetenv("STEER_TEST_KEY");
  HttpJudgeOptions keyless = options;
  EXPECT_STEER_ERROR(HttpJudge{keyless}, ErrorCode::config, "STEER_TEST_KEY");
  keyless.key_variable = "";
  keyless.url = "ftp://x";
  EXPECT_STEER_ERROR(HttpJudge{keyless}, ErrorCode::config, "http");
}

TEST(Judges, HttpTimesOut) {
  Server server([](int n, const httplib::Request&, httplib::Response& response) {
    if (n == 0) std::this_thread::sleep_for(std::chrono::milliseconds(600));
    response.set_content(reply(R"({"scores": [3]})"), "application/json");
  });
  HttpJudgeOptions options = quick(server.url());
  options.timeout_s = 0.2;
  HttpJudge judge(options);
  const JudgeRequest request{"?", "!", nullptr};
  EXPECT_EQ(judge.judge(Rubric::coherence, std::span(&request, 1)).at(0).score, 3.0);
  EXPECT_EQ(judge.usage().retries, 1);
}

TEST(Judges, RepliesThatAreOftenMisread) {
  const JudgeRequest request{"2+2?", "4, said the duck", &funny()};
  const auto coherence = [&](std::string_view text) { return parse_judgement(Rubric::coherence, request, text); };
  EXPECT_EQ(coherence(R"({"thoughts": "{}", "scores": [3]})"), 3.0) << "a brace in a text";
  EXPECT_EQ(coherence(R"(<think>{"scores": [5]} it is)"), std::nullopt) << "a thought that never ends";
  EXPECT_EQ(coherence(R"({"scores": [2]} No: {"scores": [4)"), std::nullopt) << "the final one was cut off";
  EXPECT_EQ(coherence(R"({"a": )" + std::string(30000, '[')), std::nullopt);
  std::string deep;
  for (int i = 0; i < 20000; ++i) deep += "{\"a\":";
  EXPECT_EQ(coherence(deep + "{\"scores\": [3]}" + std::string(20000, '}')), std::nullopt) << "too deep to be meant";
  for (const char* three :
       {R"({scores: [3]})", R"({"scores": [3] /* fair */})", "{\"scores\": [3], // fair\n}",
        "{'scores': [3], 'ok': True}", R"("{\"scores\": [3]}")", R"([THINK]{"scores": [5]}[/THINK]{"scores": [3]})",
        R"({"scores": [" 3 "]})", R"({"scores": ["3 / 5"]})", R"({"note": "It's {fine}, +1", "scores": [3,],})"})
    EXPECT_EQ(coherence(three).value_or(3), 3.0) << three;
  EXPECT_EQ(coherence(R"({scores: [3]})"), 3.0);
  EXPECT_EQ(coherence(R"(<|channel|>analysis<|message|>{"scores": [5]})"), std::nullopt) << "a thought to its end";
  EXPECT_EQ(coherence(R"({"scores": [4], "url": "http://x//y", "say": "True, None"})"), 4.0)
      << "texts stay as they are";
  EXPECT_EQ(parse_judgement(Rubric::behaviour, request, R"({"scores": [{"points": 1}, {"points": 1}, {"points": 0}]})"),
            2.0);
}

/// What a single coherence request to such a server gives.
Judgement ask(const HttpJudgeOptions& options) {
  HttpJudge judge(options);
  const JudgeRequest request{"?", "!", nullptr};
  return judge.judge(Rubric::coherence, std::span(&request, 1)).at(0);
}

TEST(Judges, HttpTimeIsLimitedPerRequestNotPerRead) {
  // A byte every 30 ms, for ever: each read succeeds, the request never would.
  Server server([](int, const httplib::Request&, httplib::Response& response) {
    response.set_chunked_content_provider("application/json", [](std::size_t, httplib::DataSink& sink) {
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
      return sink.write(" ", 1);
    });
  });
  HttpJudgeOptions options = quick(server.url());
  options.timeout_s = 0.3;
  options.max_attempts = 2;
  EXPECT_STEER_ERROR(ask(options), ErrorCode::io, "no whole reply in 0.3 s");
  EXPECT_EQ(server.count(), 2);
}

TEST(Judges, HttpBodiesAreLimited) {
  std::string packed(1 << 20, '\0');
  const std::string zeros(64 << 20, ' ');  // 64 MiB in 64 KiB
  z_stream stream{};
  ASSERT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(zeros.data()));
  stream.avail_in = static_cast<uInt>(zeros.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  ASSERT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  Server server([&](int n, const httplib::Request&, httplib::Response& response) {
    if (n == 0) {
      response.set_header("Content-Encoding", "gzip");
      response.set_content(packed, "application/json");
    } else {  // no end
      response.set_chunked_content_provider("application/json", [](std::size_t, httplib::DataSink& sink) {
        static const std::string block(1 << 16, ' ');
        return sink.write(block.data(), block.size());
      });
    }
  });
  HttpJudgeOptions options = quick(server.url());
  options.max_attempts = 1;
  for (int n = 0; n < 2; ++n) EXPECT_STEER_ERROR(ask(options), ErrorCode::io, "more than 8388608 bytes");
  options.max_reply_bytes = 0;
  EXPECT_STEER_ERROR(HttpJudge{options}, ErrorCode::argument, "one byte");
}

TEST(Judges, HttpKeysStayWhereTheyBelong) {
  Server server([](int, const httplib::Request& request, httplib::Response& response) {
    EXPECT_FALSE(request.has_header("X-Injected"));
    response.set_content(reply("key ey k [key] key"), "application/json");
  });
  for (const char* bad : {"sk-1\r\nX-Injected: 1", "sk-1\n", "sk 1", "sk-\xc3\xa9"}) {
    const HttpJudgeOptions options = quick(server.url());
    setenv("STEER_TEST_KEY", bad, 1);
    EXPECT_STEER_ERROR(HttpJudge{options}, ErrorCode::config, "visible ASCII");
  }
  for (const char* part : {"key", "k", "[", "[key]"}) {  // redacting what the redaction holds ends
    HttpJudgeOptions options = quick(server.url());
    options.max_attempts = 1;
    setenv("STEER_TEST_KEY", part, 1);
    const auto judgement = ask(options);
    EXPECT_FALSE(judgement.score.has_value());
    EXPECT_FALSE(judgement.unanswered) << "the model replied; that it gave no score is a result";
  }
  HttpJudgeOptions azure = quick(server.url());
  azure.key_header = "api-key";
  Server other([](int, const httplib::Request& request, httplib::Response& response) {
    EXPECT_EQ(request.get_header_value("api-key"), kKey);
    EXPECT_FALSE(request.has_header("Authorization"));
    response.set_content(reply(R"({"scores": [4]})"), "application/json");
  });
  azure.url = other.url();
  EXPECT_EQ(ask(azure).score, 4.0);
}

TEST(Judges, UrlsHoldNoSecrets) {
  using eval::detail::parse_endpoint;
  for (const char* bad : {"http://user:hunter2@host/v1", "https://hunter2@host", "https://host/v1?key=hunter2",
                          "https://host/v1?a=1&access_token=hunter2", "ftp://u:hunter2@x", "hunter2@x"})
    try {
      parse_endpoint(bad);
      ADD_FAILURE() << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::config);
      EXPECT_EQ(std::string(error.what()).find("hunter2"), std::string::npos) << error.what();
    }
  EXPECT_STEER_ERROR(parse_endpoint("http://"), ErrorCode::config, "URL");
  EXPECT_STEER_ERROR(parse_endpoint("http:///v1"), ErrorCode::config, "host");
  EXPECT_STEER_ERROR(parse_endpoint("http://a b/v1"), ErrorCode::config, "spaces");
  const auto path = [](const char* url) { return parse_endpoint(url).path; };
  EXPECT_EQ(path("http://h"), "/chat/completions");
  EXPECT_EQ(path("http://h/v1/"), "/v1/chat/completions");
  EXPECT_EQ(path("http://h/v1/chat/completions"), "/v1/chat/completions");
  EXPECT_EQ(path("http://h/d/j?api-version=1"), "/d/j/chat/completions?api-version=1");
  EXPECT_EQ(path("http://h?api-version=1"), "/chat/completions?api-version=1");
  EXPECT_EQ(parse_endpoint("HTTPS://h:8/v1#x").host, "https://h:8");
}

TEST(Judges, RetryAfterInSecondsAndDates) {
  using eval::detail::retry_after;
  constexpr std::time_t now = 784111747;  // 1994-11-06 08:49:07 UTC
  EXPECT_EQ(retry_after("2.5", now), 2.5);
  EXPECT_EQ(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), 30);
  EXPECT_EQ(retry_after("Sunday, 06-Nov-94 08:49:37 GMT", now), 30);
  EXPECT_EQ(retry_after("Sun Nov  6 08:49:37 1994", now), 30);
  EXPECT_EQ(retry_after("Mon, 06 Jan 2020 10:00:00 GMT", 1700000000), 0) << "in the past";
  for (const char* nothing : {"", "-5", "nan", "inf", "soon", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06"})
    EXPECT_EQ(retry_after(nothing, now), 0) << nothing;
}

TEST(Judges, HttpAdaptsToWhatAServerTakes) {
  Server server([](int, const httplib::Request& request, httplib::Response& response) {
    const auto body = nlohmann::json::parse(request.body);
    const char* wrong = body.contains("temperature")             ? "temperature is not supported"
                        : body.contains("max_completion_tokens") ? "unknown field max_completion_tokens"
                                                                 : nullptr;
    if (wrong) {
      response.status = 400;
      response.set_content(wrong, "text/plain");
      return;
    }
    EXPECT_EQ(body.at("max_tokens"), 300);
    response.set_content(reply(R"({"scores": [4]})"), "application/json");
  });
  HttpJudgeOptions options = quick(server.url());
  options.max_tokens = 300;
  options.max_attempts = 1;
  HttpJudge judge(options);
  const std::vector<JudgeRequest> requests(2, {"?", "!", nullptr});
  EXPECT_EQ(judge.caveat(), "");
  for (const auto& judgement : judge.judge(Rubric::coherence, requests)) EXPECT_EQ(judgement.score, 4.0);
  EXPECT_EQ(server.count(), 4) << "what was refused once is not sent again";
  EXPECT_NE(judge.caveat().find("no temperature"), std::string::npos);
  options.temperature = std::nullopt;
  EXPECT_NE(HttpJudge(options).identity().find("temperature of the server max tokens 300"), std::string::npos);
}

TEST(Judges, HttpUsageIsCountedOnlyWhereItCanBe) {
  Server server([](int, const httplib::Request&, httplib::Response& response) {
    response.set_content(R"({"choices": [{"message": {"content": "{\"scores\": [4]}"}}],
                             "usage": {"prompt_tokens": 18446744073709551615, "completion_tokens": -3}})",
                         "application/json");
  });
  HttpJudge judge(quick(server.url()));
  const JudgeRequest request{"?", "!", nullptr};
  EXPECT_EQ(judge.judge(Rubric::coherence, std::span(&request, 1)).at(0).score, 4.0);
  EXPECT_EQ(judge.usage().input_tokens, 0);
  EXPECT_EQ(judge.usage().output_tokens, 0);
}

TEST(Judges, AServerThatIsBusyHasNotJudged) {
  Server server([](int, const httplib::Request&, httplib::Response& response) {
    response.status = 503;
    response.set_content("busy", "text/plain");
  });
  HttpJudgeOptions options = quick(server.url());
  options.max_attempts = 2;
  const auto judgement = ask(options);
  EXPECT_FALSE(judgement.score.has_value());
  EXPECT_TRUE(judgement.unanswered);
  EXPECT_NE(judgement.failure.find("503"), std::string::npos);
}

TEST(Results, RoundTripAndImportedScores) {
  test::TempDir dir;
  std::vector<ResultRow> results{
      {.arm = "control", .behaviour = "funny", .question = "q1", .gold = "A", .response = "x,\"y\"\nz", .answer = "A"},
      {.arm = "steer", .behaviour = "funny", .question = "q1", .gold = "A", .response = "\xff", .answer = ""}};
  results[0].scores["coherence"] = 4.5;
  results[1].failed["coherence"] = "no score";
  save_results(results, dir / "r.jsonl");
  auto loaded = load_results(dir / "r.jsonl");
  EXPECT_EQ(loaded[0], results[0]);
  EXPECT_EQ(loaded[1].response, "\xef\xbf\xbd") << "a broken character is replaced, the row kept";
  save_results_csv(results, dir / "r.csv");
  EXPECT_EQ(test::read_table(dir / "r.csv").at(0).at("response"), results[0].response);
  const auto again = load_results_csv(dir / "r.csv");
  EXPECT_EQ(again.at(0), results[0]);
  EXPECT_EQ(load_results_csv(dir / "r.csv", {{"question", "arm"}, {"arm", "question"}}).at(0).arm, "q1");
  EXPECT_STEER_ERROR(load_results_csv(dir / "r.csv", {{"arm", "x"}}), ErrorCode::format, "\"arm\"");

  std::ofstream(dir / "odd.csv") << "Arm,Behavior,Question,Truncated\ncontrol,funny,q1,yes\n,,,\n ,,, \n";
  EXPECT_EQ(load_results_csv(dir / "odd.csv").size(), 1u) << "lines of commas alone are no rows";
  EXPECT_TRUE(load_results_csv(dir / "odd.csv").at(0).truncated);
  std::ofstream(dir / "twice.csv") << "arm,behaviour,question,arm\na,b,c,d\n";
  EXPECT_STEER_ERROR(load_results_csv(dir / "twice.csv"), ErrorCode::format, "\"arm\" again");

  std::ofstream(dir / "human.csv") << "question,arm,behaviour,score\nq1,steer,funny,2\n";
  EXPECT_EQ(import_scores(results, dir / "human.csv", "coherence"), 1);
  EXPECT_EQ(results[1].scores.at("coherence"), 2);
  EXPECT_TRUE(results[1].failed.empty());
  std::ofstream(dir / "bad.csv") << "question,arm,behaviour,score\nq9,steer,funny,2\n";
  EXPECT_STEER_ERROR(import_scores(results, dir / "bad.csv", "coherence"), ErrorCode::format, "steer|funny|q9");
  std::ofstream(dir / "nan.csv") << "question,arm,behaviour,score\nq1,steer,funny,two\n";
  EXPECT_STEER_ERROR(import_scores(results, dir / "nan.csv", "coherence"), ErrorCode::format, "\"two\"");
}

TEST(TextMetrics, CountsByHand) {
  const auto m = text_metrics("The cat. the CAT. the dog.");  // the cat . the cat . the dog .
  EXPECT_EQ(m.words, 9);
  EXPECT_DOUBLE_EQ(m.distinct_1, 4.0 / 9);
  EXPECT_DOUBLE_EQ(m.distinct_2, 5.0 / 8);  // the cat, cat ., . the, the dog, dog .
  EXPECT_DOUBLE_EQ(m.repetition, 1.0 / 6);  // of "the cat . the", "cat . the cat", ... one comes twice
  const auto empty = text_metrics("");
  EXPECT_EQ(empty.words, 0);
  EXPECT_EQ(empty.compression_ratio, 1);
}

TEST(TextMetrics, ScreenFlagsLoopsAndCutsOnly) {
  std::string loop;
  for (int i = 0; i < 60; ++i) loop += "very good indeed, ";
  const std::string fine = "<thinking>Paris is the capital of France, so B.</thinking><answer>B</answer>";
  const auto looping = collapse_screen(loop, text_metrics(loop)),
             good = collapse_screen(fine, text_metrics(fine), {.expects_tags = true});
  EXPECT_FALSE(good.collapsed);
  EXPECT_LT(good.score, 0.5);
  EXPECT_GT(looping.score, 1.8);
  EXPECT_EQ(collapse_screen(loop, text_metrics(loop), {.truncated = true}).collapsed, true);
}

// The screen on the study's stored responses: a screen it is, a coherence score it is not.
TEST(PaperScreen, AgreesWithTheJudgeAsDocumented) {
  const auto data = test::paper_results();
  if (!data.present) GTEST_SKIP() << "no stored results of the study at " << data.path;
  test::CaseCounter counter("paper");
  std::vector<double> scores, coherence;
  std::vector<std::uint8_t> low;
  for (const char* file : {"mmlu_pilot_8b.csv.gz", "mmlu_pilot_70b.csv.gz"})
    for (auto& row : test::read_table(data.path / file)) {
      const auto& text = row["response"];
      scores.push_back(collapse_screen(text, text_metrics(text),
                                       {.expects_tags = true, .truncated = std::stoi(row["n_tokens"]) >= 1023})
                           .score);
      coherence.push_back(std::stod(row["coherence"]));
      low.push_back(coherence.back() <= 3);
    }
  const double area = auroc(scores, low), rank = spearman(scores, coherence);
  std::printf("paper: collapse screen on %zu responses: AUROC %.3f, Spearman %.3f\n", scores.size(), area, rank);
  counter.count(area > 0.7);
  EXPECT_GT(area, 0.7);
  EXPECT_GT(rank, -0.7) << "should it ever pass .7, report it as a score";
}

}  // namespace
}  // namespace steer
