#pragma once
// A text on its way through the rules, with (on request) the bytes of the source each of its bytes came from.

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace steer::text::detail {

struct ByteRange {
  std::uint32_t begin = 0, end = 0;
};

/// While no rule has changed anything, `text` is the source itself and there is no map.
class MappedText {
 public:
  /// Starts with the part of the source that begins at `offset`. With `tracked`, changes record where they came from.
  void reset(std::string_view source, std::uint32_t offset, bool tracked) {
    text_ = source;
    offset_ = offset;
    tracked_ = tracked;
    own_ = false;
  }
  std::string_view text() const { return text_; }
  /// Bytes of the source that text bytes [begin, end) came from.
  ByteRange source(std::uint32_t begin, std::uint32_t end) const {
    if (!own_) return {offset_ + begin, offset_ + end};
    if (begin == end) return begin < map_.size() ? ByteRange{map_[begin].begin, map_[begin].begin} : ByteRange{};
    ByteRange range = map_[begin];
    for (std::uint32_t i = begin + 1; i < end; ++i) {
      range.begin = std::min(range.begin, map_[i].begin);
      range.end = std::max(range.end, map_[i].end);
    }
    return range;
  }

  /// Begins a new version of the text, to be made by `keep` and `write` in order, then `commit`.
  void begin_rewrite() {
    next_.clear();
    next_map_.clear();
  }
  /// Text bytes [begin, end) as they are.
  void keep(std::size_t begin, std::size_t end) {
    next_ += text_.substr(begin, end - begin);
    if (!tracked_) return;
    for (std::size_t i = begin; i < end; ++i)
      next_map_.push_back(source(static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i + 1)));
  }
  /// `bytes` in place of text bytes [begin, end); begin == end inserts.
  void write(std::size_t begin, std::size_t end, std::string_view bytes) {
    next_ += bytes;
    if (!tracked_) return;
    const ByteRange from = source(static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(end));
    next_map_.insert(next_map_.end(), bytes.size(), from);
  }
  void commit() {
    current_.swap(next_);
    map_.swap(next_map_);
    text_ = current_;
    own_ = true;
  }

 private:
  std::string_view text_;
  std::uint32_t offset_ = 0;
  bool tracked_ = false, own_ = false;
  std::string current_, next_;
  std::vector<ByteRange> map_, next_map_;
};

}  // namespace steer::text::detail
