#include <steer/eval/rules.hpp>

#include <algorithm>
#include <cctype>

#include <steer/core/error.hpp>
#include <steer/eval/behaviours.hpp>

#include "core/ascii.hpp"
#include "eval/run/prose.hpp"

namespace steer {
namespace {

using eval::detail::word_character;

/// Sentences end at . ! or ? before a space, at the end of the text, and at the end of a line.
bool all_exclaim(const std::string& text) {
  bool said = false, ended = true;  // a word since the last end; whether the last sentence ended with '!'
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool last = i + 1 == text.size() || std::isspace(static_cast<unsigned char>(text[i + 1])) ||
                      std::string_view("\"')").find(text[i + 1]) != std::string_view::npos;
    if (word_character(static_cast<unsigned char>(c))) {
      said = true;
      ended = false;
    } else if (c == '!' && said) {
      said = false;
      ended = true;
    } else if (((c == '.' || c == '?') && last) || c == '\n') {
      if (said) return false;
    }
  }
  return ended;
}

}  // namespace

bool keeps_rule(const Rule& rule, std::string_view response) {
  const std::string text = eval::detail::prose_of(response);
  const auto words = eval::detail::words_of(text);
  if (words.empty()) return false;
  switch (rule.kind) {
    case RuleKind::at_most_words:
      return static_cast<std::int64_t>(words.size()) <= rule.limit;
    case RuleKind::exclaims:
      return all_exclaim(text);
    case RuleKind::no_digits:
      return std::none_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c); });
    case RuleKind::says_word:
      return std::find(words.begin(), words.end(), ascii_lower(rule.word)) != words.end();
  }
  return false;
}

const std::vector<Behaviour>& rule_behaviours() {
  static const std::vector<Behaviour> behaviours = {
      {.name = "short",
       .instruction = "use at most 40 words in all",
       .rule = Rule{.kind = RuleKind::at_most_words, .limit = 40}},
      {.name = "exclaiming",
       .instruction = "end every sentence with an exclamation mark",
       .rule = Rule{.kind = RuleKind::exclaims}},
      {.name = "no_digits",
       .instruction = "write no digits at all, only number words",
       .rule = Rule{.kind = RuleKind::no_digits}},
      {.name = "however",
       .instruction = "use the word \"however\" at least once",
       .rule = Rule{.kind = RuleKind::says_word, .word = "however"}},
  };
  return behaviours;
}

}  // namespace steer
