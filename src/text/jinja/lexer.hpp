#pragma once
// Cuts a template into text and the tokens of its tags, by jinja2's rules with trim_blocks and lstrip_blocks.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace steer::text::detail::jinja {

struct Token {
  enum class Type {
    data,            ///< text between tags, white space control applied
    variable_begin,  ///< {{
    variable_end,
    block_begin,  ///< {%
    block_end,
    name,
    string,
    integer,
    real,
    sign,  ///< an operator or bracket
    end,
  };
  Type type;
  int line;
  std::string text;
  std::int64_t integer = 0;
  double real = 0;
};

/// @throws TemplateFailure for what is not a template, TemplateUnsupported for a number or character that steer has
/// not.
std::vector<Token> tokenize(std::string_view source);

}  // namespace steer::text::detail::jinja
