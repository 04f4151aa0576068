#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace steer::eval::detail {

/// A piece of a response, as a reader of answers sees it.
struct Token {
  enum Kind { word, letter, mark, line } kind = mark;
  std::string text;  // words in lower case; marks as they are
  char name = 0;     // letters: 'A' to 'Z'
  bool upper = false;
  bool wide = false;   // of a script without letter case
  bool glued = false;  // no space before it
};

/// Splits a text: full-width and typographic forms become plain ones, tags that only style are left out, broken UTF-8
/// is taken byte by byte.
std::vector<Token> tokenize(std::string_view text);

}  // namespace steer::eval::detail
