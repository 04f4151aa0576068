#include "model/cpu_attention.hpp"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/crew.hpp"
#include "core/isa.hpp"
#include "model/cpu_loops.hpp"

namespace steer::model::detail::cpu {

STEER_TABLE_IN_USE(AttentionLoops, attention_loops)

namespace {

/// Rows that are computed together, on one thread: pairs of a query and a head of one group, which read the same keys
/// and values. Row = query * group + head within the group.
struct Piece {
  const AttentionArgs* run;
  std::int64_t head;  ///< of the keys and values
  std::int64_t first_row, rows;
};
constexpr std::int64_t kMostRows = 32;

/// Keys or values of a head that stay in a near cache while all rows of a piece take them.
constexpr std::int64_t kNearBytes = 64 << 10;

/// f(first, last) over the blocks [first, last) in order, some at a time.
template <class F>
void by_chunks(const AttentionArgs& a, std::int64_t first, std::int64_t last, const F& f) {
  const std::int64_t number = a.format == CacheFormat::f32 ? 4 : 2;
  const std::int64_t step = std::max<std::int64_t>(1, kNearBytes / (number * kBlock * a.d_head));
  for (std::int64_t b = first; b < last; b += step) f(b, std::min(last, b + step));
}

void compute(const Piece& piece, std::vector<float>& scratch) {
  const AttentionArgs& a = *piece.run;
  const std::int64_t group = a.n_heads / a.n_kv_heads, width = a.n_heads * a.d_head;
  const auto query_of = [&](std::int64_t r) { return (piece.first_row + r) / group; };
  const auto head_of = [&](std::int64_t r) { return piece.head * group + (piece.first_row + r) % group; };
  AttentionRow rows[kMostRows];
  std::int64_t begin = std::numeric_limits<std::int64_t>::max(), end = 0;
  for (std::int64_t r = 0; r < piece.rows; ++r) {
    const std::int64_t last = a.position + query_of(r) + 1;
    rows[r] = {a.q + query_of(r) * width + head_of(r) * a.d_head,
               a.window > 0 ? std::max<std::int64_t>(last - a.window, 0) : 0, last};
    begin = std::min(begin, rows[r].begin);
    end = std::max(end, rows[r].end);
  }
  const std::int64_t first = begin / kBlock, last = (end + kBlock - 1) / kBlock, stride = (last - first) * kBlock;
  const std::int64_t padded = (a.d_head + 15) / 16 * 16;
  scratch.resize(std::max(scratch.size(), static_cast<std::size_t>(piece.rows * (stride + padded))));
  float* const scores = scratch.data();
  float* const out = scores + piece.rows * stride;
  const AttentionTile tile{a.blocks.data(), piece.head, a.d_head, rows,   piece.rows, first,
                           scores,          stride,     out,      padded, a.scale};
  const AttentionLoops& products = attention_loops();
  const auto format = static_cast<std::size_t>(a.format);
  by_chunks(a, first, last, [&](std::int64_t b, std::int64_t e) { products.score[format](tile, b, e); });
  for (std::int64_t r = 0; r < piece.rows; ++r) {
    // From the start of the row's first block to the end of its last.
    const std::int64_t from = rows[r].begin / kBlock * kBlock, to = (rows[r].end + kBlock - 1) / kBlock * kBlock;
    float* const own = scores + r * stride + from - first * kBlock;
    if (a.soft_cap > 0) loops().soft_cap(own, to - from, a.soft_cap);
    loops().softmax(own, to - from, rows[r].begin - from, rows[r].end - from,
                    a.sinks ? a.sinks[head_of(r)] : -std::numeric_limits<float>::infinity());
  }
  if (a.pattern) {
    const std::int64_t keys = a.position + a.queries;
    for (std::int64_t r = 0; r < piece.rows; ++r) {
      float* to = a.pattern + (head_of(r) * a.queries + query_of(r)) * keys;
      std::fill_n(to, keys, 0.f);
      std::copy(scores + r * stride + rows[r].begin - first * kBlock,
                scores + r * stride + rows[r].end - first * kBlock, to + rows[r].begin);
    }
    return;
  }
  std::fill_n(out, piece.rows * padded, 0.f);
  by_chunks(a, first, last, [&](std::int64_t b, std::int64_t e) { products.mix[format](tile, b, e); });
  for (std::int64_t r = 0; r < piece.rows; ++r)
    std::copy_n(out + r * padded, a.d_head, a.z + query_of(r) * width + head_of(r) * a.d_head);
}

}  // namespace

void attend(std::span<const AttentionArgs> runs) {
  std::int64_t work = 0, all_rows = 0;
  for (const auto& run : runs) {
    work += run.queries * (run.position + run.queries) * run.n_heads * run.d_head;
    all_rows += run.queries * run.n_heads;
  }
  // Many rows share what is read, but every thread should have some.
  const std::int64_t most = std::clamp<std::int64_t>(all_rows / (4 * threads()), 4, kMostRows);
  thread_local std::vector<Piece> pieces;
  pieces.clear();
  for (const auto& run : runs) {
    const std::int64_t rows = run.queries * (run.n_heads / run.n_kv_heads);
    for (std::int64_t head = 0; head < run.n_kv_heads; ++head)
      for (std::int64_t row = 0; row < rows; row += most)
        pieces.push_back({&run, head, row, std::min(most, rows - row)});
  }
  const auto compute_range = [list = pieces.data()](std::int64_t begin, std::int64_t end) {
    thread_local std::vector<float> scratch;
    for (std::int64_t i = begin; i < end; ++i) compute(list[i], scratch);
  };
  // A second thread comes within a microsecond or two: not for less work than that.
  constexpr std::int64_t kWorthAThread = 50'000;
  const auto count = static_cast<std::int64_t>(pieces.size());
  core::detail::run_ranges(count, work == 0 ? count : count * kWorthAThread / work, compute_range);
}

namespace {

void narrow_to(float* to, float x) { *to = x; }
void narrow_to(c10::BFloat16* to, float x) { *to = c10::BFloat16(x); }
void narrow_to(c10::Half* to, float x) {
  *to = c10::Half(std::clamp(x, -65504.f, 65504.f));  // keeps NaN
}

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
      return store_as<c10::BFloat16>(blocks, k, v, rows, position, n_kv_heads, d_head);
    case CacheFormat::f16:
      return store_as<c10::Half>(blocks, k, v, rows, position, n_kv_heads, d_head);
  }
}

}  // namespace steer::model::detail::cpu
