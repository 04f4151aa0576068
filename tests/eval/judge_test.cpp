#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#define CPPHTTPLIB_OPENSSL_SUPPORT
#define CPPHTTPLIB_ZLIB_SUPPORT
#include <httplib.h>

#include <steer/eval/http_judge.hpp>
#include <steer/eval/results.hpp>
#include <steer/eval/text_metrics.hpp>
#include <steer/stats/statistics.hpp>

#include "paper_data.hpp"

namespace steer {
namespace {

constexpr const char* kKey = "sk-very-secret";

std::string reply(const std::string& content) {
  return nlohmann::json{{"choices", {{{"message", {{"content", content}}}}}},
                        {"usage", {{"prompt_tokens", 100}, {"completion_tokens", 10}}}}
      .dump();
}

/// An OpenAI-compatible server on the loopback whose n-th answer the test decides.
class Server {
 public:
  using Answer = std::function<void(int n, const httplib::Request&, httplib::Response&)>;
  explicit Server(Answer answer) {
    server_.Post("/v1/chat/completions", [this, answer](const httplib::Request& request, httplib::Response& response) {
      answer(count_++, request, response);
    });
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    while (!server_.is_running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ~Server() {
    server_.stop();
    thread_.join();
  }
  std::string url() const { return fmt::format("http://127.0.0.1:{}/v1", port_); }
  int count() const { return count_; }

 private:
  httplib::Server server_;
  int port_ = 0;
  std::atomic<int> count_{0};
  std::thread thread_;
};

HttpJudgeOptions quick(const std::string& url) {
  setenv("STEER_TEST_KEY", kKey, 1);
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
       {"5", "{}", R"({"scores": [2, 1]})", R"({"scores": [3, 1, 1]})", R"({"scores": ["2", 1, 1]})", "{{{", ""})
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

TEST(Results, RoundTripAndImportedScores) {
  test::TempDir dir;
  std::vector<Result> results{
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
