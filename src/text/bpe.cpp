#include "text/bpe.hpp"

#include <algorithm>
#include <bit>
#include <functional>

#include "text/space_mark.hpp"
#include "text/text_decoder.hpp"
#include "text/utf8.hpp"

namespace steer::text::detail {
namespace {

// Above this many symbols the heap beats scanning for the smallest rank.
constexpr std::size_t few_symbols = 48;
// Where more characters than this precede the mark inside pieces, looking each up costs more than cutting saves.
constexpr std::size_t most_joined_characters = 64;

// The bytes a piece of a byte-level vocabulary stands for; false if a character lies outside the alphabet.
bool alphabet_bytes(std::string_view piece, std::string& out) {
  out.clear();
  for (std::size_t at = 0; at < piece.size();) {
    const Utf8Step step = utf8_step(piece, at);
    const int byte = step.valid ? byte_of_alphabet(step.code) : -1;
    if (byte < 0) return false;
    out += static_cast<char>(byte);
    at += step.length;
  }
  return true;
}

}  // namespace

std::size_t Bpe::slot_of(std::uint64_t pair) const {
  const std::size_t mask = merges_.size() - 1;
  std::size_t slot = (pair * 0x9E3779B97F4A7C15ull) >> (64 - std::countr_zero(merges_.size()));
  while (merges_[slot].pair != pair && merges_[slot].pair != empty_pair) slot = (slot + 1) & mask;
  return slot;
}

void Bpe::grow(std::size_t slots) {
  std::vector<Merge> old(slots);
  old.swap(merges_);
  for (const Merge& merge : old)
    if (merge.pair != empty_pair) merges_[slot_of(merge.pair)] = merge;
}

void Bpe::reserve_merges(std::size_t count) {
  const std::size_t slots = std::bit_ceil(std::max<std::size_t>(16, count * 2));
  if (slots > merges_.size()) grow(slots);
}

void Bpe::add_merge(std::int32_t left, std::int32_t right, std::int32_t rank, std::int32_t result) {
  reserve_merges(merge_count_ + 1);
  Merge& merge = merges_[slot_of(pair_of(left, right))];
  if (merge.pair == empty_pair) ++merge_count_;
  merge = {pair_of(left, right), rank, result};
}

const Bpe::Merge* Bpe::find_merge(std::int32_t left, std::int32_t right) const {
  const Merge& merge = merges_[slot_of(pair_of(left, right))];
  return merge.pair == empty_pair ? nullptr : &merge;
}

std::int32_t Bpe::symbol_of(char32_t code) const {
  if (code < plane_symbols_.size()) return plane_symbols_[code];
  const auto found = far_symbols_.find(code);
  return found == far_symbols_.end() ? Vocabulary::none : found->second;
}

void Bpe::finish(const Vocabulary& vocabulary, BpeRules rules) {
  rules_ = rules;
  reserve_merges(1);
  const auto matchable = [&](std::int32_t id) {
    const PieceKind kind = vocabulary.kind(id);
    return vocabulary.used(id) && !vocabulary.special(id) && kind != PieceKind::control && kind != PieceKind::unknown;
  };
  std::fill(std::begin(byte_symbols_), std::end(byte_symbols_), Vocabulary::none);
  if (rules.byte_level) {
    std::string bytes;
    for (std::int32_t id = 0; id < vocabulary.size(); ++id) {
      if (!matchable(id) || !alphabet_bytes(vocabulary.piece(id), bytes)) continue;
      whole_.set(id, bytes);
      if (bytes.size() == 1) byte_symbols_[static_cast<unsigned char>(bytes[0])] = id;
    }
  } else {
    plane_symbols_.assign(0x10000, Vocabulary::none);
    const auto add_symbol = [&](std::string_view character, std::int32_t id) {
      if (character.empty()) return;
      const Utf8Step step = utf8_step(character, 0);
      if (!step.valid || step.length != character.size()) return;
      if (step.code < 0x10000)
        plane_symbols_[step.code] = id;
      else
        far_symbols_[step.code] = id;
    };
    for (std::int32_t id = 0; id < vocabulary.size(); ++id) {
      if (!matchable(id)) continue;
      const std::string_view piece = vocabulary.piece(id);
      whole_.set(id, piece);
      add_symbol(piece, id);
      if (const int byte = byte_of_piece(piece); byte >= 0) byte_symbols_[byte] = id;
    }
    first_extra_ = vocabulary.size();
    for (std::size_t i = 0; i < extra_characters_.size(); ++i)
      add_symbol(extra_characters_[i], first_extra_ + static_cast<std::int32_t>(i));
  }
  all_bytes_ = std::count(std::begin(byte_symbols_), std::end(byte_symbols_), Vocabulary::none) == 0;
  whole_.build_index();
  reachable_ = std::make_unique<std::atomic<std::uint8_t>[]>(static_cast<std::size_t>(whole_.size()) + 1);
  if (!rules.byte_level) find_word_breaks(vocabulary);
}

// A cut between two symbols changes nothing if no piece spans it. For character vocabularies that is so before
// nearly every space mark, which turns one long merge into many short ones.
void Bpe::find_word_breaks(const Vocabulary& vocabulary) {
  if (symbol_of(0x2581) == Vocabulary::none) return;
  for (std::int32_t id = 0; id < vocabulary.size(); ++id) {
    const std::string_view piece = whole_.contains(id) ? whole_.piece(id) : std::string_view();
    for (std::size_t at = 1; (at = piece.find(space_mark, at)) != std::string_view::npos; ++at) {
      std::size_t before = at - 1;
      while (before > 0 && (static_cast<unsigned char>(piece[before]) & 0xC0) == 0x80) --before;
      joined_before_mark_.push_back(utf8_step(piece, before).code);
    }
  }
  std::sort(joined_before_mark_.begin(), joined_before_mark_.end());
  joined_before_mark_.erase(std::unique(joined_before_mark_.begin(), joined_before_mark_.end()),
                            joined_before_mark_.end());
  cut_words_ = joined_before_mark_.size() <= most_joined_characters;
}

void Bpe::encode(std::string_view piece, Scratch& scratch, std::vector<BpeToken>& out) const {
  if (!cut_words_ || rules_.ignore_merges) {
    encode_word(piece, 0, scratch, out);
    return;
  }
  std::size_t begin = 0;
  for (std::size_t at = 1; (at = piece.find(space_mark, at)) != std::string_view::npos; at += space_mark.size()) {
    std::size_t before = at - 1;
    while (before > 0 && (static_cast<unsigned char>(piece[before]) & 0xC0) == 0x80) --before;
    if (std::binary_search(joined_before_mark_.begin(), joined_before_mark_.end(), utf8_step(piece, before).code))
      continue;
    encode_word(piece.substr(begin, at - begin), static_cast<std::uint32_t>(begin), scratch, out);
    begin = at;
  }
  encode_word(piece.substr(begin), static_cast<std::uint32_t>(begin), scratch, out);
}

void Bpe::encode_word(std::string_view word, std::uint32_t offset, Scratch& scratch, std::vector<BpeToken>& out) const {
  const std::int32_t whole = whole_.find(word);
  const auto end = offset + static_cast<std::uint32_t>(word.size());
  if (whole != Vocabulary::none) {
    if (rules_.ignore_merges || reachable_[static_cast<std::size_t>(whole)].load(std::memory_order_relaxed) == 1) {
      out.push_back({whole, offset, end});
      return;
    }
  }
  start_symbols(word, scratch);
  if (scratch.symbols.size() > 1) {
    if (scratch.symbols.size() <= few_symbols)
      merge_few(scratch);
    else
      merge_many(scratch);
  }
  const std::size_t before = out.size();
  emit(word, offset, scratch, out);
  if (whole != Vocabulary::none) {
    const bool same = out.size() == before + 1 && out.back().id == whole;
    reachable_[static_cast<std::size_t>(whole)].store(same ? 1 : 2, std::memory_order_relaxed);
  }
}

void Bpe::start_symbols(std::string_view word, Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  symbols.clear();
  if (rules_.byte_level) {
    for (std::uint32_t at = 0; at < word.size(); ++at) {
      const std::int32_t id = byte_symbols_[static_cast<unsigned char>(word[at])];
      if (id != Vocabulary::none)
        symbols.push_back({id, at, at + 1, 0, 0});
      else if (rules_.unknown != Vocabulary::none)
        symbols.push_back({rules_.unknown, at, at + 1, 0, 0});
    }
    return;
  }
  bool unknown_open = false;  // the last symbol is an unknown one that may grow
  Scratch::Symbol unknown{};
  const auto close_unknown = [&] {
    if (unknown_open) symbols.push_back(unknown);
    unknown_open = false;
  };
  for (std::uint32_t at = 0; at < word.size();) {
    const Utf8Step step = utf8_step(word, at);
    const std::uint32_t end = at + step.length;
    const std::int32_t id = step.valid ? symbol_of(step.code) : Vocabulary::none;
    if (id != Vocabulary::none) {
      close_unknown();
      symbols.push_back({id, at, end, 0, 0});
    } else if (rules_.byte_fallback && all_bytes_) {
      for (std::uint32_t i = at; i < end; ++i)
        symbols.push_back({byte_symbols_[static_cast<unsigned char>(word[i])], i, i + 1, 0, 0});
    } else if (rules_.unknown != Vocabulary::none) {
      if (unknown_open && rules_.fuse_unknown) {
        unknown.end = end;
      } else {
        close_unknown();
        unknown = {rules_.unknown, at, end, 0, 0};
        unknown_open = true;
      }
    }
    at = end;
  }
  close_unknown();
}

// Scans for the smallest rank: quadratic, and fastest for the few symbols of a word.
void Bpe::merge_few(Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  auto& pairs = scratch.pairs;
  std::size_t count = symbols.size();
  pairs.resize(count);
  for (std::size_t i = 0; i + 1 < count; ++i) pairs[i] = find_merge(symbols[i].id, symbols[i + 1].id);
  while (count > 1) {
    std::size_t best = count;
    for (std::size_t i = 0; i + 1 < count; ++i)
      if (pairs[i] && (best == count || pairs[i]->rank < pairs[best]->rank)) best = i;
    if (best == count) break;
    symbols[best].id = pairs[best]->result;
    symbols[best].end = symbols[best + 1].end;
    std::copy(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 2,
              symbols.begin() + static_cast<std::ptrdiff_t>(count),
              symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    std::copy(pairs.begin() + static_cast<std::ptrdiff_t>(best) + 2, pairs.begin() + static_cast<std::ptrdiff_t>(count),
              pairs.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    --count;
    if (best + 1 < count) pairs[best] = find_merge(symbols[best].id, symbols[best + 1].id);
    if (best > 0) pairs[best - 1] = find_merge(symbols[best - 1].id, symbols[best].id);
  }
  symbols.resize(count);
}

// A heap of candidate pairs over a linked list of symbols: n log n for a piece of any length.
void Bpe::merge_many(Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  const auto later = [](const Scratch::Candidate& a, const Scratch::Candidate& b) { return a.order > b.order; };
  const auto candidate = [&](std::int32_t at, bool initial) {
    const auto& symbol = symbols[static_cast<std::size_t>(at)];
    if (symbol.next < 0) return;
    const Merge* merge = find_merge(symbol.id, symbols[static_cast<std::size_t>(symbol.next)].id);
    if (!merge) return;
    heap.push_back(
        {static_cast<std::uint64_t>(static_cast<std::uint32_t>(merge->rank)) << 32 | static_cast<std::uint32_t>(at),
         merge->result});
    if (!initial) std::push_heap(heap.begin(), heap.end(), later);
  };
  heap.clear();
  const auto count = static_cast<std::int32_t>(symbols.size());
  for (std::int32_t i = 0; i < count; ++i) {
    symbols[static_cast<std::size_t>(i)].previous = i - 1;
    symbols[static_cast<std::size_t>(i)].next = i + 1 < count ? i + 1 : -1;
  }
  for (std::int32_t i = 0; i < count; ++i) candidate(i, true);
  std::make_heap(heap.begin(), heap.end(), later);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Scratch::Candidate best = heap.back();
    heap.pop_back();
    const auto at = static_cast<std::int32_t>(best.order & 0xFFFFFFFF);
    auto& left = symbols[static_cast<std::size_t>(at)];
    if (left.id < 0 || left.next < 0) continue;
    auto& right = symbols[static_cast<std::size_t>(left.next)];
    // The pair may have changed since it was put on the heap.
    const Merge* merge = find_merge(left.id, right.id);
    if (!merge || merge->result != best.result) continue;
    left.id = merge->result;
    left.end = right.end;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[static_cast<std::size_t>(left.next)].previous = at;
    if (left.previous >= 0) candidate(left.previous, false);
    candidate(at, false);
  }
  std::erase_if(symbols, [](const Scratch::Symbol& symbol) { return symbol.id < 0; });
}

void Bpe::emit(std::string_view word, std::uint32_t offset, const Scratch& scratch, std::vector<BpeToken>& out) const {
  for (const auto& symbol : scratch.symbols) {
    if (rules_.byte_level || symbol.id < first_extra_) {
      out.push_back({symbol.id, offset + symbol.begin, offset + symbol.end});
      continue;
    }
    // A character that is no piece by itself.
    for (std::uint32_t i = symbol.begin; i < symbol.end; ++i) {
      const std::int32_t byte = byte_symbols_[static_cast<unsigned char>(word[i])];
      const std::int32_t id = rules_.byte_fallback && all_bytes_ ? byte : rules_.unknown;
      if (id != Vocabulary::none) out.push_back({id, offset + i, offset + i + 1});
    }
  }
}

}  // namespace steer::text::detail
