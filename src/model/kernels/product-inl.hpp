// Products with few rows of x, and with any number where a row's bits must not depend on it: tiles of kTileM rows of x
// by N rows of W in registers, vectors along k, no packing. Included by kernels-inl.hpp only, inside that file's
// namespace.
//
// Every element of y is one vector accumulator over k in steps of kWidth, reduced at the end in a fixed order, whatever
// the tile it is computed in: that is what makes a row's bits independent of m.

constexpr int kTileM = 4;
// Accumulators take three quarters of the registers, W's vectors most of the others.
constexpr int kTileN = kWidth == 16 ? 6 : kWidth == 8 ? 3 : 2;
// For many rows of x: rows of x and of W, and length of k, that are worked on together.
constexpr std::int64_t kPanelM = 8, kBlockM = 64, kBlockN = 24, kBlockK = 512;
// Up to so many rows of x, W is decoded in registers, for every kTileM of them again where decoding is cheap.
template <class Format>
constexpr std::int64_t kThinM = kTileM;
constexpr std::int64_t kCheapThinM = kRegisters == 32 ? 2 * kTileM : kTileM;
template <>
constexpr std::int64_t kThinM<FormatF32> = 4 * kTileM;
template <>
constexpr std::int64_t kThinM<FormatBf16> = kCheapThinM;
template <>
constexpr std::int64_t kThinM<FormatF16> = kCheapThinM;
template <>
constexpr std::int64_t kThinM<FormatInt8> = kCheapThinM;
template <>
constexpr std::int64_t kThinM<FormatQ8_0> = kCheapThinM;
static_assert(kBlockM * kBlockN * kWidth + kBlockN * kBlockK <= kScratchFloats);

// `Rows` rows of W that come after those in work, to be fetched meanwhile: rows of a few hundred bytes end before the
// hardware's prefetcher has understood them.
template <int Rows>
struct Ahead {
  const std::uint8_t* rows = nullptr;  // null: nothing to fetch
  std::int64_t row_bytes = 0;
};

// The last `rest` < 32 of k, for row n of W. Lanes beyond it add 0 times 0.
template <class Format, int M, int N>
[[gnu::always_inline]] inline void add_rest(const typename Format::Row& row, int n, const float* x, std::int64_t ldx,
                                            std::int64_t groups, std::int64_t rest, F (&sum)[M][N]) {
  F w[kVectors];
  Format::tail(row, groups, rest, w);
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
    F xv[kVectors];
    FormatF32::tail(x + m * ldx, groups, rest, xv);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sum[m][n] = fma(w[v], xv[v], sum[m][n]);
  }
}

template <class Format, int M, int N>
[[gnu::always_inline]] inline void add_rests(const typename Format::Row* rows, const float* x, std::int64_t ldx,
                                             std::int64_t groups, std::int64_t rest, F (&sum)[M][N]) {
  // Where registers abound this is unrolled, so that no index reaches the sums and they stay in registers all along.
  // Elsewhere they wait in memory meanwhile: kept, they would push each other out within the loop before.
  if constexpr (kRegisters == 32) {
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) add_rest<Format, M, N>(rows[n], n, x, ldx, groups, rest, sum);
  } else {
#pragma GCC unroll 1
    for (int n = 0; n < N; ++n) add_rest<Format, M, N>(rows[n], n, x, ldx, groups, rest, sum);
  }
}

