#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/crew.hpp"
#include "model/cpu_ops.hpp"
#include "model/vec16.hpp"

namespace steer::model::detail::cpu {
namespace {

constexpr std::int64_t kRows = 4;  // rows of one tile: they share every load of keys and values

/// Rows of one tile: pairs of a query and a head of one group, which read the same keys and values.
struct Tile {
  const AttentionArgs* run;
  std::int64_t kv_head;
  std::int64_t first_row, rows;  // row = query * group + head within the group
};

struct Row {
  const float* q;
  float* z;
  std::int64_t begin, end;  // keys [begin, end)
};

/// Bits of the two 16-bit formats; a type each, so that loops over blocks are written once.
struct Bf16 {
  std::uint16_t bits;
};
struct F16 {
  std::uint16_t bits;
};
using U16 = std::uint16_t __attribute__((vector_size(32), aligned(2), may_alias));
using U32 = std::uint32_t __attribute__((vector_size(64), aligned(4), may_alias));

STEER_INLINE V load_wide(const float* p) { return load(p); }
STEER_INLINE V load_wide(const Bf16* p) {
  return __builtin_bit_cast(V, __builtin_convertvector(*reinterpret_cast<const U16*>(p), U32) << 16);
}
STEER_INLINE V load_wide(const F16* p) {
  const U32 bits = __builtin_convertvector(*reinterpret_cast<const U16*>(p), U32);
  const U32 shifted = (bits & 0x7fff) << 13;
  // The exponent is 112 too small, in subnormals too; all ones stands for infinity or not a number.
  U32 value = __builtin_bit_cast(U32, __builtin_bit_cast(V, shifted) * 0x1p112f);
  value |= reinterpret_cast<U32>(shifted >= 0x0f800000) & 0x7f800000;
  return __builtin_bit_cast(V, value | (bits & 0x8000) << 16);
}

void narrow_to(float* to, float x) { *to = x; }
void narrow_to(Bf16* to, float x) { to->bits = c10::detail::round_to_nearest_even(x); }
void narrow_to(F16* to, float x) {
  to->bits = c10::detail::fp16_ieee_from_fp32_value(std::clamp(x, -65504.f, 65504.f));  // keeps NaN
}

/// scores[r][t - first * kBlock] = scaled q . k for all tokens of blocks [first, last). All kRows rows are computed;
/// a tile with fewer repeats its first one, so that a row's bits do not depend on the tile it is in.
template <class T>
STEER_INLINE void score_as(const AttentionArgs& a, std::int64_t kv_head, const Row* rows, std::int64_t first,
                           std::int64_t last, float* scores, std::int64_t stride) {
  for (std::int64_t b = first; b < last; ++b) {
    const T* k = static_cast<const T*>(a.blocks[static_cast<std::size_t>(b)].k) + kv_head * a.d_head * kBlock;
    V acc[kRows][2];
    for (auto& row : acc) row[0] = row[1] = splat(0);
    for (std::int64_t d = 0; d < a.d_head; ++d, k += kBlock) {
      const V k0 = load_wide(k), k1 = load_wide(k + kLanes);
      for (int r = 0; r < kRows; ++r) {
        const float q = rows[r].q[d];
        acc[r][0] += k0 * q;
        acc[r][1] += k1 * q;
      }
    }
    for (int r = 0; r < kRows; ++r)
      for (int j = 0; j < 2; ++j) {
        V s = acc[r][j] * a.scale;
        if (a.soft_cap > 0) s = tanh(s / a.soft_cap) * a.soft_cap;
        store(scores + r * stride + (b - first) * kBlock + j * kLanes, s);
      }
  }
}

STEER_CLONES void score(const AttentionArgs& a, std::int64_t kv_head, const Row* rows, std::int64_t first,
                        std::int64_t last, float* scores, std::int64_t stride) {
  switch (a.format) {
    case CacheFormat::f32:
      return score_as<float>(a, kv_head, rows, first, last, scores, stride);
    case CacheFormat::bf16:
      return score_as<Bf16>(a, kv_head, rows, first, last, scores, stride);
    case CacheFormat::f16:
      return score_as<F16>(a, kv_head, rows, first, last, scores, stride);
  }
}

/// Softmax over keys [begin, end) of one row and over `sink`; all others become 0. `scores` starts at token `origin`.
/// @param sink  a logit that takes its share and gives nothing; minus infinity: none.
STEER_CLONES void softmax(float* scores, std::int64_t size, std::int64_t begin, std::int64_t end, float sink) {
  const float low = -std::numeric_limits<float>::infinity();
  for (std::int64_t t = 0; t < begin; ++t) scores[t] = low;
  for (std::int64_t t = end; t < size; ++t) scores[t] = low;
  V best = splat(low);
  for (std::int64_t t = 0; t < size; t += kLanes) best = max(load(scores + t), best);
  const float top = std::max(max(best), sink);
  // Lanes follow the token's place in its block, so masked tokens before or behind add exact zeros.
  V total = splat(0);
  for (std::int64_t t = 0; t < size; t += kLanes) {
    const V e = exp(load(scores + t) - top);
    total += e;
    store(scores + t, e);
  }
  const float inverse = 1 / (sum(total) + (sink > low ? std::exp(sink - top) : 0));
  for (std::int64_t t = 0; t < size; t += kLanes) store(scores + t, load(scores + t) * inverse);
}

/// out[r] += sum over tokens [from, to) of one block of p[r][t] v[t], in order of t. `rows` of kRows.
template <int N, class T>
STEER_INLINE void accumulate(const T* v, std::int64_t d_head, std::int64_t padded, const float* p, std::int64_t stride,
                             std::int64_t from, std::int64_t to, float* out) {
  for (std::int64_t d = 0; d < padded; d += kLanes) {
    V acc[N];
    for (int r = 0; r < N; ++r) acc[r] = load(out + r * padded + d);
    for (std::int64_t t = from; t < to; ++t) {
      const V value =
          load_wide(v + t * d_head + d);  // may read past the head: blocks are padded, those lanes are dropped
      for (int r = 0; r < N; ++r) acc[r] += value * p[r * stride + t];
    }
    for (int r = 0; r < N; ++r) store(out + r * padded + d, acc[r]);
  }
}

template <class T>
STEER_INLINE void mix_as(const AttentionArgs& a, std::int64_t kv_head, const Row* rows, std::int64_t count,
                         std::int64_t first, std::int64_t last, const float* scores, std::int64_t stride, float* out,
                         std::int64_t padded) {
  for (std::int64_t b = first; b < last; ++b) {
    const T* v = static_cast<const T*>(a.blocks[static_cast<std::size_t>(b)].v) + kv_head * a.d_head * kBlock;
    const float* p = scores + (b - first) * kBlock;
    bool whole = count == kRows;
    for (int r = 0; r < kRows && whole; ++r) whole = rows[r].begin <= b * kBlock && rows[r].end >= (b + 1) * kBlock;
    if (whole) {
      accumulate<kRows>(v, a.d_head, padded, p, stride, 0, kBlock, out);
      continue;
    }
    for (std::int64_t r = 0; r < count; ++r) {
      const auto from = std::max<std::int64_t>(rows[r].begin - b * kBlock, 0);
      const auto to = std::min<std::int64_t>(rows[r].end - b * kBlock, kBlock);
      if (from < to) accumulate<1>(v, a.d_head, padded, p + r * stride, stride, from, to, out + r * padded);
    }
  }
}

STEER_CLONES void mix(const AttentionArgs& a, std::int64_t kv_head, const Row* rows, std::int64_t count,
                      std::int64_t first, std::int64_t last, const float* scores, std::int64_t stride, float* out,
                      std::int64_t padded) {
  switch (a.format) {
    case CacheFormat::f32:
      return mix_as<float>(a, kv_head, rows, count, first, last, scores, stride, out, padded);
    case CacheFormat::bf16:
      return mix_as<Bf16>(a, kv_head, rows, count, first, last, scores, stride, out, padded);
    case CacheFormat::f16:
      return mix_as<F16>(a, kv_head, rows, count, first, last, scores, stride, out, padded);
  }
}

void compute(const Tile& tile, std::vector<float>& scratch) {
  const AttentionArgs& a = *tile.run;
  const std::int64_t group = a.n_heads / a.n_kv_heads, width = a.n_heads * a.d_head;
  Row rows[kRows];
  std::int64_t begin = std::numeric_limits<std::int64_t>::max(), end = 0;
  for (std::int64_t r = 0; r < kRows; ++r) {
    const std::int64_t row = tile.first_row + (r < tile.rows ? r : 0), query = row / group;
    const std::int64_t offset = query * width + (tile.kv_head * group + row % group) * a.d_head;
    const std::int64_t last = a.position + query + 1;
    rows[r] = {a.q + offset, a.z ? a.z + offset : nullptr,
               a.window > 0 ? std::max<std::int64_t>(last - a.window, 0) : 0, last};
    begin = std::min(begin, rows[r].begin);
    end = std::max(end, rows[r].end);
  }
  const std::int64_t first = begin / kBlock, last = (end + kBlock - 1) / kBlock, stride = (last - first) * kBlock;
  const std::int64_t padded = (a.d_head + kLanes - 1) / kLanes * kLanes;
  scratch.resize(static_cast<std::size_t>(kRows * (stride + padded)));
  float* scores = scratch.data();
  float* out = scores + kRows * stride;
  score(a, tile.kv_head, rows, first, last, scores, stride);
  for (std::int64_t r = 0; r < tile.rows; ++r) {
    const float sink = a.sinks ? a.sinks[tile.kv_head * group + (tile.first_row + r) % group]
                               : -std::numeric_limits<float>::infinity();
    softmax(scores + r * stride, stride, rows[r].begin - first * kBlock, rows[r].end - first * kBlock, sink);
  }
  if (a.pattern) {
    const std::int64_t keys = a.position + a.queries;
    for (std::int64_t r = 0; r < tile.rows; ++r) {
      const std::int64_t row = tile.first_row + r, head = tile.kv_head * group + row % group;
      float* to = a.pattern + (head * a.queries + row / group) * keys;
      std::fill_n(to, keys, 0.f);
      std::copy(scores + r * stride + rows[r].begin - first * kBlock,
                scores + r * stride + rows[r].end - first * kBlock, to + rows[r].begin);
    }
    return;
  }
  std::fill_n(out, kRows * padded, 0.f);
  mix(a, tile.kv_head, rows, tile.rows, first, last, scores, stride, out, padded);
  for (std::int64_t r = 0; r < tile.rows; ++r) std::copy_n(out + r * padded, a.d_head, rows[r].z);
}

}  // namespace

void attend(std::span<const AttentionArgs> runs) {
  thread_local std::vector<Tile> tiles;
  tiles.clear();
  std::int64_t work = 0;
  for (const auto& run : runs) {
    const std::int64_t rows = run.queries * (run.n_heads / run.n_kv_heads);
    work += run.queries * (run.position + run.queries) * run.n_heads * run.d_head;
    for (std::int64_t head = 0; head < run.n_kv_heads; ++head)
      for (std::int64_t row = 0; row < rows; row += kRows)
        tiles.push_back({&run, head, row, std::min(kRows, rows - row)});
  }
  const auto compute_range = [list = tiles.data()](std::int64_t begin, std::int64_t end) {
    thread_local std::vector<float> scratch;
    for (std::int64_t i = begin; i < end; ++i) compute(list[i], scratch);
  };
  // A second thread comes within a microsecond or two: not for less work than that.
  constexpr std::int64_t kWorthAThread = 50'000;
  const auto count = static_cast<std::int64_t>(tiles.size());
  core::detail::run_ranges(count, work == 0 ? count : count * kWorthAThread / work, compute_range);
}

namespace {

template <class T>
void store_as(std::span<const BlockView> blocks, const float* k, const float* v, std::int64_t rows,
              std::int64_t position, std::int64_t n_kv_heads, std::int64_t d_head) {
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto& block = blocks[static_cast<std::size_t>((position + row) / kBlock)];
    const std::int64_t slot = (position + row) % kBlock;
    for (std::int64_t h = 0; h < n_kv_heads; ++h, k += d_head, v += d_head) {
      T* key = static_cast<T*>(block.k) + h * d_head * kBlock + slot;
      T* value = static_cast<T*>(block.v) + h * d_head * kBlock + slot * d_head;
      for (std::int64_t d = 0; d < d_head; ++d) narrow_to(key + d * kBlock, k[d]);
      for (std::int64_t d = 0; d < d_head; ++d) narrow_to(value + d, v[d]);
    }
  }
}

}  // namespace

void store_kv(std::span<const BlockView> blocks, CacheFormat format, const float* k, const float* v, std::int64_t rows,
              std::int64_t position, std::int64_t n_kv_heads, std::int64_t d_head) {
  switch (format) {
    case CacheFormat::f32:
      return store_as<float>(blocks, k, v, rows, position, n_kv_heads, d_head);
    case CacheFormat::bf16:
      return store_as<Bf16>(blocks, k, v, rows, position, n_kv_heads, d_head);
    case CacheFormat::f16:
      return store_as<F16>(blocks, k, v, rows, position, n_kv_heads, d_head);
  }
}

}  // namespace steer::model::detail::cpu
