#pragma once

#include <optional>
#include <string_view>

namespace steer {

/// What a response says, read by two rules that are kept apart in every result.
struct ParsedAnswer {
  bool has_tag = false;           ///< the text contains `<answer>`
  std::optional<char> strict{};   ///< from the first `<answer>` only: one letter standing alone at its start
  std::optional<char> lenient{};  ///< what a careful reader takes as the final answer; may differ from `strict`
};

/// Reads the chosen letter of a response.
///
/// Strict: the text after the first `<answer>` starts, after spaces and an optional "(" or "*", with one letter of the
/// question's choices that no other letter or digit touches, and the tag does not go on to list further letters
/// ("A, B", "C and D", "B/C"). What may follow is an explanation ("C. foreign policy", "B (not A)"). Letter case
/// counts: "a" is an article.
///
/// Lenient: the last answer that is stated outside thoughts, in any form that models use: a tag in any spelling
/// (`<Answer>`, `<final_answer>`), `\boxed{C}`, JSON, "the correct option is (B)", "I choose C", "hence D", "Antwort:
/// B", a letter alone, also in lower case where it stands for nothing else. A later statement replaces an earlier one.
/// Lists ("A or B"), what is denied, asked, supposed or said by others, articles and names ("vitamin C") give nothing:
/// a wrong letter is worse than none.
/// @param choices  how many letters are valid, from 'A'; 1 to 26.
/// @throws Error(argument) for `choices` outside 1 to 26.
ParsedAnswer parse_answer(std::string_view response, int choices = 4);

}  // namespace steer