// Adds the products over [k_begin, k_end) to the accumulators; k_begin is a multiple of kGroup * Format::kBlock.
template <class Format, int M, int N, int Rows = 0>
[[gnu::always_inline]] inline void accumulate(const typename Format::Row* rows, const float* x, std::int64_t ldx,
                                              std::int64_t k_begin, std::int64_t k_end, F (&sum)[M][N],
                                              Ahead<Rows> ahead = {}) {
  const std::int64_t groups = k_end / kGroup;
  [[maybe_unused]] const std::int64_t rest = k_end % kGroup;
  const auto fetch = [&](std::int64_t g) {
    if (!ahead.rows) return;
    if constexpr (Rows == N && std::is_same_v<Format, FormatF32>) {
      // Into the first-level cache, and so not long before they are read: the rows in work to their end, then the next.
      constexpr std::int64_t kAhead = 8;
      const std::uint8_t* next = (g + kAhead < groups ? reinterpret_cast<const std::uint8_t*>(rows[0])
                                                      : ahead.rows - groups * Format::kBytes) +
                                 (g + kAhead) * Format::kBytes;
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n, next += ahead.row_bytes) {
        __builtin_prefetch(next);
        __builtin_prefetch(next + 64);
      }
    } else if constexpr (Rows == N && Format::kBytes == 64) {  // half as long: all of the next rows, one by one
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) __builtin_prefetch(ahead.rows + (g * N + n) * Format::kBytes);
    } else {
#pragma GCC unroll 8
      for (int n = 0; n < Rows; ++n) {
        const std::uint8_t* next = ahead.rows + n * ahead.row_bytes + g * Format::kBytes;
        __builtin_prefetch(next, 0, 2);
        if constexpr (Format::kBytes > 64) __builtin_prefetch(next + 64, 0, 2);
      }
    }
  };
  for (std::int64_t g = k_begin / kGroup; g < groups; g += Format::kBlock) {
    if constexpr (std::is_same_v<Format, FormatF32>) {  // no decoding: keep x's vector over all of N
      const float* at = x + g * kGroup;
      fetch(g);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        F w[N];
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) w[n] = load(rows[n] + g * kGroup + v * kWidth);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
          const F xv = load(at + m * ldx + v * kWidth);
#pragma GCC unroll 8
          for (int n = 0; n < N; ++n) sum[m][n] = fma(w[n], xv, sum[m][n]);
        }
      }
    } else {
      typename Format::Block blocks[N];
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) blocks[n] = Format::block(rows[n], g);
      for (int s = 0; s < Format::kBlock / Format::kStep; ++s) {
        const float* at = x + (g + s * Format::kStep) * kGroup;
        fetch(g + s * Format::kStep);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) {
          F w[Format::kStep * kVectors];
          Format::step(blocks[n], s, w);
#pragma GCC unroll 16
          for (int v = 0; v < Format::kStep * kVectors; ++v) {
#pragma GCC unroll 8
            for (int m = 0; m < M; ++m) sum[m][n] = fma(w[v], load(at + m * ldx + v * kWidth), sum[m][n]);
          }
        }
      }
    }
  }
  if constexpr (Format::kBlock == 1) {
    if (rest > 0) add_rests<Format, M, N>(rows, x, ldx, groups, rest, sum);
  }
}

template <int M, int N>
[[gnu::always_inline]] inline void finish(const F (&sum)[M][N], const ProductArgs& a, std::int64_t m, std::int64_t n) {
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) store_sums(a.y + (m + i) * a.ldy + n, sum[i], a.bias ? a.bias + n : nullptr);
}

// M rows of x by N rows of W from n on, over all of k.
template <class Format, int M, int N, int Rows>
inline void tile(const typename Format::Row* rows, const ProductArgs& a, std::int64_t m, std::int64_t n,
                 Ahead<Rows> ahead) {
  F sum[M][N];
  for (auto& row : sum) {
    for (auto& s : row) s = zero();
  }
  accumulate<Format, M, N>(rows, a.x + m * a.ldx, a.ldx, 0, a.weight.k, sum, ahead);
  finish<M, N>(sum, a, m, n);
}

