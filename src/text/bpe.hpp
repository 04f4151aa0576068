#pragma once
// Byte pair encoding: joins the symbols of a piece, pair by pair, in the order of the merge table
// (Sennrich, Haddow and Birch 2016). Tie rules and corner cases follow Hugging Face's tokenizers (models/bpe).

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/vocabulary.hpp"

namespace steer::text::detail {

/// A token of a piece: bytes [begin, end) of it.
struct BpeToken {
  std::int32_t id;
  std::uint32_t begin, end;
};

struct BpeRules {
  bool byte_level = false;     ///< symbols are bytes, spelled in GPT-2's alphabet; else characters
  bool byte_fallback = false;  ///< an unknown character becomes its bytes' pieces <0xXX>
  bool fuse_unknown = false;   ///< neighbouring unknown characters become one unknown token
  bool ignore_merges = false;  ///< a piece that is in the vocabulary is that token, whatever the merges say
  std::int32_t unknown = Vocabulary::none;
};

/// Build with `add_merge`, then `finish`; after that only `encode`, from any number of threads.
class Bpe {
 public:
  /// Joins `left` and `right` into `result`; lower ranks first, equal ranks from the left. A repeated pair replaces.
  void add_merge(std::int32_t left, std::int32_t right, std::int32_t rank, std::int32_t result);
  void reserve_merges(std::size_t count);
  /// A symbol for a character that only longer pieces spell; where it stays alone, its bytes or the unknown token
  /// are written. The n-th such symbol (from 0) has the id `vocabulary.size() + n` in `add_merge`.
  void add_character(std::string_view character) { extra_characters_.emplace_back(character); }
  /// Takes what encoding needs from the vocabulary (special, control and unknown pieces are never matched).
  void finish(const Vocabulary& vocabulary, BpeRules rules);

  struct Scratch;
  /// The tokens of a piece of valid UTF-8 (byte_level: any bytes), appended to `out`. O(n log n).
  void encode(std::string_view piece, Scratch& scratch, std::vector<BpeToken>& out) const;

 private:
  struct Merge {
    std::uint64_t pair = empty_pair;
    std::int32_t rank = 0;
    std::int32_t result = 0;
  };
  static constexpr std::uint64_t empty_pair = ~std::uint64_t{0};
  static std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
  }
  const Merge* find_merge(std::int32_t left, std::int32_t right) const;
  std::size_t slot_of(std::uint64_t pair) const;
  void grow(std::size_t slots);
  void find_word_breaks(const Vocabulary& vocabulary);

  void encode_word(std::string_view word, std::uint32_t offset, Scratch& scratch, std::vector<BpeToken>& out) const;
  void start_symbols(std::string_view word, Scratch& scratch) const;
  std::int32_t symbol_of(char32_t code) const;
  void merge_few(Scratch& scratch) const;
  void merge_many(Scratch& scratch) const;
  void emit(std::string_view word, std::uint32_t offset, const Scratch& scratch, std::vector<BpeToken>& out) const;

  BpeRules rules_;
  std::vector<Merge> merges_;  // open addressing, a power of two of slots
  std::size_t merge_count_ = 0;

  Vocabulary whole_;  // pieces by the bytes they stand for: what a whole word may be
  // Whether merging a piece's own symbols gives the piece back: 0 not known yet, 1 yes, 2 no.
  mutable std::unique_ptr<std::atomic<std::uint8_t>[]> reachable_;

  std::int32_t byte_symbols_[256];                          // byte_level: each byte; else the pieces <0xXX>
  bool all_bytes_ = false;                                  // every byte has a piece
  std::vector<std::int32_t> plane_symbols_;                 // characters of the basic plane
  std::unordered_map<char32_t, std::int32_t> far_symbols_;  // the others
  std::vector<std::string> extra_characters_;               // spelled by ids from first_extra_ on
  std::int32_t first_extra_ = 0;

  // No piece holds U+2581 behind any other character than these and itself: elsewhere words may be cut before it.
  bool cut_words_ = false;
  std::vector<char32_t> joined_before_mark_;
};

struct Bpe::Scratch {
  struct Symbol {
    std::int32_t id;
    std::uint32_t begin, end;
    std::int32_t previous, next;  // merge_many: neighbours, -1 at the ends; id -1 once joined to the left
  };
  struct Candidate {
    std::uint64_t order;  // rank, then position
    std::int32_t result;
  };
  std::vector<Symbol> symbols;
  std::vector<const Merge*> pairs;
  std::vector<Candidate> heap;
};

}  // namespace steer::text::detail
