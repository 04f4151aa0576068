#pragma once
// The pieces of a tokenizer: id to spelling and back.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace steer::text::detail {

/// What a piece is, by the classes of sentencepiece (and GGUF's token types, which are the same).
enum class PieceKind : std::uint8_t { normal, unknown, control, user_defined, unused, byte };

/// Spellings by id and ids by spelling. Spellings lie in one block, the index is an open-addressing table of ids.
/// Built once, then only read (from any number of threads).
class Vocabulary {
 public:
  static constexpr std::int32_t none = -1;

  /// Sets the spelling of an id; ids may come in any order, gaps are allowed. A second spelling replaces the first.
  void set(std::int32_t id, std::string_view piece, PieceKind kind = PieceKind::normal);
  void set_kind(std::int32_t id, PieceKind kind) { entries_[static_cast<std::size_t>(id)].kind = kind; }
  void set_special(std::int32_t id) { entries_[static_cast<std::size_t>(id)].special = true; }
  /// Call once after the last `set`. Where spellings repeat, the smallest id is found.
  void build_index();

  std::int32_t size() const { return static_cast<std::int32_t>(entries_.size()); }
  bool contains(std::int64_t id) const { return id >= 0 && id < size(); }
  std::string_view piece(std::int32_t id) const {
    const Entry& entry = entries_[static_cast<std::size_t>(id)];
    return std::string_view(text_).substr(entry.begin, entry.length);
  }
  PieceKind kind(std::int32_t id) const { return entries_[static_cast<std::size_t>(id)].kind; }
  bool special(std::int32_t id) const { return entries_[static_cast<std::size_t>(id)].special; }
  /// False for an id in a gap: no piece has it.
  bool used(std::int32_t id) const { return entries_[static_cast<std::size_t>(id)].used; }
  /// The id of a spelling, or `none`.
  std::int32_t find(std::string_view piece) const;

 private:
  struct Entry {
    std::size_t begin = 0;
    std::uint32_t length = 0;
    PieceKind kind = PieceKind::normal;
    bool special = false;
    bool used = false;
  };
  std::string text_;
  std::vector<Entry> entries_;
  std::vector<std::int32_t> slots_;
};

/// The byte a piece of the form <0xXX> stands for, or -1.
int byte_of_piece(std::string_view piece) noexcept;

}  // namespace steer::text::detail
