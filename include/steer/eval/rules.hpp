#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <steer/core/enum.hpp>

namespace steer {

struct Behaviour;

/// What a program can check without a judge.
enum class RuleKind {
  at_most_words,  ///< no more than `limit` words
  exclaims,       ///< every sentence ends with an exclamation mark
  no_digits,      ///< no digit of any script's decimal numbers in ASCII
  says_word,      ///< `word` occurs, as a word of its own, in any case
};

template <>
struct EnumTable<RuleKind> {
  static constexpr std::string_view name = "rule";
  static constexpr EnumEntry<RuleKind> entries[] = {{RuleKind::at_most_words, "at_most_words"},
                                                    {RuleKind::exclaims, "exclaims"},
                                                    {RuleKind::no_digits, "no_digits"},
                                                    {RuleKind::says_word, "says_word"}};
};

/// A rule with ground truth: whether an answer keeps it is a fact, no opinion.
struct Rule {
  RuleKind kind = RuleKind::at_most_words;
  std::int64_t limit = 0;  ///< for at_most_words
  std::string word = {};   ///< for says_word
  friend bool operator==(const Rule&, const Rule&) = default;
};

/// Whether a response keeps a rule. What stands in the `<answer>` tag and tags themselves are not looked at: they are
/// asked for by the question. A response without words keeps none.
bool keeps_rule(const Rule& rule, std::string_view response);

/// Behaviours that are checked, not judged, as positive controls: "short" (at most 40 words), "exclaiming",
/// "no_digits", "however" (uses the word). A method that does not move them is broken, whatever a judge says of the
/// others.
const std::vector<Behaviour>& rule_behaviours();

}  // namespace steer
