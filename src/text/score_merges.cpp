#include "text/score_merges.hpp"

#include <algorithm>
#include <map>
#include <numeric>

#include "text/utf8.hpp"

namespace steer::text::detail {

void add_score_merges(const Vocabulary& vocabulary, std::span<const float> scores, Bpe& out) {
  const auto size = static_cast<std::size_t>(vocabulary.size());
  std::vector<std::int32_t> order(size), rank(size);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)];
  });
  for (std::size_t i = 1; i < size; ++i) {
    const auto at = static_cast<std::size_t>(order[i]), before = static_cast<std::size_t>(order[i - 1]);
    rank[at] = rank[before] + (scores[at] < scores[before] ? 1 : 0);
  }
  const auto joins = [&](std::int32_t id) {
    const PieceKind kind = vocabulary.kind(id);
    return kind != PieceKind::control && kind != PieceKind::unknown && kind != PieceKind::byte &&
           !vocabulary.piece(id).empty();
  };
  // Symbols: pieces, and characters that only occur inside pieces.
  std::map<std::string, std::int32_t, std::less<>> characters;
  const auto symbol = [&](std::string_view text) -> std::int32_t {
    const std::int32_t id = vocabulary.find(text);
    if (id != Vocabulary::none && joins(id)) return id;
    const Utf8Step step = utf8_step(text, 0);
    if (!step.valid || step.length != text.size()) return Vocabulary::none;
    const auto [entry, added] =
        characters.try_emplace(std::string(text), vocabulary.size() + static_cast<std::int32_t>(characters.size()));
    if (added) out.add_character(text);
    return entry->second;
  };
  out.reserve_merges(2 * size);
  for (std::int32_t id = 0; id < vocabulary.size(); ++id) {
    const std::string_view piece = vocabulary.piece(id);
    // Very long pieces would make this quadratic; sentencepiece itself allows 16 characters, Gemma has runs of 31.
    if (!joins(id) || !utf8_valid(piece) || piece.size() > 1024) continue;
    for (std::size_t cut = utf8_length(piece[0]); cut < piece.size(); cut += utf8_length(piece[cut])) {
      const std::int32_t left = symbol(piece.substr(0, cut));
      if (left == Vocabulary::none) continue;
      const std::int32_t right = symbol(piece.substr(cut));
      if (right != Vocabulary::none) out.add_merge(left, right, rank[static_cast<std::size_t>(id)], id);
    }
  }
}

}  // namespace steer::text::detail
