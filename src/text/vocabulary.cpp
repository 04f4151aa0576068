#include "text/vocabulary.hpp"

#include <xxhash.h>

#include <bit>

namespace steer::text::detail {

void Vocabulary::set(std::int32_t id, std::string_view piece, PieceKind kind) {
  const auto at = static_cast<std::size_t>(id);
  if (at >= entries_.size()) entries_.resize(at + 1);
  Entry& entry = entries_[at];
  entry.begin = text_.size();
  entry.length = static_cast<std::uint32_t>(piece.size());
  entry.kind = kind;
  entry.used = true;
  text_ += piece;
}

void Vocabulary::build_index() {
  slots_.assign(std::bit_ceil(entries_.size() * 2 + 2), none);
  const std::size_t mask = slots_.size() - 1;
  for (std::int32_t id = 0; id < size(); ++id) {
    if (!used(id)) continue;
    const std::string_view text = piece(id);
    std::size_t slot = XXH3_64bits(text.data(), text.size()) & mask;
    while (slots_[slot] != none && piece(slots_[slot]) != text) slot = (slot + 1) & mask;
    if (slots_[slot] == none) slots_[slot] = id;
  }
}

std::int32_t Vocabulary::find(std::string_view text) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t slot = XXH3_64bits(text.data(), text.size()) & mask;
  while (slots_[slot] != none && piece(slots_[slot]) != text) slot = (slot + 1) & mask;
  return slots_[slot];
}

int byte_of_piece(std::string_view piece) noexcept {
  if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || piece[5] != '>') return -1;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
  };
  const int high = digit(piece[3]), low = digit(piece[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace steer::text::detail
