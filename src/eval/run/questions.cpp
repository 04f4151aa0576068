#include <steer/eval/questions.hpp>

#include <algorithm>
#include <cctype>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>

#include "core/ascii.hpp"
#include "core/format_text.hpp"
#include "eval/run/csv.hpp"
#include "io/text_file.hpp"

namespace steer {
namespace {

constexpr int kMmluChoices = 4;

std::string with_choices(const Question& question) {
  std::string text = question.text + "\n";
  for (std::size_t i = 0; i < question.choices.size(); ++i)
    text += format_text("\n{}. {}", static_cast<char>('A' + i), question.choices[i]);
  return text;
}

/// Where a file's rows keep question, choices and answer: the layout's own places, or those its header names.
struct Columns {
  std::size_t question = 0, answer = kMmluChoices + 1;
  std::vector<std::size_t> choices{1, 2, 3, 4};
  std::size_t fields = kMmluChoices + 2;
};

/// Nothing for a first row that is a question.
std::optional<Columns> read_header(const eval::detail::CsvRow& row) {
  std::optional<std::size_t> question, answer;
  std::map<char, std::size_t> letters;
  for (std::size_t i = 0; i < row.size(); ++i) {
    const auto name = eval::detail::trim(row[i]);
    if (ascii_alike(name, "question")) question = i;
    if (ascii_alike(name, "answer")) answer = i;
    if (name.size() == 1 && std::isalpha(static_cast<unsigned char>(name[0])))
      letters[static_cast<char>(std::toupper(static_cast<unsigned char>(name[0])))] = i;
  }
  if (!question || !answer) return std::nullopt;
  Columns columns{.question = *question, .answer = *answer, .choices = {}, .fields = row.size()};
  for (char letter = 'A'; letters.contains(letter); ++letter) columns.choices.push_back(letters[letter]);
  if (columns.choices.size() < 2 && row.size() == kMmluChoices + 2 && *question == 0 && *answer == kMmluChoices + 1)
    columns.choices = {1, 2, 3, 4};  // choices of other names, in their places
  return columns.choices.size() < 2 ? std::nullopt : std::optional(columns);
}

/// "B", "b", " B" or, where a header says what the columns are, 1.
int mmlu_answer(std::string_view text, const Columns& columns, bool header) {
  const auto count = static_cast<int>(columns.choices.size());
  if (text.size() != 1) return -1;
  const int letter = std::toupper(static_cast<unsigned char>(text[0])) - 'A', index = text[0] - '0';
  if (letter >= 0 && letter < count) return letter;
  return header && index >= 0 && index < std::min(count, 10) ? index : -1;
}

void add_mmlu(std::vector<Question>& questions, const std::filesystem::path& file, const std::string& subject,
              const std::string& split, std::size_t most) {
  const auto rows = eval::detail::read_csv(file);
  if (rows.empty()) return;
  const auto header = read_header(rows[0]);
  const Columns columns = header.value_or(Columns{});
  for (std::size_t at = header ? 1 : 0, r = 0; at < rows.size() && r < most; ++at, ++r) {
    const auto& row = rows[at];
    for (const auto& field : row)
      require(eval::detail::is_utf8(field), ErrorCode::format, "load_mmlu",
              "expected UTF-8 but a field of row {} is not ({}); is it Latin-1? iconv -f LATIN1 -t UTF-8", r,
              file.string());
    const std::string_view letter = row.size() > columns.answer ? eval::detail::trim(row[columns.answer]) : "";
    const int answer = row.size() == columns.fields ? mmlu_answer(letter, columns, header.has_value()) : -1;
    require(answer >= 0, ErrorCode::format, "load_mmlu",
            "expected {} fields (question, {} choices, letter A-{}) but got {} ending in \"{}\" ({}, row {})",
            columns.fields, columns.choices.size(), static_cast<char>('A' + columns.choices.size() - 1), row.size(),
            row.back().substr(0, 80), file.string(), r);
    Question question{format_text("{}:{}:{}", subject, split, r), subject, row[columns.question], {}, answer};
    for (const auto choice : columns.choices) question.choices.push_back(row[choice]);
    questions.push_back(std::move(question));
  }
}

}  // namespace

std::vector<Question> load_mmlu(const std::filesystem::path& folder, Mmlu selection) {
  const std::string split = selection == Mmlu::first_three_dev ? "dev" : std::string(to_string(selection));
  const std::string suffix = "_" + split + ".csv";
  std::vector<std::filesystem::path> files;
  for (const auto& place : {folder / split, folder / "data" / split, folder}) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(place, error))
      if (entry.path().filename().string().ends_with(suffix)) files.push_back(entry.path());
    if (!files.empty()) break;
  }
  require(!files.empty(), ErrorCode::io, "load_mmlu",
          "expected MMLU files \"<subject>{}\" but got none in \"{}\"; point to the folder that holds dev/ and test/",
          suffix, (folder / split).string());
  std::sort(files.begin(), files.end());
  std::vector<Question> questions;
  for (const auto& file : files) {
    const std::string name = file.filename().string();
    add_mmlu(questions, file, name.substr(0, name.size() - suffix.size()), split,
             selection == Mmlu::first_three_dev ? 3 : std::numeric_limits<std::size_t>::max());
  }
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
