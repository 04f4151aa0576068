// The loops of cpu_attention_loops.hpp for one instruction set. Every number of a result is one lane's sum over d
// (scores) or over the keys (what is mixed), in order: how many rows and vectors a tile has decides nothing but its
// speed.

#include <cstdint>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "core/isa.hpp"
#include "model/cpu_attention_loops.hpp"

namespace steer::model::detail::cpu {
namespace {

#include "model/kernels/vec-inl.hpp"
//

/// Rows of the largest tile, and the vectors of sums that a tile of so many rows has: they fill the registers, less
/// those for the vectors loaded.
constexpr int kMostRows = kRegisters == 32 ? 8 : kWidth == 8 ? 6 : 2;
constexpr int kSums = kRegisters == 32 ? 16 : kWidth == 8 ? 12 : 8;
constexpr int vectors(int rows) {
  int n = 1;
  while (2 * n * rows <= kSums && 2 * n * kWidth <= kBlock) n *= 2;
  return n;
}

/// Bits of the two 16-bit formats; a type each, so that loops over blocks are written once.
struct Bf16 {
  std::uint16_t bits;
};
struct F16 {
  std::uint16_t bits;
};
inline F load_wide(const float* p) { return load(p); }
inline F load_wide(const Bf16* p) { return load_bf16(&p->bits); }
inline F load_wide(const F16* p) { return load_f16(&p->bits); }

constexpr std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
constexpr std::int64_t larger(std::int64_t a, std::int64_t b) { return a > b ? a : b; }

/// Fetches what M vectors cover. A block begins on pages of its own, where no hardware prefetcher has been: while one
/// is worked on, the same numbers of the next are brought.
template <int M, class T>
[[gnu::always_inline]] inline void fetch(const T* at) {
  constexpr int kLine = 64 / static_cast<int>(sizeof(T));
  for (int i = 0; i < M * kWidth; i += kLine) __builtin_prefetch(at + i);
}

/// One block's keys for N rows; `next` are those of the block behind it.
template <class T, int N>
[[gnu::always_inline]] inline void score_block(const T* k, const T* next, const AttentionTile& a,
                                               std::int64_t first_row, float* scores) {
  constexpr int M = vectors(N);
  for (std::int64_t key = 0; key < kBlock; key += M * kWidth) {
    F sum[N][M];
    for (auto& row : sum)
      for (F& s : row) s = zero();
    const T* at = k + key;
    const T* ahead = next + key;
    for (std::int64_t d = 0; d < a.d_head; ++d, at += kBlock, ahead += kBlock) {
      fetch<M>(ahead);
      F keys[M];
      for (int m = 0; m < M; ++m) keys[m] = load_wide(at + m * kWidth);
      for (int r = 0; r < N; ++r) {
        const F q = set1(a.rows[first_row + r].q[d]);
        for (int m = 0; m < M; ++m) sum[r][m] = fma(keys[m], q, sum[r][m]);
      }
    }
    for (int r = 0; r < N; ++r)
      for (int m = 0; m < M; ++m) store(scores + r * a.stride + key + m * kWidth, mul(sum[r][m], set1(a.scale)));
  }
}

/// out += p . v over keys [from, to) of a block, for N rows, in M vectors of d.
template <class T, int N, int M>
[[gnu::always_inline]] inline void mix_vectors(const T* v, const T* next, std::int64_t d_head, const float* p,
                                               std::int64_t stride, std::int64_t from, std::int64_t to, float* out,
                                               std::int64_t padded) {
  F sum[N][M];
  for (int r = 0; r < N; ++r)
    for (int m = 0; m < M; ++m) sum[r][m] = load(out + r * padded + m * kWidth);
  for (std::int64_t t = from; t < to; ++t) {
    fetch<M>(next + t * d_head);
    F values[M];
    for (int m = 0; m < M; ++m) values[m] = load_wide(v + t * d_head + m * kWidth);  // may read past the head
    for (int r = 0; r < N; ++r) {
      const F weight = set1(p[r * stride + t]);
      for (int m = 0; m < M; ++m) sum[r][m] = fma(values[m], weight, sum[r][m]);
    }
  }
  for (int r = 0; r < N; ++r)
    for (int m = 0; m < M; ++m) store(out + r * padded + m * kWidth, sum[r][m]);
}

template <class T, int N>
inline void mix_keys(const T* v, const T* next, const AttentionTile& a, std::int64_t row, std::int64_t block,
                     std::int64_t from, std::int64_t to) {
  if (from >= to) return;
  constexpr int M = vectors(N);
  const float* p = a.scores + row * a.stride + (block - a.origin) * kBlock;
  float* out = a.out + row * a.padded;
  std::int64_t d = 0;
  for (; d + M * kWidth <= a.padded; d += M * kWidth)
    mix_vectors<T, N, M>(v + d, next + d, a.d_head, p, a.stride, from, to, out + d, a.padded);
  for (; d < a.padded; d += kWidth)
    mix_vectors<T, N, 1>(v + d, next + d, a.d_head, p, a.stride, from, to, out + d, a.padded);
}

/// The blocks among [first, last) that some of the rows look at.
struct Blocks {
  std::int64_t first, last;
};
inline Blocks blocks_of(const AttentionRow* rows, std::int64_t count, std::int64_t first, std::int64_t last) {
  std::int64_t begin = rows[0].begin, end = rows[0].end;
  for (std::int64_t r = 1; r < count; ++r) {
    begin = smaller(begin, rows[r].begin);
    end = larger(end, rows[r].end);
  }
  return {larger(first, begin / kBlock), smaller(last, (end + kBlock - 1) / kBlock)};
}

template <class T, int N>
void score_rows(const AttentionTile& a, std::int64_t row, Blocks blocks) {
  const std::int64_t head = a.head * a.d_head * kBlock;
  for (std::int64_t b = blocks.first; b < blocks.last; ++b)
    score_block<T, N>(static_cast<const T*>(a.blocks[b].k) + head,
                      static_cast<const T*>(a.blocks[smaller(b + 1, blocks.last - 1)].k) + head, a, row,
                      a.scores + row * a.stride + (b - a.origin) * kBlock);
}

template <class T, int N>
void mix_rows(const AttentionTile& a, std::int64_t row, Blocks blocks) {
  for (std::int64_t b = blocks.first; b < blocks.last; ++b) {
    const T* v = static_cast<const T*>(a.blocks[b].v) + a.head * a.d_head * kBlock;
    const T* next = static_cast<const T*>(a.blocks[smaller(b + 1, blocks.last - 1)].v) + a.head * a.d_head * kBlock;
    std::int64_t from[N], to[N], all_from = 0, all_to = kBlock;
    for (int r = 0; r < N; ++r) {
      from[r] = larger(a.rows[row + r].begin - b * kBlock, 0);
      to[r] = smaller(a.rows[row + r].end - b * kBlock, kBlock);
      all_from = larger(all_from, from[r]);
      all_to = smaller(all_to, to[r]);
    }
    // Keys that all rows look at together; before and behind them each row by itself.
    if (all_from >= all_to) {
      for (int r = 0; r < N; ++r) mix_keys<T, 1>(v, next, a, row + r, b, from[r], to[r]);
      continue;
    }
    for (int r = 0; r < N; ++r) mix_keys<T, 1>(v, next, a, row + r, b, from[r], all_from);
    mix_keys<T, N>(v, next, a, row, b, all_from, all_to);
    for (int r = 0; r < N; ++r) mix_keys<T, 1>(v, next, a, row + r, b, all_to, to[r]);
  }
}

/// f<N>(row, N rows) over all rows of a tile, by tiles of at most kMostRows.
template <class T, int N = kMostRows>
void score_some(const AttentionTile& a, std::int64_t row, std::int64_t count, Blocks blocks) {
  if constexpr (N > 1)
    if (count < N) return score_some<T, N - 1>(a, row, count, blocks);
  score_rows<T, N>(a, row, blocks);
}
template <class T, int N = kMostRows>
void mix_some(const AttentionTile& a, std::int64_t row, std::int64_t count, Blocks blocks) {
  if constexpr (N > 1)
    if (count < N) return mix_some<T, N - 1>(a, row, count, blocks);
  mix_rows<T, N>(a, row, blocks);
}

template <class T>
void score(const AttentionTile& a, std::int64_t first, std::int64_t last) {
  for (std::int64_t row = 0; row < a.count; row += kMostRows) {
    const std::int64_t count = smaller(kMostRows, a.count - row);
    score_some<T>(a, row, count, blocks_of(a.rows + row, count, first, last));
  }
}

template <class T>
void mix(const AttentionTile& a, std::int64_t first, std::int64_t last) {
  for (std::int64_t row = 0; row < a.count; row += kMostRows) {
    const std::int64_t count = smaller(kMostRows, a.count - row);
    mix_some<T>(a, row, count, blocks_of(a.rows + row, count, first, last));
  }
}

}  // namespace

STEER_ISA_TABLE(AttentionLoops, attention_loops) = {.score = {score<float>, score<Bf16>, score<F16>},
                                                    .mix = {mix<float>, mix<Bf16>, mix<F16>}};

}  // namespace steer::model::detail::cpu
