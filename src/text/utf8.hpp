#pragma once
// UTF-8 by the rules of Unicode 15, section 3.9: a malformed sequence is replaced by one U+FFFD for each maximal
// subpart (what Rust's from_utf8_lossy and Python's "replace" do).

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace steer::text::detail {

inline constexpr std::string_view replacement_character = "\xEF\xBF\xBD";

/// One code point, or one maximal subpart of a malformed sequence (`valid` false, code U+FFFD, length 1 to 3).
struct Utf8Step {
  char32_t code;
  std::uint8_t length;
  bool valid;
  bool truncated;  ///< malformed only because the text ends: more bytes could complete it
};

/// The step at `at`, which must lie before the end.
Utf8Step utf8_step(std::string_view text, std::size_t at) noexcept;
bool utf8_valid(std::string_view text) noexcept;
void utf8_append(std::string& out, char32_t code);
/// Appends `text` with every malformed part replaced.
void utf8_append_lossy(std::string& out, std::string_view text);
/// Bytes at the end of `text` that begin a sequence which later bytes may complete.
std::size_t utf8_incomplete_tail(std::string_view text) noexcept;

/// Length of the sequence that a valid text's lead byte begins.
inline std::size_t utf8_length(char lead) noexcept {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

}  // namespace steer::text::detail