// All rows of x by N rows of W. Each tile fetches `Rows` of the next N, until all are.
template <class Format, int N, int Rows>
inline void strip(const ProductArgs& a, std::int64_t n) {
  typename Format::Row rows[N];
  for (int i = 0; i < N; ++i) rows[i] = Format::row(a.weight, n + i);
  std::int64_t next = n + N < a.weight.n ? n + N : n;
  const std::int64_t last = next + N;
  if constexpr (requires { Format::fetch_apart(a.weight, next, N); }) Format::fetch_apart(a.weight, next, N);
  const auto ahead = [&]() -> Ahead<Rows> {
    if (next >= last) return {};
    const std::int64_t first = next;
    next += Rows;
    return {row_start(a.weight, first), a.weight.row_bytes};
  };
  std::int64_t m = 0;
  for (; m + kTileM <= a.m; m += kTileM) tile<Format, kTileM, N>(rows, a, m, n, ahead());
  switch (a.m - m) {
    case 1:
      return tile<Format, 1, N>(rows, a, m, n, ahead());
    case 2:
      return tile<Format, 2, N>(rows, a, m, n, ahead());
    case 3:
      return tile<Format, 3, N>(rows, a, m, n, ahead());
  }
}

// Few rows of x: W is decoded in registers and read from memory once. Of one or two tiles the first had better fetch
// all of the next rows; of more, each a part: all at once, they would keep the first one's own loads waiting.
template <class Format, int N>
inline void thin(const ProductArgs& a, std::int64_t n) {
  if (a.m <= 2 * kTileM) return strip<Format, N, N>(a, n);
  if constexpr (kThinM<Format> > 2 * kTileM) strip<Format, N, (N + 2) / 3>(a, n);
}

// A part of k of a tile's sums: they wait in memory, as vectors, for the next part.
struct Part {
  std::int64_t k0, k1;
  bool first, last;
};

template <int M, int N>
[[gnu::noinline]] void partial_tile(const float* const* rows, const ProductArgs& a, const Part& part, std::int64_t m,
                                    std::int64_t n, float* sums, std::int64_t lds) {
  F sum[M][N];
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) sum[i][j] = part.first ? zero() : load(sums + i * lds + j * kWidth);
  }
  accumulate<FormatF32, M, N>(rows, a.x + m * a.ldx + part.k0, a.ldx, 0, part.k1 - part.k0, sum);
  if (part.last) return finish<M, N>(sum, a, m, n);
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) store(sums + i * lds + j * kWidth, sum[i][j]);
  }
}

template <int N>
inline void partial_strip(const float* const* rows, const ProductArgs& a, const Part& part, std::int64_t m,
                          std::int64_t m1, std::int64_t n, float* sums, std::int64_t lds) {
  for (; m + kTileM <= m1; m += kTileM, sums += kTileM * lds) partial_tile<kTileM, N>(rows, a, part, m, n, sums, lds);
  switch (m1 - m) {
    case 3:
      return partial_tile<3, N>(rows, a, part, m, n, sums, lds);
    case 2:
      return partial_tile<2, N>(rows, a, part, m, n, sums, lds);
    case 1:
      return partial_tile<1, N>(rows, a, part, m, n, sums, lds);
  }
}

// Groups [g, g + kBlock), and fetches the same of the row at `ahead`.
template <class Format>
[[gnu::always_inline]] inline void decode_block(const typename Format::Row& row, std::int64_t g, float* out,
                                                const std::uint8_t* ahead = nullptr) {
  const auto block = Format::block(row, g);
  F w[Format::kStep * kVectors];
  for (int s = 0; s < Format::kBlock / Format::kStep; ++s, out += Format::kStep * kGroup) {
    if (ahead) __builtin_prefetch(ahead + (g + s * Format::kStep) * Format::kBytes, 0, 2);
    Format::step(block, s, w);
    for (int v = 0; v < Format::kStep * kVectors; ++v) store(out + v * kWidth, w[v]);
  }
}

