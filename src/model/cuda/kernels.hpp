#pragma once
// The card's kernels, by raw pointers: memory on the device, f32 unless a type says otherwise, rows contiguous. All run
// on the stream given (a cudaStream_t), return at once, and give a row the same bits in any batch: no sum's order
// depends on how many rows there are. Errors stay with the stream (`check_launch`).

// No header of libtorch is seen by nvcc, so the enums here are the card's own.

#include <cstddef>
#include <cstdint>
#include <span>

#include "model/kernels/table.hpp"

namespace steer::model::detail::cuda {

using Stream = void*;
enum class Activation : std::uint8_t { silu, gelu, gelu_tanh, relu };
enum class CacheType : std::uint8_t { f32, bf16, f16 };

/// out = x / rms(x), or with `centred` (x - mean) / sqrt(var + eps), times gain when not null, plus bias when not null;
/// may be in place. With `added` not null, first x += added.
void norm(Stream stream, float* out, float* x, const float* added, const float* gain, const float* bias,
          std::int64_t rows, std::int64_t width, float eps, bool centred);
/// x = x * gain + bias; bias may be null.
void multiply_add_rows(Stream stream, float* x, const float* gain, const float* bias, std::int64_t rows,
                       std::int64_t width);
/// x *= factor, then with cap > 0 cap * tanh(x / cap).
void scale(Stream stream, float* x, std::int64_t n, float factor, float cap);
/// x += y.
void add(Stream stream, float* x, const float* y, std::int64_t n);
/// gate = act(gate) * up; up may be null. With limit > 0 the clamped gate of gpt-oss.
void activate(Stream stream, float* gate, const float* up, std::int64_t n, Activation kind, float limit);
/// x *= sigmoid(by).
void gate(Stream stream, float* x, const float* by, std::int64_t n);
/// Row r of x *= factors[r].
void scale_rows(Stream stream, float* x, const float* factors, std::int64_t rows, std::int64_t width);
/// Turns the first 2 * half dimensions of every head; i pairs with i + half. cos, sin [rows, half].
void rotate(Stream stream, float* x, const float* cos, const float* sin, std::int64_t rows, std::int64_t heads,
            std::int64_t d_head, std::int64_t half);

/// Tokens of a block of the cache: keys [kv_heads, d_head, kBlock], values [kv_heads, kBlock, d_head].
inline constexpr std::int64_t kBlock = 32;
struct CacheBlock {
  void* k;
  void* v;
};
/// Where one row's keys and values go. Lies on the device.
struct CacheSlot {
  CacheBlock block;
  std::int64_t slot;  ///< within the block
};
/// What `store` turns as `rotate` does.
struct Rotation {
  const float *cos, *sin;  ///< [rows, half]; null: nothing is turned
  float* q;                ///< [rows, heads * d_head], in place; null: keys only
  std::int64_t heads, half;
};
/// k, v [rows, kv_heads * d_head] into their slots, keys turned on the way.
void store(Stream stream, const CacheSlot* slots, const float* k, const float* v, const Rotation& rotation,
           std::int64_t rows, std::int64_t kv_heads, std::int64_t d_head, CacheType format);

/// Consecutive queries of one sequence. Lies on the device.
struct AttentionRun {
  std::int64_t first_row;  ///< of q
  std::int64_t queries;
  std::int64_t position;     ///< of the first query, whose keys end there
  std::int64_t first_block;  ///< of `Attention::blocks`
};
/// Rows of one block of threads: pairs of a query and a head of one group, numbered query * group + head.
struct AttentionTile {
  std::int64_t run, first_pair;
};
inline constexpr std::int64_t kTilePairs = 16;
/// Keys that are summed apart and then joined in order, in one block of threads or in several: a fixed number, so that
/// a row's bits do not depend on which. So few that a decoded token of 2,000 keys and 8 key-value heads is 128 blocks.
inline constexpr std::int64_t kSplitKeys = 128;

struct Attention {
  const float* q = nullptr;            ///< [rows, heads * d_head], rotated
  float* z = nullptr;                  ///< [rows, heads * d_head]
  const CacheBlock* blocks = nullptr;  ///< of all runs
  const AttentionRun* runs = nullptr;
  const AttentionTile* tiles = nullptr;
  std::int64_t tile_count = 0, rows = 0;
  std::int64_t splits = 1;   ///< of the longest run
  float* partial = nullptr;  ///< [rows, heads, splits, d_head + 2]; null: one block does all splits
  std::int64_t heads = 0, kv_heads = 0, d_head = 0, window = 0;
  float scale = 1, soft_cap = 0;
  const float* sinks = nullptr;  ///< [heads] or null
  CacheType format = CacheType::f32;
};
void attend(Stream stream, const Attention& attention);

/// A weight [n, k] and where its product goes.
struct Multiplied {
  WeightView weight;
  const float* bias;  ///< [n] or null
  float* y;           ///< [rows, n]
};
/// Of one type, in one launch.
inline constexpr std::size_t kMultipliedTogether = 4;
/// y[i, j] = x[i, :] . W[j, :] + bias[j] for weights of one k, widened in registers, activations not rounded.
void multiply(Stream stream, std::span<const Multiplied> weights, const float* x, std::int64_t rows);
/// A token on its way into a model. Lies on the device.
struct Embedded {
  std::int64_t id, position;
};
/// Row r of out = row `tokens[r].id` of W, times `factor`, plus row `tokens[r].position` of `learned` when not null.
void embed(Stream stream, const WeightView& weight, const Embedded* tokens, std::int64_t rows, float factor,
           const float* learned, float* out);
/// All of W [n, k] as bf16 or f32.
void widen_to_bf16(Stream stream, const WeightView& weight, std::uint16_t* out);
void widen_to_f32(Stream stream, const WeightView& weight, float* out);

}  // namespace steer::model::detail::cuda
