#pragma once
// Properties of code points that the rules of tokenizers ask for.

#include <cstdint>

namespace steer::text::detail {

/// White_Space of the Unicode character database (25 code points, stable since Unicode 6.3).
constexpr bool is_white_space(char32_t code) noexcept {
  if (code < 0x80) return code == ' ' || (code >= 9 && code <= 13);
  return code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
         code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

/// A word character: Alphabetic, mark, decimal digit, connector punctuation or join control (UTS 18, annex C).
bool is_word(char32_t code) noexcept;

}  // namespace steer::text::detail
