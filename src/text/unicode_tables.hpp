#pragma once
// Row types of unicode_tables.inc, and the tables.

#include <cstdint>

namespace steer::text::detail {

struct CodeRange {
  char32_t first, last;
};
struct Expansion {
  char32_t code;
  std::uint32_t begin;
};
struct ClassRange {
  char32_t first, last;
  std::uint8_t combining_class;
};
struct Composition {
  char32_t first, second, composite;
};

#include "text/unicode_tables.inc"

}  // namespace steer::text::detail
