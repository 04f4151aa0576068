#pragma once

#include <cstddef>
#include <string_view>

namespace steer::io::detail {

/// Follows JSON's brackets, those within strings aside, from byte `begin` on. After each one calls stop(level, opened)
/// with the levels that are open then. @return the place of the bracket at which `stop` said true, or npos.
template <class Stop>
std::size_t walk_levels(std::string_view text, std::size_t begin, Stop stop) {
  std::size_t level = 0;
  bool quoted = false;
  for (std::size_t i = begin; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      if (stop(++level, true)) return i;
    } else if ((c == ']' || c == '}') && level > 0) {
      if (stop(--level, false)) return i;
    }
  }
  return std::string_view::npos;
}

}  // namespace steer::io::detail