template <class Format>
inline void decode(const typename Format::Row& row, std::int64_t begin, std::int64_t end, float* out,
                   const std::uint8_t* ahead = nullptr) {
  const std::int64_t groups = end / kGroup;
  [[maybe_unused]] const std::int64_t rest = end % kGroup;
  for (std::int64_t g = begin / kGroup; g < groups; g += Format::kBlock, out += Format::kBlock * kGroup) {
    decode_block<Format>(row, g, out, ahead);
  }
  if constexpr (Format::kBlock == 1) {
    if (rest == 0) return;
    F w[kVectors];
    Format::tail(row, groups, rest, w);
    for (int v = 0; v < kVectors && v * kWidth < rest; ++v) {
      const std::int64_t left = rest - v * kWidth;
      left >= kWidth ? store(out + v * kWidth, w[v]) : store_first(out + v * kWidth, w[v], left);
    }
  }
}

// Many rows of x: blocks over k, so that a panel of x stays in the first-level cache while W streams past it, and each
// weight is decoded (f32: copied, as rows far apart share cache sets) once for kBlockM rows.
template <class Format>
void thick(const ProductArgs& a, std::int64_t n0, std::int64_t n1, std::int64_t m0, std::int64_t m1, float* scratch) {
  const std::int64_t k = a.weight.k, count = n1 - n0, lds = kBlockN * kWidth;
  constexpr std::int64_t kUnit = kGroup * Format::kBlock;
  static_assert(kBlockK % kUnit == 0);
  const std::int64_t blocks = k <= kBlockK ? 1 : (k + kBlockK - 1) / kBlockK;
  const std::int64_t step = blocks == 1 ? k : ((k + blocks - 1) / blocks + kUnit - 1) / kUnit * kUnit;
  float *sums = scratch, *decoded = scratch + kBlockM * lds;
  typename Format::Row rows[kBlockN];
  for (std::int64_t i = 0; i < count; ++i) rows[i] = Format::row(a.weight, n0 + i);
  // Fetched while this block is worked on: the block after it.
  const std::uint8_t* next = n0 + 2 * kBlockN <= a.weight.n ? row_start(a.weight, n0 + kBlockN) : nullptr;
  Part part{0, 0, true, false};
  do {
    part.k1 = part.k0 + step < k ? part.k0 + step : k;
    part.last = part.k1 == k;
    const float* panel[kBlockN];
    for (std::int64_t i = 0; i < count; ++i) {
      panel[i] = decoded + i * kBlockK;
      decode<Format>(rows[i], part.k0, part.k1, decoded + i * kBlockK, next ? next + i * a.weight.row_bytes : nullptr);
    }
    for (std::int64_t m = m0; m < m1; m += kPanelM) {
      const std::int64_t end = m + kPanelM < m1 ? m + kPanelM : m1;
      float* to = sums + (m - m0) * lds;
      std::int64_t i = 0;
      for (; i + kTileN <= count; i += kTileN) {
        partial_strip<kTileN>(panel + i, a, part, m, end, n0 + i, to + i * kWidth, lds);
      }
      for (; i < count; ++i) partial_strip<1>(panel + i, a, part, m, end, n0 + i, to + i * kWidth, lds);
    }
    part.k0 = part.k1;
    part.first = false;
  } while (!part.last);
}

template <class Format>
void product_of(const ProductArgs& a, std::int64_t begin, std::int64_t end, float* scratch) {
  if (a.m <= kThinM<Format>) {
    std::int64_t n = begin;
    for (; n + kTileN <= end; n += kTileN) thin<Format, kTileN>(a, n);
    for (; n < end; ++n) thin<Format, 1>(a, n);
    return;
  }
  for (std::int64_t m0 = 0; m0 < a.m; m0 += kBlockM) {
    const std::int64_t m1 = m0 + kBlockM < a.m ? m0 + kBlockM : a.m;
    for (std::int64_t n = begin; n < end; n += kBlockN) {
      thick<Format>(a, n, n + kBlockN < end ? n + kBlockN : end, m0, m1, scratch);
    }
  }
}

template <class Format>
void decode_of(const WeightView& w, std::int64_t row, float* out) {
  decode<Format>(Format::row(w, row), 0, w.k, out);
}
