#pragma once
// The elementwise and attention loops of a forward pass for the CPU, f32. Plain C++ that the compiler vectorises, built
// once for each instruction set; the loader of the program picks one (function multiversioning). Every row's result
// depends on that row alone, so its bits are the same in any batch.

#include <cstdint>
#include <span>

#include <steer/model/session.hpp>

namespace steer::model::detail::cpu {

/// out = x / rms(x), times gain when not null. Rows [rows, width].
void rms_norm(float* out, const float* x, const float* gain, std::int64_t rows, std::int64_t width, float eps);
/// out = (x - mean) / sqrt(var + eps), times gain plus bias when not null.
void layer_norm(float* out, const float* x, const float* gain, const float* bias, std::int64_t rows, std::int64_t width,
                float eps);
void multiply_add_rows(float* x, const float* gain, const float* bias, std::int64_t rows, std::int64_t width);
/// x += y.
void add(float* x, const float* y, std::int64_t n);
/// out = act(gate) * up; up may be null.
void activate(float* out, const float* gate, const float* up, std::int64_t n, ActivationKind kind);
void soft_cap(float* x, std::int64_t n, float cap);
void rotate(float* x, const float* cos, const float* sin, std::int64_t rows, std::int64_t heads, std::int64_t d_head,
            std::int64_t half);
/// True when no element is infinite or not a number.
bool all_finite(const float* x, std::int64_t n);
bool all_finite_16(const std::uint16_t* x, std::int64_t n, std::uint16_t exponent_mask);

/// Tokens in one block of the key-value cache.
inline constexpr std::int64_t kBlock = 32;

/// One block's memory: keys [kv_heads, d_head, kBlock], so that scores of consecutive tokens are computed side by side,
/// values [kv_heads, kBlock, d_head].
struct BlockView {
  void* k;
  void* v;
};

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
