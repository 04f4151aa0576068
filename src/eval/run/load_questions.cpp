// Questions in the JSON forms that people have them in.

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>
#include <steer/eval/questions.hpp>

#include "core/ascii.hpp"
#include "core/format_text.hpp"
#include "eval/run/csv.hpp"
#include "io/strict_json.hpp"

namespace steer {
namespace {

using nlohmann::json;
constexpr std::string_view kLoadQuestions = "load_questions";

std::string shown(const json& value) { return io::detail::brief(value); }

/// The first of these keys that holds something.
const json* find(const json& record, std::initializer_list<const char*> keys) {
  for (const char* key : keys)
    if (const auto found = record.find(key); found != record.end() && !found->is_null()) return &*found;
  return nullptr;
}

/// Texts, and numbers as texts.
std::optional<std::string> text_of(const json* value) {
  if (!value) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  if (value->is_number()) return value->dump();
  return std::nullopt;
}

/// Choices and what the file calls them.
struct Choices {
  std::vector<std::string> texts;
  std::vector<std::string> labels;  ///< empty: none of their own
};

/// One question's record.
class Record {
 public:
  Record(const json& record, std::string place) : record_(record), place_(std::move(place)) {}

  Question question() const {
    const json* asked = find(record_, {"question", "Question", "question_stem", "prompt", "input"});
    const json* stem = asked && asked->is_object() ? find(*asked, {"stem"}) : nullptr;  // ARC's original form
    const auto text = text_of(stem ? stem : asked);
    require(text.has_value(), ErrorCode::format, kLoadQuestions,
            "expected an object with a text \"question\" but got {} ({})", asked ? shown(*asked) : "none", place_);
    Question question{.id = text_of(find(record_, {"id", "question_id", "qid"})).value_or(""),
                      .subject = text_of(find(record_, {"subject", "category", "Subject"})).value_or(""),
                      .text = *text,
                      .choices = {}};
    const Choices choices = read_choices(stem ? *asked : record_);
    if (!choices.texts.empty()) {
      require(choices.texts.size() >= 2 && choices.texts.size() <= 26, ErrorCode::format, kLoadQuestions,
              "expected 2 to 26 choices but got {} ({})", choices.texts.size(), place_);
      question.choices = choices.texts;
      question.answer = read_answer(choices);
    }
    return question;
  }

 private:
  std::string choice_text(const json& value) const {
    const auto text = text_of(&value);
    require(text.has_value(), ErrorCode::format, kLoadQuestions, "expected choices as texts but got {} ({})",
            shown(value), place_);
    return *text;
  }

  Choices read_choices(const json& from) const {
    Choices choices;
    const json* given = find(from, {"choices", "options"});
    if (!given) {  // a column a choice
      for (char name = 'A'; name <= 'Z'; ++name) {
        const auto found = from.find(std::string(1, name));
        if (found == from.end() || found->is_null()) break;
        choices.texts.push_back(choice_text(*found));
      }
      return choices;
    }
    const json* texts = given->is_object() ? find(*given, {"text"}) : given;
    if (given->is_object() && !texts) {  // {"A": "...", "B": "..."}
      for (const auto& [label, value] : given->items()) {
        choices.labels.push_back(label);
        choices.texts.push_back(choice_text(value));
      }
      return choices;
    }
    require(texts->is_array(), ErrorCode::format, kLoadQuestions,
            "expected \"choices\" as a list of texts but got {} ({})", shown(*given), place_);
    for (const auto& choice : *texts) {
      const bool labelled = choice.is_object() && choice.contains("text");  // {"text": "...", "label": "A"}
      choices.texts.push_back(choice_text(labelled ? choice["text"] : choice));
      if (labelled && choice.contains("label")) choices.labels.push_back(choice_text(choice["label"]));
    }
    if (given->is_object())
      if (const json* labels = find(*given, {"label", "labels"}); labels && labels->is_array())
        for (const auto& label : *labels) choices.labels.push_back(choice_text(label));
    require(choices.labels.empty() || choices.labels.size() == choices.texts.size(), ErrorCode::format, kLoadQuestions,
            "expected a label a choice but got {} labels of {} choices ({})", choices.labels.size(),
            choices.texts.size(), place_);
    return choices;
  }

  /// All keys that say which choice is right; they must agree.
  int read_answer(const Choices& choices) const {
    int answer = -1;
    std::string from;
    for (const char* key : {"answer", "Answer", "answerKey", "answer_key", "answer_index", "answer_idx"}) {
      const auto found = record_.find(key);
      if (found == record_.end() || found->is_null()) continue;
      const int here = index_of(key, *found, choices);
      if (!from.empty() && here != answer)
        fail(ErrorCode::format, kLoadQuestions, "expected \"{}\" and \"{}\" to name one choice but got {} and {} ({})",
             from, key, shown(record_[from]), shown(*found), place_);
      answer = here;
      from = key;
    }
    require(!from.empty(), ErrorCode::format, kLoadQuestions,
            "expected an \"answer\" beside {} choices but got none ({})", choices.texts.size(), place_);
    return answer;
  }

