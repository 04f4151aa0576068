#pragma once
// Attention on the CPU, f32, over keys and values in blocks of f32 or of 16 bits. A row's result depends on that row
// and its keys alone, so its bits are the same in any batch and in pieces of any length.

#include <cstdint>
#include <span>

#include <steer/model/session.hpp>

#include "model/cpu_attention_loops.hpp"

namespace steer::model::detail::cpu {

/// Attention of consecutive queries of one sequence over its cache.
struct AttentionArgs {
  const float* q = nullptr;           ///< [queries, n_heads * d_head], rotated
  float* z = nullptr;                 ///< [queries, n_heads * d_head]
  float* pattern = nullptr;           ///< instead of z: the weights of the keys, [n_heads, queries, position + queries]
  std::span<const BlockView> blocks;  ///< of the sequence, from position 0
  CacheFormat format = CacheFormat::f32;   ///< of the blocks
  std::int64_t queries = 0, position = 0;  ///< position of the first query, whose keys end there
  std::int64_t n_heads = 0, n_kv_heads = 0, d_head = 0;
  std::int64_t window = 0;
  float scale = 1, soft_cap = 0;
  const float* sinks = nullptr;  ///< [n_heads] or null: one more logit each, of nothing
};

void attend(std::span<const AttentionArgs> runs);

/// Stores rows [rows, kv_heads * d_head] of keys and values at positions `position` and following.
void store_kv(std::span<const BlockView> blocks, CacheFormat format, const float* k, const float* v, std::int64_t rows,
              std::int64_t position, std::int64_t n_kv_heads, std::int64_t d_head);

}  // namespace steer::model::detail::cpu
