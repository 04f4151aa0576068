#pragma once
// How sentencepiece writes a space inside a piece, and the change of one for the other.

#include <string>
#include <string_view>

namespace steer::text::detail {

inline constexpr std::string_view space_mark = "\xE2\x96\x81";  // U+2581

/// Appends `text` with every `from` replaced; an empty `from` replaces nothing.
inline void append_replaced(std::string& out, std::string_view text, std::string_view from, std::string_view to) {
  if (from.empty()) {
    out += text;
    return;
  }
  for (;;) {
    const std::size_t found = text.find(from);
    out += text.substr(0, found);
    if (found == std::string_view::npos) return;
    out += to;
    text.remove_prefix(found + from.size());
  }
}

}  // namespace steer::text::detail
