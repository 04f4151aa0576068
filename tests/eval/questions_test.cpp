#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <set>

#include <steer/eval/answer.hpp>
#include <steer/eval/behaviours.hpp>
#include <steer/eval/questions.hpp>

#include "eval/run/csv.hpp"
#include "support.hpp"

namespace steer {
namespace {

void write(const std::filesystem::path& path, std::string_view text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

TEST(Csv, ReadsWhatRfc4180Allows) {
  const auto rows = eval::detail::parse_csv(
      "\xef\xbb\xbf"
      "a,\"b, \"\"c\"\"\",\"two\r\nlines\"\r\n\n,,\nx y,\"\",z",
      "text");
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0], (eval::detail::CsvRow{"a", "b, \"c\"", "two\r\nlines"}));
  EXPECT_EQ(rows[1], (eval::detail::CsvRow{"", "", ""}));
  EXPECT_EQ(rows[2], (eval::detail::CsvRow{"x y", "", "z"}));
  for (const auto& row : rows) EXPECT_EQ(eval::detail::parse_csv(eval::detail::csv_line(row), "again").at(0), row);
}

TEST(Csv, WritesNothingThatAReaderWouldSkip) {
  const std::vector<eval::detail::CsvRow> rows{{"\xef\xbb\xbfname"}, {""}, {"", ""}, {"\xef\xbb\xbf", "x"}};
  std::string text;
  for (const auto& row : rows) text += eval::detail::csv_line(row);
  EXPECT_EQ(eval::detail::parse_csv(text, "text"), rows);
}

TEST(Csv, NamesTheLineOfWhatItDoesNotAllow) {
  EXPECT_STEER_ERROR(eval::detail::parse_csv("a\n\"b", "t.csv"), ErrorCode::format,
                     "t.csv, the quote opened in line 2");
  EXPECT_STEER_ERROR(eval::detail::parse_csv("\"a\"b", "t.csv"), ErrorCode::format, "after a closing quote");
}

TEST(Questions, MmluFolder) {
  test::TempDir dir;
  write(dir / "dev/zoology_dev.csv", "\"Which, of these?\",w,x,y,z,C\nq1,1,2,3,4,A\nq2,1,2,3,4,B\nq3,1,2,3,4,D\n");
  write(dir / "dev/anatomy_dev.csv", "q0,1,2,3,4,A\n");
  const auto questions = load_mmlu(dir.path());
  ASSERT_EQ(questions.size(), 4u);
  EXPECT_EQ(questions[0].id, "anatomy:dev:0");
  EXPECT_EQ(questions[1], (Question{"zoology:dev:0", "zoology", "Which, of these?", {"w", "x", "y", "z"}, 2}));
  EXPECT_EQ(questions[1].gold(), "C");
  EXPECT_EQ(load_mmlu(dir.path(), Mmlu::dev).size(), 5u);
  EXPECT_NE(user_prompt(questions[1]).find("C. y"), std::string::npos);
  EXPECT_STEER_ERROR(load_mmlu(dir.path(), Mmlu::test), ErrorCode::io, "_test.csv");
  write(dir / "dev/broken_dev.csv", "q,1,2,3,A\n");
  EXPECT_STEER_ERROR(load_mmlu(dir.path()), ErrorCode::format, "broken_dev.csv, row 0");
}

TEST(Questions, JsonLinesRoundTrip) {
  test::TempDir dir;
  const std::vector<Question> questions{{"a:1", "math", "2+2?", {"3", "4"}, 1}, {"open", "", "Tell me a story"}};
  save_questions(questions, dir / "q.jsonl");
  EXPECT_EQ(load_questions(dir / "q.jsonl"), questions);
  write(dir / "twice.jsonl", "{\"id\":\"a\",\"question\":\"x\"}\n{\"id\":\"a\",\"question\":\"y\"}\n");
  EXPECT_STEER_ERROR(load_questions(dir / "twice.jsonl"), ErrorCode::format, "\"a\" again");
  write(dir / "gold.jsonl", "{\"id\":\"a\",\"question\":\"x\",\"choices\":[\"1\",\"2\"],\"answer\":\"C\"}\n");
  EXPECT_STEER_ERROR(load_questions(dir / "gold.jsonl"), ErrorCode::format, "one of 2 choices");
  write(dir / "text.jsonl", "hello\n");
  EXPECT_STEER_ERROR(load_questions(dir / "text.jsonl"), ErrorCode::format, "line 1");
}

TEST(Questions, StratifiedSamplesAreStable) {
  std::vector<Question> all;
  for (const char* subject : {"a", "b", "c"})
    for (int i = 0; i < 30; ++i) all.push_back({subject + std::to_string(i), subject, "?"});
  const auto sample = stratified_sample(all, 5, 7);
  std::map<std::string, int> count;
  for (const auto& question : sample) ++count[question.subject];
  EXPECT_EQ(count, (std::map<std::string, int>{{"a", 5}, {"b", 5}, {"c", 5}}));
  EXPECT_EQ(stratified_sample(all, 5, 7), sample);
  EXPECT_NE(stratified_sample(all, 5, 8), sample);
  // Without subject c the others keep their draws.
  const std::vector<Question> fewer(all.begin(), all.begin() + 60);
  EXPECT_EQ(stratified_sample(fewer, 5, 7), std::vector<Question>(sample.begin(), sample.begin() + 10));
  EXPECT_EQ(stratified_sample(all, 100, 7).size(), 90u);
}

struct AnswerCase {
  const char* text;
  bool tag;
  char strict, lenient;  // '-' for none
};

class AnswerParsing : public testing::TestWithParam<AnswerCase> {};

TEST_P(AnswerParsing, StrictAndLenient) {
  const auto& expected = GetParam();
  const ParsedAnswer answer = parse_answer(expected.text);
  EXPECT_EQ(answer.has_tag, expected.tag);
  EXPECT_EQ(answer.strict.value_or('-'), expected.strict);
  EXPECT_EQ(answer.lenient.value_or('-'), expected.lenient);
}

INSTANTIATE_TEST_SUITE_P(
    Texts, AnswerParsing,
    testing::Values(AnswerCase{"<thinking>B?</thinking><answer>C</answer>", true, 'C', 'C'},
                    AnswerCase{"<answer>\n (D) </answer>", true, 'D', 'D'},
                    AnswerCase{"<answer>A. Paris</answer>", true, 'A', 'A'}, AnswerCase{"<answer>B", true, 'B', 'B'},
                    AnswerCase{"<answer>A, B</answer>", true, '-', '-'},
                    AnswerCase{"<answer>A or C</answer>", true, '-', '-'},
                    AnswerCase{"<answer>Apple</answer>", true, '-', '-'},
                    AnswerCase{"<answer>E</answer>", true, '-', '-'},
                    AnswerCase{"<answer>?</answer> <answer>B</answer>", true, '-', 'B'},
                    AnswerCase{"I think the answer is (B).", false, '-', 'B'}, AnswerCase{"Answer: C", false, '-', 'C'},
                    AnswerCase{"**Answer:** A\nNo: the answer is **D**", false, '-', 'D'},
                    AnswerCase{"The answer A man gave", false, '-', '-'}, AnswerCase{" C.\n", false, '-', 'C'},
                    AnswerCase{"A man walks into a bar", false, '-', '-'}, AnswerCase{"", false, '-', '-'}));

TEST(Answers, NumberOfChoices) {
  EXPECT_EQ(parse_answer("<answer>F</answer>", 10).strict, 'F');
  EXPECT_STEER_ERROR(parse_answer("A", 0), ErrorCode::argument, "1 to 26");
}

TEST(Behaviours, TheStudysFourteen) {
  const auto& behaviours = study_behaviours();
  EXPECT_EQ(behaviours.size(), 14u);
  std::set<std::string> names;
  for (const auto& behaviour : behaviours) {
    names.insert(behaviour.name);
    int points = 0;
    for (const auto& criterion : behaviour.criteria) points += criterion.points;
    EXPECT_EQ(points, 5) << behaviour.name;
  }
  EXPECT_EQ(names.size(), 14u);
  EXPECT_EQ(system_prompt(select_behaviours(behaviours, {"technical"})[0]),
            "When answering, please be technical and detailed.");
  EXPECT_STEER_ERROR(select_behaviours(behaviours, {"sad"}), ErrorCode::argument, "authoritative");
}

TEST(Behaviours, UsersOwn) {
  test::TempDir dir;
  write(dir / "b.json", R"([{"name": "pirate", "instruction": "talk like a pirate", "examples": ["Arr"]}])");
  const auto behaviours = load_behaviours(dir / "b.json");
  EXPECT_EQ(behaviours.at(0).criteria.at(0).points, 5);
  EXPECT_EQ(behaviours.at(0).examples, std::vector<std::string>{"Arr"});
  write(dir / "bad.json", R"([{"name": "a b", "instruction": "x"}])");
  EXPECT_STEER_ERROR(load_behaviours(dir / "bad.json"), ErrorCode::format, "letters, digits");
  write(dir / "points.json",
        R"([{"name": "a", "instruction": "x", "criteria": [{"name": "n", "description": "d", "points": 4}]}])");
  EXPECT_STEER_ERROR(load_behaviours(dir / "points.json"), ErrorCode::format, "sum to 5");
}

}  // namespace
}  // namespace steer
