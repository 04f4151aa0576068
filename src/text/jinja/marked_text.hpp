#pragma once
// A string that remembers which of its bytes came from a message: whatever a template does to a message's text (trim,
// slice, replace, join, upper case), its bytes stay marked, so that they never become special tokens and the span of
// each message in the result is known.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace steer::text::detail::jinja {

/// Bytes [begin, end) came from message `source`.
struct Mark {
  std::uint32_t begin, end;
  std::int32_t source;
};

/// Valid UTF-8. Marks are in order and do not overlap. No text grows beyond `longest`: a template cannot fill the
/// memory with one string.
class MarkedText {
 public:
  static constexpr std::size_t longest = std::size_t{16} << 20;
  static constexpr std::int32_t none = -1;  ///< the template's own text

  MarkedText() = default;
  explicit MarkedText(std::string_view bytes, std::int32_t source = none) { append(bytes, source); }

  std::string_view bytes() const { return bytes_; }
  std::size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  const std::vector<Mark>& marks() const { return marks_; }
  std::int32_t source_at(std::size_t at) const;

  /// @throws TemplateFailure beyond `longest`, in all of these.
  void append(std::string_view bytes, std::int32_t source = none);
  void append(const MarkedText& other) { append(other, 0, other.size()); }
  void append(const MarkedText& other, std::size_t begin, std::size_t end);
  MarkedText slice(std::size_t begin, std::size_t end) const {
    MarkedText out;
    out.append(*this, begin, end);
    return out;
  }
  void reserve(std::size_t size) { bytes_.reserve(size < longest ? size : longest); }

 private:
  void grow(std::size_t by) const;
  void mark(std::size_t begin, std::size_t end, std::int32_t source);

  std::string bytes_;
  std::vector<Mark> marks_;
};

}  // namespace steer::text::detail::jinja
