#pragma once
// The two products of attention, q k and p v, built for each instruction set (core/isa.hpp).

#include <cstdint>

namespace steer::model::detail::cpu {

/// Tokens in one block of the key-value cache.
inline constexpr std::int64_t kBlock = 32;

/// One block's memory: keys [kv_heads, d_head, kBlock], so that scores of consecutive tokens are computed side by side,
/// values [kv_heads, kBlock, d_head]. Behind the values lie at least 15 more numbers.
struct BlockView {
  void* k;
  void* v;
};

/// A query and a head, which looks at keys [begin, end).
struct AttentionRow {
  const float* q;
  std::int64_t begin, end;
};

/// Rows that look at the keys and values of one head.
struct AttentionTile {
  const BlockView* blocks;  ///< of the sequence
  std::int64_t head;        ///< of the keys and values
  std::int64_t d_head;
  const AttentionRow* rows;
  std::int64_t count;
  std::int64_t origin;  ///< the block at which the scores start
  float* scores;        ///< [count, stride]
  std::int64_t stride;
  float* out;           ///< [count, padded]
  std::int64_t padded;  ///< d_head, as a multiple of 16
  float scale;
};

struct AttentionLoops {
  /// By CacheFormat. scores = scale * q . k for the keys of blocks [first, last), those of a row's own blocks at least.
  void (*score[3])(const AttentionTile&, std::int64_t first, std::int64_t last);
  /// By CacheFormat. out += scores . v over the keys of each row in blocks [first, last), key after key.
  void (*mix[3])(const AttentionTile&, std::int64_t first, std::int64_t last);
};

const AttentionLoops& attention_loops();

}  // namespace steer::model::detail::cpu
