#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace steer::eval::detail {

/// Part of a word, in any script: letters, digits, apostrophes and hyphens.
bool word_character(unsigned char c);
/// A response without its tags and without what stands in an answer tag: those are asked for by the question.
std::string prose_of(std::string_view response);
/// The words of a text, ASCII letters in lower case. What holds neither letter nor digit is no word.
std::vector<std::string> words_of(std::string_view text);

}  // namespace steer::eval::detail
