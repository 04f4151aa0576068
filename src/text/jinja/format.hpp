#pragma once
// How values are laid out as text, for both of Python's ways of formatting.

#include <cstdint>
#include <string>
#include <string_view>

#include "text/jinja/function.hpp"

namespace steer::text::detail::jinja {

/// How one value is to be laid out.
struct Layout {
  std::string fill = " ";
  char align = '\0';  ///< '<', '>', '^' or '=' (fill between sign and digits); none: by type
  char sign = '-';    ///< '-', '+' or ' '
  bool alternate = false;
  std::int64_t width = 0, precision = -1;
  std::string grouping;  ///< "," or "_"
  char type = '\0';
};

/// The number at `at`, which moves behind it. @throws what `raise` does for one that no width can be
std::int64_t digits(std::string_view text, std::size_t& at);
MarkedText integer_text(std::int64_t number, const Layout& layout);
MarkedText real_text(double number, const Layout& layout);
MarkedText string_text(const MarkedText& text, const Layout& layout);

}  // namespace steer::text::detail::jinja
