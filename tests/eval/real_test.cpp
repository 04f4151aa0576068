// What people bring to an evaluation: tables, questions, responses, judges' replies (see real_cases.hpp).

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include <steer/eval/answer.hpp>
#include <steer/eval/questions.hpp>
#include <steer/eval/results.hpp>

#include "core/format_text.hpp"
#include "eval/judge/judge_reply.hpp"
#include "judge_server.hpp"
#include "real_cases.hpp"

namespace steer {
namespace {

using nlohmann::json;

std::string differs(std::string_view field, const json& right, const json& got) {
  return right == got ? "" : format_text("{}: expected {} but got {}", field, right.dump(), got.dump());
}

/// Only the fields that the case gives.
std::string differs(const std::vector<ResultRow>& got, const json& right) {
  if (got.size() != right.size()) return format_text("expected {} rows but got {}", right.size(), got.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    const ResultRow& r = got[i];
    const json row{{"key", r.key()},         {"gold", r.gold},
                   {"answer", r.answer},     {"answer_lenient", r.answer_lenient},
                   {"correct", r.correct()}, {"truncated", r.truncated},
                   {"tokens", r.tokens},     {"scores", r.scores},
                   {"response", r.response}};
    for (const auto& [field, value] : right[i].items())
      if (const auto why = differs(field, value, row.at(field)); !why.empty()) return r.key() + ", " + why;
  }
  return "";
}

TEST(RealCsv, RowsAsTheyAreOrARefusal) {
  test::check_real_cases(
      "csv", [](const test::RealCase& c) { return load_results_csv(c.input()); },
      [](const std::vector<ResultRow>& got, const json& right) { return differs(got, right); });
}

struct Loaded {
  std::vector<Question> first, second;
};

std::string differs(const Loaded& loaded, const json& right) {
  const auto& got = loaded.first;
  if (got != loaded.second) return "loaded twice, the questions differ";
  if (got.size() != right.size()) return format_text("expected {} questions but got {}", right.size(), got.size());
  std::set<std::string> ids;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const json question{{"id", got[i].id},
                        {"subject", got[i].subject},
                        {"text", got[i].text},
                        {"choices", got[i].choices},
                        {"answer", got[i].answer}};
    if (got[i].id.empty() || !ids.insert(got[i].id).second) return "an id is empty or comes twice: " + got[i].id;
    for (const auto& [field, value] : right[i].items())
      if (!(field == "id" && value.is_null()))
        if (const auto why = differs(field, value, question.at(field)); !why.empty()) return why;
  }
  return "";
}

TEST(RealQuestions, AsPeopleHaveThem) {
  test::check_real_cases(
      "questions",
      [](const test::RealCase& c) {
        const auto load = [&] {
          return c.json.at("loader") == "mmlu"
                     ? load_mmlu(c.input(), parse_enum<Mmlu>(c.json.at("selection").get<std::string>(), "test"))
                     : load_questions(c.input());
        };
        return Loaded{load(), load()};
      },
      [](const Loaded& got, const json& right) { return differs(got, right); });
}

TEST(RealLetters, FinalAnswersOfResponses) {
  const auto tables = test::real_cases("letters");
  if (tables.empty()) GTEST_SKIP() << "no letters in " << test::real_data().path;
  test::CaseCounter counter("real (letters)");
  int given = 0, right_given = 0, due = 0, found = 0;
  for (const auto& table : tables)
    for (const auto& row : table.rows(table.json.at("input"))) {
      const auto text = row.at("text").get<std::string>();
      const ParsedAnswer answer = parse_answer(text, row.at("choices"));
      const auto letter = [](const std::optional<char>& c) { return c ? json(std::string(1, *c)) : json(); };
      const json &strict = row.at("strict"), &lenient = row.at("lenient");
      due += !lenient.is_null();
      found += !lenient.is_null() && letter(answer.lenient) == lenient;
      given += answer.lenient.has_value();
      right_given += answer.lenient.has_value() && letter(answer.lenient) == lenient;
      const bool ok = letter(answer.strict) == strict && letter(answer.lenient) == lenient;
      counter.count(ok);
      EXPECT_TRUE(ok) << row.at("text").dump() << ": expected " << strict << " and " << lenient << " but got "
                      << letter(answer.strict) << " and " << letter(answer.lenient);
    }
  std::printf("real (letters): lenient precision %.3f (%d of %d), recall %.3f (%d of %d)\n",
              given ? 1.0 * right_given / given : 1.0, right_given, given, due ? 1.0 * found / due : 1.0, found, due);
}

Behaviour behaviour_of(const json& given) {
  Behaviour behaviour{.name = given.at("name"), .instruction = given.at("instruction")};
  for (const auto& c : given.at("criteria"))
    behaviour.criteria.push_back({c.at("name"), c.at("description"), c.at("points")});
  return behaviour;
}

TEST(RepliesOfJudges, MeanWhatACarefulReaderSays) {
  const auto tables = test::real_cases("judge");
  if (tables.empty()) GTEST_SKIP() << "no judges' replies in " << test::real_data().path;
  test::CaseCounter counter("judges");
  for (const auto& table : tables) {
    const Behaviour behaviour = behaviour_of(table.json.at("behaviour"));
    const JudgeRequest request{"?", "!", &behaviour};
    for (const auto& row : table.rows(table.json.at("input"))) {
      const std::string reply =
          row.contains("message") ? eval::detail::message_text(row.at("message")) : row.at("reply").get<std::string>();
      const auto score =
          parse_judgement(parse_enum<Rubric>(row.at("rubric").get<std::string>(), "test"), request, reply);
      const json &right = row.at("score"), got = score ? json(*score) : json();
      const bool ok =
          score ? right.is_number() && right.get<double>() == *score : right.is_null() || row.value("or_null", false);
      counter.count(ok);
      EXPECT_TRUE(ok) << row.dump() << ": got " << got;
    }
  }
}

/// What is wrong with a judge's dealings with one scripted server, or "".
std::string wrong_with_server(const json& row) {
  const json &replies = row.at("replies"), &expected = row.at("expected");
  std::vector<httplib::Request> requests;
  test::JudgeServer server([&](int n, const httplib::Request& request, httplib::Response& response) {
    requests.push_back(request);
    const json& reply = replies.at(std::min(static_cast<std::size_t>(n), replies.size() - 1));
    response.status = reply.at("status");
    std::string type = "application/json";
    const json headers = reply.value("headers", json::object());
    for (const auto& [name, value] : headers.items()) {
      if (name == "Content-Type")
        type = value;
      else
        response.set_header(name, value.get<std::string>());
    }
    const json& body = reply.at("body");
    response.set_content(body.is_string() ? body.get<std::string>() : body.dump(), type);
  });
  HttpJudgeOptions options = test::quick_judge(server.url(row.at("base_path")));
  options.max_attempts = 3;
  Judgement judgement;
  JudgeUsage usage;
  try {
    HttpJudge judge(options);
    const JudgeRequest request{"2+2?", "4", nullptr};
    judgement = judge.judge(Rubric::coherence, std::span(&request, 1)).at(0);
    usage = judge.usage();
  } catch (const Error& error) {
    if (expected.contains("refused") && test::holds_words(error.what(), expected["refused"])) return "";
    return std::string("refused: ") + error.what();
  }
  if (expected.contains("refused")) return "it was let through";
  if (expected.contains("failure"))
    return !judgement.score && test::holds_words(judgement.failure, expected["failure"])
               ? ""
               : "expected a failure with its words but got: " + judgement.failure;
  if (judgement.score != expected.at("score").get<double>()) return "another score, or none: " + judgement.failure;
  if (expected.contains("requests") && expected["requests"] != requests.size())
    return format_text("{} requests", requests.size());
  if (expected.contains("tokens") && expected["tokens"] != json{usage.input_tokens, usage.output_tokens})
    return format_text("{} and {} tokens", usage.input_tokens, usage.output_tokens);
  if (expected.contains("path") && expected["path"] != requests.at(0).target) return "path " + requests.at(0).target;
  if (expected.contains("second_request_lacks") &&
      json::parse(requests.at(1).body).contains(expected["second_request_lacks"].get<std::string>()))
    return "the second request still has it";
  return "";
}

TEST(RealServers, OutcomesOfScriptedReplies) {
  const auto tables = test::real_cases("server");
  if (tables.empty()) GTEST_SKIP() << "no servers' replies in " << test::real_data().path;
  test::CaseCounter counter("real (server)");
  for (const auto& table : tables)
    for (const auto& row : table.rows(table.json.at("input"))) {
      const std::string wrong = wrong_with_server(row);
      counter.count(wrong.empty());
      EXPECT_TRUE(wrong.empty()) << row.at("name") << " (" << row.at("what") << "): " << wrong;
    }
}

}  // namespace
}  // namespace steer
