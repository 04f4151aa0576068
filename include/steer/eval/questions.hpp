#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <steer/core/enum.hpp>

namespace steer {

/// A multiple-choice question, or an open prompt when it has no choices.
struct Question {
  std::string id{};       ///< stable: results are joined by it, never by row
  std::string subject{};  ///< stratum
  std::string text{};
  std::vector<std::string> choices = {};  ///< at most 26; empty for an open prompt
  int answer = -1;                        ///< index of the right choice; -1 when there are none

  /// "A" for choice 0; empty for an open prompt.
  std::string gold() const { return answer < 0 ? std::string() : std::string(1, static_cast<char>('A' + answer)); }
  friend bool operator==(const Question&, const Question&) = default;
};

/// Which questions of an MMLU folder.
enum class Mmlu {
  first_three_dev,  ///< the first 3 rows of every subject's dev file: 57 x 3 = 171, the selection of arXiv 2602.04903
  dev,
  val,
  test,
};

template <>
struct EnumTable<Mmlu> {
  static constexpr std::string_view name = "MMLU selection";
  static constexpr EnumEntry<Mmlu> entries[] = {
      {Mmlu::first_three_dev, "first_three_dev"}, {Mmlu::dev, "dev"}, {Mmlu::val, "val"}, {Mmlu::test, "test"}};
};

/// Questions from MMLU in its original layout: `dev/<subject>_dev.csv` without header, columns question, A, B, C, D,
/// answer (Hendrycks et al. 2021). Subjects come in the order of their names, rows in file order; ids are
/// `subject:split:row` with rows from 0. A header row is understood.
/// @throws Error(io) for a folder without such files, Error(format) naming file and row for a record of another shape.
std::vector<Question> load_mmlu(const std::filesystem::path& folder, Mmlu selection = Mmlu::first_three_dev);

/// One question a line, or a JSON array of them: `{"id", "question", "choices": [...], "answer": "B" or 1, "subject"}`;
/// `choices` and `answer` absent for open prompts, `subject` optional. Other names that published sets use are read
/// too: MMLU on the hub (no id: one is made of the content), MMLU-Pro (`question_id`, `options`, `answer_index`,
/// `category`), ARC (`choices.text`, `choices.label`, `answerKey`), a key a choice (`A`, `B`, ...). Answers are
/// letters, indices from 0, labels, or the text of a choice; several that disagree are refused.
/// @throws Error(io | format), naming the line, for JSON of another shape or an id that occurs twice.
std::vector<Question> load_questions(const std::filesystem::path& path);
/// Writes what `load_questions` reads. @throws Error(io).
void save_questions(const std::vector<Question>& questions, const std::filesystem::path& jsonl);

/// The same number of questions of every subject, drawn without replacement; all of a subject that has fewer. Equal
/// seeds draw equal samples on every machine; the order is that of the input.
/// @throws Error(argument) if `per_subject` is not positive.
std::vector<Question> stratified_sample(const std::vector<Question>& questions, std::int64_t per_subject,
                                        std::uint64_t seed);

/// The question as a user message: text, one line a choice ("A. ..."), and the request to reason in `<thinking>` and
/// answer with one letter in `<answer>` tags. An open prompt is its text alone.
std::string user_prompt(const Question& question);

/// The same without tags: it asks for the letter only, for letter log-likelihoods.
std::string letter_prompt(const Question& question);

}  // namespace steer
