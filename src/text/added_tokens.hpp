#pragma once
// Tokens that are found in the text itself before any other rule applies: special tokens and those a user added.

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace steer::text::detail {

struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool special = false;      ///< control meaning: not parsed from untrusted text
  bool single_word = false;  ///< only where no word character touches it
  bool lstrip = false;       ///< takes the white space before it
  bool rstrip = false;       ///< takes the white space after it
};

/// Finds added tokens, leftmost and longest first. Immutable after `build`.
class AddedTokens {
 public:
  void add(AddedToken token) { tokens_.push_back(std::move(token)); }
  void build();
  bool empty() const { return tokens_.empty(); }

  /// A stretch of the text: an added token, or (token null) text between them.
  struct Part {
    const AddedToken* token;
    std::size_t begin, end;
  };
  using Untrusted = std::span<const std::pair<std::int64_t, std::int64_t>>;
  /// Cuts `text` (valid UTF-8) into parts, none of them empty, appended to `parts`. Tokens marked special stay text
  /// unless `parse_special`, and where they touch a byte of `untrusted` (ranges in order). Semantics of
  /// added_vocabulary.rs of Hugging Face's tokenizers (`find_matches`).
  void split(std::string_view text, bool parse_special, Untrusted untrusted, std::vector<Part>& parts) const;

 private:
  const AddedToken* longest_at(std::string_view text, std::size_t at, std::size_t special_end) const;

  std::vector<AddedToken> tokens_;  ///< sorted by content
  struct Range {
    std::uint32_t begin = 0, end = 0;
  };
  std::array<Range, 256> by_first_byte_{};
};

}  // namespace steer::text::detail