  int index_of(const std::string& key, const json& value, const Choices& choices) const {
    const auto count = static_cast<std::int64_t>(choices.texts.size());
    std::optional<std::int64_t> index;
    if (value.is_string() || value.is_number_integer()) {
      std::string raw = value.is_string() ? value.get<std::string>() : value.dump();
      const std::string_view text = eval::detail::trim(raw);
      if (value.is_string() || key == "answerKey" || key == "answer_key")
        for (std::size_t i = 0; i < choices.labels.size() && !index; ++i)
          if (ascii_alike(text, choices.labels[i])) index = static_cast<std::int64_t>(i);
      if (!index) index = value.is_string() ? from_text(key, text, choices) : number(text);
    } else if (value.is_number_float() && value.get<double>() == std::floor(value.get<double>())) {
      index = number(format_text("{:.0f}", value.get<double>()));
    }
    require(index && *index >= 0 && *index < count, ErrorCode::format, kLoadQuestions,
            "expected \"{}\" to be the letter or index (from 0) of one of {} choices but got {} ({})", key, count,
            shown(value), place_);
    return static_cast<int>(*index);
  }

  /// "B", "(B)", "1", or the text of a choice.
  std::optional<std::int64_t> from_text(const std::string& key, std::string_view text, const Choices& choices) const {
    std::string_view letter = text;
    if (letter.starts_with('(')) letter.remove_prefix(1);
    if (letter.ends_with(')') || letter.ends_with('.')) letter.remove_suffix(1);
    if (letter.size() == 1 && std::isalpha(static_cast<unsigned char>(letter[0])))
      return std::toupper(static_cast<unsigned char>(letter[0])) - 'A';
    std::optional<std::int64_t> by_text;
    for (std::size_t i = 0; i < choices.texts.size(); ++i)
      if (text == choices.texts[i]) {
        require(!by_text, ErrorCode::format, kLoadQuestions,
                "expected \"{}\" to name one choice but two have the text \"{}\" ({})", key, text.substr(0, 80),
                place_);
        by_text = static_cast<std::int64_t>(i);
      }
    const auto index = number(text);
    const bool valid = index && *index >= 0 && *index < static_cast<std::int64_t>(choices.texts.size());
    require(!(by_text && valid && *by_text != *index), ErrorCode::format, kLoadQuestions,
            "expected \"{}\" to name one choice but \"{}\" is the index of one and the text of another ({}); give the "
            "index as a number or the letter",
            key, text.substr(0, 80), place_);
    return valid || !by_text ? index : by_text;
  }

  static std::optional<std::int64_t> number(std::string_view text) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
  }

  const json& record_;
  std::string place_;
};

/// Names that stay the same as long as the question does.
class Ids {
 public:
  void settle(Question& question, const std::string& place) {
    if (question.id.empty()) {
      ContentHasher hasher;
      hasher.update(question.subject + '\0' + question.text);
      for (const auto& choice : question.choices) hasher.update('\0' + choice);
      const std::string base = "q-" + hasher.hex().substr(0, 12);
      question.id = base;
      for (int n = 2; seen_.contains(question.id); ++n) question.id = format_text("{}-{}", base, n);
    }
    require(seen_.insert(question.id).second, ErrorCode::format, kLoadQuestions,
            "expected every id once but got \"{}\" again ({})", question.id, place);
  }

 private:
  std::set<std::string> seen_;
};

}  // namespace

std::vector<Question> load_questions(const std::filesystem::path& path) {
  const std::string text = eval::detail::read_plain_text(path, kLoadQuestions);
  require(eval::detail::is_utf8(text), ErrorCode::format, kLoadQuestions,
          "expected UTF-8 text but got another encoding ({}); is it Latin-1? iconv -f LATIN1 -t UTF-8", path.string());
  std::vector<Question> questions;
  Ids ids;
  const auto add = [&](const json& record, const std::string& place, std::string_view source) {
    require(record.is_object(), ErrorCode::format, kLoadQuestions,
            "expected an object with a text \"question\" but got \"{}\" ({})", source.substr(0, 60), place);
    Question question = Record(record, place).question();
    ids.settle(question, place);
    questions.push_back(std::move(question));
  };
  if (eval::detail::trim(text).starts_with('[')) {
    const json list = io::detail::parse_json(text, kLoadQuestions, path.string());
    require(list.is_array(), ErrorCode::format, kLoadQuestions,
            "expected a JSON array of questions but got \"{}\"{} ({})", text.substr(0, 60),
            eval::detail::is_utf8(text) ? "" : ", which is not UTF-8", path.string());
    for (std::size_t i = 0; i < list.size(); ++i)
      add(list[i], format_text("{}, entry {}", path.string(), i + 1), shown(list[i]));
  } else {
    eval::detail::for_each_line(text, path, [&](std::string_view line, const std::string& place) {
      add(io::detail::parse_json(line, kLoadQuestions, place), place, line);
    });
  }
  require(!questions.empty(), ErrorCode::format, kLoadQuestions, "expected at least one question but got none ({})",
          path.string());
  return questions;
}

}  // namespace steer
