#pragma once
// ASCII letters, whatever the process's locale says of other bytes.

#include <algorithm>
#include <string>
#include <string_view>

namespace steer {

inline char ascii_lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

inline std::string ascii_lower(std::string_view text) {
  std::string copy(text);
  for (char& c : copy) c = ascii_lower(c);
  return copy;
}

/// Equal but for the case of ASCII letters.
inline bool ascii_alike(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](char x, char y) { return ascii_lower(x) == ascii_lower(y); });
}

}  // namespace steer
