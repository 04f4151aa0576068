#pragma once
// Code points as Python's str methods see them.

#include <string>
#include <string_view>

#include "text/unicode.hpp"

namespace steer::text::detail::jinja {

/// str.isspace: white space and the ASCII separators.
inline bool is_space(char32_t code) {
  return steer::text::detail::is_white_space(code) || (code >= 0x1C && code <= 0x1F);
}
bool is_printable(char32_t code);
bool is_cased(char32_t code);
bool is_lower(char32_t code);
bool is_upper(char32_t code);
bool is_alpha(char32_t code);
bool is_decimal(char32_t code);
bool is_digit(char32_t code);
bool is_numeric(char32_t code);

enum class Case { upper, lower, title };
/// Appends the code point in another case; `whole` and `at`, its place there, decide about a final sigma.
void append_case(std::string& out, Case to, std::string_view whole, std::size_t at);

/// Length without the white space at the end.
std::size_t end_without_space(std::string_view text);
std::size_t begin_without_space(std::string_view text);

}  // namespace steer::text::detail::jinja
