#include <steer/eval/questions.hpp>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>

#include "eval/run/csv.hpp"
#include "io/strict_json.hpp"
#include "io/text_file.hpp"

namespace steer {
namespace {

using nlohmann::json;
constexpr int kMmluChoices = 4;

/// Index of the right choice from "B" or 1. @throws Error(format).
int parse_gold(const json& answer, std::size_t choices, const std::string& place) {
  std::int64_t index = -1;
  if (answer.is_number_integer()) index = answer.get<std::int64_t>();
  if (answer.is_string() && answer.get_ref<const std::string&>().size() == 1)
    index = answer.get<std::string>()[0] - 'A';
  require(index >= 0 && index < static_cast<std::int64_t>(choices), ErrorCode::format, "load_questions",
          "expected \"answer\" to be the letter or index of one of {} choices but got {} ({})", choices,
          io::detail::brief(answer), place);
  return static_cast<int>(index);
}

std::string with_choices(const Question& question) {
  std::string text = question.text + "\n";
  for (std::size_t i = 0; i < question.choices.size(); ++i)
    text += fmt::format("\n{}. {}", static_cast<char>('A' + i), question.choices[i]);
  return text;
}

}  // namespace

std::vector<Question> load_mmlu(const std::filesystem::path& folder, Mmlu selection) {
  const std::string split = selection == Mmlu::first_three_dev ? "dev" : std::string(to_string(selection));
  const std::string suffix = "_" + split + ".csv";
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder / split, error))
    if (entry.path().filename().string().ends_with(suffix)) files.push_back(entry.path());
  require(!files.empty(), ErrorCode::io, "load_mmlu",
          "expected MMLU files \"<subject>{}\" but got none in \"{}\"; point to the folder that holds dev/ and test/",
          suffix, (folder / split).string());
  std::sort(files.begin(), files.end());

  std::vector<Question> questions;
  for (const auto& file : files) {
    const std::string name = file.filename().string(), subject = name.substr(0, name.size() - suffix.size());
    const auto rows = eval::detail::read_csv(file);
    const std::size_t count = selection == Mmlu::first_three_dev ? std::min<std::size_t>(3, rows.size()) : rows.size();
    for (std::size_t r = 0; r < count; ++r) {
      const auto& row = rows[r];
      require(row.size() == kMmluChoices + 2 && row.back().size() == 1 && row.back()[0] >= 'A' && row.back()[0] <= 'D',
              ErrorCode::format, "load_mmlu",
              "expected 6 fields (question, 4 choices, letter A-D) but got {} ending in \"{}\" ({}, row {})",
              row.size(), row.back(), file.string(), r);
      questions.push_back({fmt::format("{}:{}:{}", subject, split, r),
                           subject,
                           row[0],
                           {row.begin() + 1, row.begin() + 1 + kMmluChoices},
                           row.back()[0] - 'A'});
    }
  }
  return questions;
}

std::vector<Question> load_questions(const std::filesystem::path& jsonl) {
  const std::string text = io::detail::read_text_file(jsonl, "load_questions");
  std::vector<Question> questions;
  std::set<std::string> ids;
  std::int64_t line_number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line(text.data() + begin, end - begin);
    begin = end + 1;
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string place = fmt::format("{}, line {}", jsonl.string(), line_number);
    const json record = io::detail::parse_json(line, "load_questions", place);
    require(record.is_object() && record.contains("id") && record["id"].is_string() && record.contains("question") &&
                record["question"].is_string(),
            ErrorCode::format, "load_questions",
            "expected an object with texts \"id\" and \"question\" but got \"{}\" ({})", line.substr(0, 60), place);
    Question question{.id = record["id"], .subject = "", .text = record["question"], .choices = {}};
    if (record.contains("subject") && record["subject"].is_string()) question.subject = record["subject"];
    if (record.contains("choices")) {
      const json& choices = record["choices"];
      const bool texts = choices.is_array() &&
                         std::all_of(choices.begin(), choices.end(), [](const json& c) { return c.is_string(); });
      require(texts && choices.size() >= 2 && choices.size() <= 26 && record.contains("answer"), ErrorCode::format,
              "load_questions", "expected \"choices\" as 2 to 26 texts with an \"answer\" but got {} ({})",
              io::detail::brief(choices), place);
      question.choices = choices.get<std::vector<std::string>>();
      question.answer = parse_gold(record["answer"], question.choices.size(), place);
    }
    require(ids.insert(question.id).second, ErrorCode::format, "load_questions",
            "expected every id once but got \"{}\" again ({})", question.id, place);
    questions.push_back(std::move(question));
  }
  require(!questions.empty(), ErrorCode::format, "load_questions", "expected at least one question but got none ({})",
          jsonl.string());
  return questions;
}

void save_questions(const std::vector<Question>& questions, const std::filesystem::path& jsonl) {
  std::string text;
  for (const auto& question : questions) {
    nlohmann::ordered_json record{{"id", question.id}, {"subject", question.subject}, {"question", question.text}};
    if (question.answer >= 0) {
      record["choices"] = question.choices;
      record["answer"] = question.gold();
    }
    text += record.dump() + '\n';
  }
  io::detail::write_text_file(jsonl, text, "save_questions");
}

std::vector<Question> stratified_sample(const std::vector<Question>& questions, std::int64_t per_subject,
                                        std::uint64_t seed) {
  require(per_subject > 0, ErrorCode::argument, "stratified_sample", "expected per_subject > 0 but got {}",
          per_subject);
  std::map<std::string, std::vector<std::size_t>> strata;
  for (std::size_t i = 0; i < questions.size(); ++i) strata[questions[i].subject].push_back(i);
  std::vector<std::size_t> chosen;
  for (auto& [subject, rows] : strata) {
    // A stream of its own for each subject: adding a subject does not change what is drawn from the others.
    Rng rng(derive_seed(seed, subject));
    rng.shuffle(rows);
    const auto count = std::min<std::size_t>(rows.size(), static_cast<std::size_t>(per_subject));
    chosen.insert(chosen.end(), rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(count));
  }
  std::sort(chosen.begin(), chosen.end());
  std::vector<Question> sample;
  for (auto i : chosen) sample.push_back(questions[i]);
  return sample;
}

std::string user_prompt(const Question& question) {
  if (question.answer < 0) return question.text;
  return with_choices(question) +
         "\n\nThink step by step inside <thinking> tags, then give the letter of the right choice, and nothing else, "
         "inside <answer> tags.";
}

std::string letter_prompt(const Question& question) {
  if (question.answer < 0) return question.text;
  return with_choices(question) + "\nAnswer:";
}

}  // namespace steer
