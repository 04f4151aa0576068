#include "text/unicode.hpp"

#include <algorithm>
#include <iterator>

#include "text/unicode_tables.hpp"

namespace steer::text::detail {

bool is_word(char32_t code) noexcept {
  if (code < 0x80)
    return (code >= 'a' && code <= 'z') || (code >= 'A' && code <= 'Z') || (code >= '0' && code <= '9') || code == '_';
  const auto* range = std::upper_bound(std::begin(word_ranges), std::end(word_ranges), code,
                                       [](char32_t c, const CodeRange& r) { return c < r.first; });
  return range != std::begin(word_ranges) && code <= range[-1].last;
}

}  // namespace steer::text::detail
