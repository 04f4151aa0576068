// y = x W^T: tiles of kTileM rows of x by N rows of W in registers, vectors along k. Included by kernels-inl.hpp only,
// inside that file's namespace.
//
// Every element of y is one vector accumulator over k in steps of kWidth, reduced at the end in a fixed order, whatever
// the tile it is computed in: that is what makes a row's bits independent of m.
//
// x comes in panels of kTileM rows (`pack_rows`), a step of k of all its rows side by side: one stream to fetch, where
// rows of x far apart would share cache sets.

constexpr int kTileM = 4;
// Accumulators take three quarters of the registers, W's vectors most of the others.
constexpr int kTileN = kRegisters == 32 ? 6 : kWidth == 8 ? 3 : 2;
// Rows of W beside one row of x: its sums are few, and each waits for its own last addition.
constexpr int kRowN = kRegisters == 32 ? kTileN : 2 * kTileN;
// For many rows of x: rows of x and of W, and length of k, that are worked on together.
constexpr std::int64_t kBlockM = 64, kBlockK = 1024;
// Up to so many rows of x, W is decoded in registers, for every kTileM of them again: always where that is next to
// nothing.
template <class Format>
constexpr std::int64_t kThinM = kTileM;
template <>
constexpr std::int64_t kThinM<FormatF32> = kBlockM;
constexpr std::int64_t kCheapThinM = kRegisters == 32 ? kBlockM : kTileM;
template <>
constexpr std::int64_t kThinM<FormatBf16> = kCheapThinM;
template <>
constexpr std::int64_t kThinM<FormatF16> = kCheapThinM;
template <>
constexpr std::int64_t kThinM<FormatInt8> = kRegisters == 32 ? 2 * kTileM : kTileM;
template <>
constexpr std::int64_t kThinM<FormatQ8_0> = kThinM<FormatInt8>;
static_assert(kBlockM * kTileN * kWidth + kTileN * kBlockK <= kScratchFloats);

// Length of k with the padding of its last group.
inline std::int64_t padded(std::int64_t k) { return (k + kGroup - 1) / kGroup * kGroup; }

// a's x [m, k] in panels of up to kTileM rows: [panel][step of k][row][kWidth], zeros behind k. Numbers [begin, end) of
// k, begin a multiple of kGroup.
void pack_rows(const ProductArgs& a, std::int64_t begin, std::int64_t end, float* packed) {
  const std::int64_t k = a.weight.k, length = padded(k);
  for (std::int64_t first = 0; first < a.m; first += kTileM) {
    const std::int64_t rows = a.m - first < kTileM ? a.m - first : kTileM;
    float* to = packed + first * length + begin * rows;
    for (std::int64_t at = begin; at < end; at += kGroup) {
      for (int v = 0; v < kVectors; ++v) {
        const std::int64_t left = k - at - v * kWidth;
        for (std::int64_t r = 0; r < rows; ++r, to += kWidth) {
          const float* from = a.x + (first + r) * a.ldx + at + v * kWidth;
          store(to, load_up_to(from, left));
        }
      }
    }
  }
}

// `Rows` rows of W that come after those in work, to be fetched meanwhile: rows of a few hundred bytes end before the
// hardware's prefetcher has understood them.
template <int Rows>
struct Ahead {
  const std::uint8_t* rows = nullptr;  // null: nothing to fetch
  std::int64_t row_bytes = 0;
};

// What adds a vector of W, the v-th from `x` on, times M rows of x to their sums with row n of W.
template <int M, int N>
[[gnu::always_inline]] inline auto adding(int n, const float* x, F (&sum)[M][N]) {
  return [ n, x, &sum ](int v, F w) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) sum[m][n] = fma(w, load(x + (v * M + m) * kWidth), sum[m][n]);
  };
}

// The last group, less than kGroup numbers. Lanes beyond them add 0 times 0.
template <class Format, int M, int N>
[[gnu::always_inline]] inline void add_rests(const typename Format::Row* rows, const float* x, std::int64_t groups,
                                             std::int64_t rest, F (&sum)[M][N]) {
  // Where registers abound this is unrolled, so that no index reaches the sums and they stay in registers all along.
  // Elsewhere they wait in memory meanwhile: kept, they would push each other out within the loop before.
  if constexpr (kRegisters == 32) {
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) Format::tail(rows[n], groups, rest, adding<M, N>(n, x, sum));
  } else {
#pragma GCC unroll 1
    for (int n = 0; n < N; ++n) Format::tail(rows[n], groups, rest, adding<M, N>(n, x, sum));
  }
}

// The vector, read once: compilers put a load into each of the additions that take it, which then wait for loads.
[[gnu::always_inline]] inline F in_register(F a) {
#if defined(__AVX512F__)
  asm("" : "+v"(a));
#elif defined(__x86_64__)
  asm("" : "+x"(a));
#elif defined(__aarch64__)
  asm("" : "+w"(a));
#endif
  return a;
}

// Adds the products over all of k; x is a panel of M rows.
template <class Format, int M, int N, int Rows = 0>
[[gnu::always_inline]] inline void accumulate(const typename Format::Row* rows, const float* x, std::int64_t k,
                                              F (&sum)[M][N], Ahead<Rows> ahead = {}) {
  const std::int64_t groups = k / kGroup;
  [[maybe_unused]] const std::int64_t rest = k % kGroup;
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
      // Not a function shared with bf16-inl.hpp: GCC 12 drops the calls of one that only fetches.
#pragma GCC unroll 8
      for (int n = 0; n < Rows; ++n) {
        const std::uint8_t* next = ahead.rows + n * ahead.row_bytes + g * Format::kBytes;
        __builtin_prefetch(next, 0, 2);
        if constexpr (Format::kStep * Format::kBytes > 64) __builtin_prefetch(next + 64, 0, 2);
      }
    }
  };
  for (std::int64_t g = 0; g < groups; g += Format::kBlock) {
    if constexpr (std::is_same_v<Format, FormatF32>) {  // no decoding: keep x's vector over all of N
      const float* at = x + g * kGroup * M;
      fetch(g);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        F w[N];
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) {
          w[n] = load(rows[n] + g * kGroup + v * kWidth);
          if constexpr (Rows < N) w[n] = in_register(w[n]);  // of fewer panels memory is the limit
        }
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
          const F xv = load(at + (v * M + m) * kWidth);
#pragma GCC unroll 8
          for (int n = 0; n < N; ++n) sum[m][n] = fma(w[n], xv, sum[m][n]);
        }
      }
    } else {
      typename Format::Block blocks[N];
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) blocks[n] = Format::block(rows[n], g);
      for (int s = 0; s < Format::kBlock / Format::kStep; ++s) {
        const float* at = x + (g + s * Format::kStep) * kGroup * M;
        fetch(g + s * Format::kStep);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) Format::step(blocks[n], s, adding<M, N>(n, at, sum));
      }
    }
  }
  if constexpr (Format::kBlock == 1) {
    if (rest > 0) add_rests<Format, M, N>(rows, x + groups * kGroup * M, groups, rest, sum);
  }
}

template <int M, int N>
[[gnu::always_inline]] inline void finish(const F (&sum)[M][N], const ProductArgs& a, std::int64_t m, std::int64_t n) {
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) store_sums(a.y + (m + i) * a.ldy + n, sum[i], a.bias ? a.bias + n : nullptr);
}

template <int M, int N>
[[gnu::always_inline]] inline void clear(F (&sum)[M][N]) {
  for (auto& row : sum) {
    for (auto& s : row) s = zero();
  }
}

// Calls f<M>(first row) for each panel of rows [m0, m1).
template <class Call>
[[gnu::always_inline]] inline void each_panel(std::int64_t m0, std::int64_t m1, const Call& f) {
  std::int64_t m = m0;
  for (; m + kTileM <= m1; m += kTileM) f.template operator()<kTileM>(m);
  switch (m1 - m) {
    case 1:
      return f.template operator()<1>(m);
    case 2:
      return f.template operator()<2>(m);
    case 3:
      return f.template operator()<3>(m);
  }
}

// A panel of x by N rows of W from n on, over all of k.
template <class Format, int M, int N, int Rows>
[[gnu::noinline]] void tile(const typename Format::Row* rows, const ProductArgs& a, std::int64_t m, std::int64_t n,
                            Ahead<Rows> ahead) {
  F sum[M][N];
  clear(sum);
  accumulate<Format, M, N>(rows, a.packed + m * padded(a.weight.k), a.weight.k, sum, ahead);
  finish<M, N>(sum, a, m, n);
}

// Rows [n, n + N) of W. Returns the first of those that come next, these where there are none, having fetched what they
// have elsewhere in memory.
template <class Format, int N>
[[gnu::always_inline]] inline std::int64_t take_rows(const WeightView& w, std::int64_t n,
                                                     typename Format::Row (&rows)[N]) {
  for (int i = 0; i < N; ++i) rows[i] = Format::row(w, n + i);
  const std::int64_t next = n + N < w.n ? n + N : n;
  if constexpr (requires { Format::fetch_apart(w, next, N); }) Format::fetch_apart(w, next, N);
  return next;
}

template <class Format>
inline void one_row(const ProductArgs& a, std::int64_t n, std::int64_t m) {
  typename Format::Row rows[kRowN];
  const std::int64_t next = take_rows<Format, kRowN>(a.weight, n, rows);
  tile<Format, 1, kRowN>(rows, a, m, n, Ahead<kRowN>{m == 0 ? row_start(a.weight, next) : nullptr, a.weight.row_bytes});
}

// All rows of x by N rows of W, decoded in registers. Each tile fetches `Rows` of the next N, until all are.
template <class Format, int N, int Rows>
inline void strip(const ProductArgs& a, std::int64_t n, std::int64_t m0, std::int64_t m1) {
  typename Format::Row rows[N];
  std::int64_t next = take_rows<Format, N>(a.weight, n, rows);
  const std::int64_t last = next + N;
  each_panel(m0, m1, [&]<int M>(std::int64_t m) {
    Ahead<Rows> ahead;
    if (m0 == 0 && next < last) ahead = {row_start(a.weight, next), a.weight.row_bytes};
    next += Rows;
    tile<Format, M, N>(rows, a, m, n, ahead);
  });
}

// Few rows of x: W is read from memory once. Of one or two tiles the first had better fetch all of the next rows; of
// more, each a part: all at once, they would keep the first one's own loads waiting.
template <class Format, int N>
inline void thin(const ProductArgs& a, std::int64_t n, std::int64_t m0, std::int64_t m1) {
  if (m1 - m0 <= 2 * kTileM) return strip<Format, N, N>(a, n, m0, m1);
  if constexpr (kThinM<Format> > 2 * kTileM) strip<Format, N, (N + 2) / 3>(a, n, m0, m1);
}

// Groups [g, g + kBlock) of a row at stride `stride` between vectors.
template <class Format>
[[gnu::always_inline]] inline void decode_block(const typename Format::Row& row, std::int64_t g, float* out,
                                                std::int64_t stride) {
  const auto block = Format::block(row, g);
  for (int s = 0; s < Format::kBlock / Format::kStep; ++s, out += Format::kStep * kVectors * stride)
    Format::step(block, s, [&](int v, F w) { store(out + v * stride, w); });
}

// Lines of memory to be fetched one by one between additions: `lines` of each of `rows`.
struct Fetch {
  const std::uint8_t* row = nullptr;
  std::int64_t row_bytes = 0, lines = 0, rows = 0, line = 0;
  [[gnu::always_inline]] void one() {
    if (rows <= 0) return;
    __builtin_prefetch(row + line * 64, 0, 2);
    if (++line < lines) return;
    line = 0;
    row += row_bytes;
    --rows;
  }
};

// Numbers [k0, k1) of k of a tile's sums: between parts they wait in memory, as vectors.
struct Part {
  std::int64_t k0, k1;
  bool last;
};

template <int M, int N>
[[gnu::always_inline]] inline void begin_part(F (&sum)[M][N], const Part& part, const float* sums) {
  if (part.k0 == 0) return clear(sum);
#pragma GCC unroll 32
  for (int i = 0; i < M * N; ++i) sum[i / N][i % N] = load(sums + i * kWidth);
}

template <int M, int N>
[[gnu::always_inline]] inline void end_part(const F (&sum)[M][N], const Part& part, const ProductArgs& a,
                                            std::int64_t m, std::int64_t n, float* sums) {
  if (part.last) return finish<M, N>(sum, a, m, n);
#pragma GCC unroll 32
  for (int i = 0; i < M * N; ++i) store(sums + i * kWidth, sum[i / N][i % N]);
}

// A panel of x by N decoded rows of W.
template <int M, int N>
[[gnu::noinline]] void part_of_tile(const float* w, const Part& part, const float* x, const ProductArgs& a,
                                    std::int64_t m, std::int64_t n, float* sums, Fetch& fetch) {
  F sum[M][N];
  begin_part(sum, part, sums);
  const std::int64_t steps = (padded(part.k1) - part.k0) / kWidth;
#pragma GCC unroll 2
  for (std::int64_t s = 0; s < steps; ++s, w += N * kWidth, x += M * kWidth) {
    fetch.one();
    F wv[N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) wv[j] = load(w + j * kWidth);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
      const F xv = load(x + i * kWidth);
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) sum[i][j] = fma(wv[j], xv, sum[i][j]);
    }
  }
  end_part(sum, part, a, m, n, sums);
}

// Numbers [k0, k1) of N rows as [step of k][N][kWidth], zeros behind the last; k0 is a multiple of a block.
template <class Format, int N>
inline void decode_rows(const typename Format::Row* rows, std::int64_t k0, std::int64_t k1, float* out) {
  const std::int64_t groups = k1 / kGroup;
  for (std::int64_t g = k0 / kGroup; g < groups; g += Format::kBlock, out += Format::kBlock * kGroup * N) {
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) decode_block<Format>(rows[n], g, out + n * kWidth, N * kWidth);
  }
  if constexpr (Format::kBlock == 1) {
    if (k1 % kGroup == 0) return;
    for (int n = 0; n < N; ++n) {
      Format::tail(rows[n], groups, k1 % kGroup, [&](int v, F w) { store(out + (v * N + n) * kWidth, w); });
    }
  }
}

// part_of_tile by rows of large blocks that are not decoded yet: what it decodes between the additions it leaves in w.
template <class Format, int M, int N>
[[gnu::noinline]] void decoding_part_of_tile(const typename Format::Row* rows, const Part& part, float* w,
                                             const float* x, const ProductArgs& a, std::int64_t m, std::int64_t n,
                                             float* sums, Fetch& fetch) {
  F sum[M][N];
  begin_part(sum, part, sums);
  for (std::int64_t g = part.k0 / kGroup; g < part.k1 / kGroup; g += Format::kBlock) {
    typename Format::Block blocks[N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) blocks[j] = Format::block(rows[j], g);
    constexpr int kSteps = Format::kStep * kVectors;
    for (int s = 0; s < Format::kBlock / Format::kStep; ++s, w += kSteps * N * kWidth, x += kSteps * M * kWidth) {
      fetch.one();
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) {
        const auto add = adding<M, N>(j, x, sum);
        Format::step(
            blocks[j], s, [&](int v, F decoded) __attribute__((always_inline)) {
              store(w + (v * N + j) * kWidth, decoded);
              add(v, decoded);
            });
      }
    }
  }
  end_part(sum, part, a, m, n, sums);
}

// Calls f(part, fetch) for each part of k that N rows of W from n on are decoded in; `fetch` is of what comes next.
template <class Format, int N, class Call>
[[gnu::always_inline]] inline void each_part(const ProductArgs& a, std::int64_t n, std::int64_t m0, const Call& f) {
  const std::int64_t k = a.weight.k;
  constexpr std::int64_t kUnit = kGroup * Format::kBlock;
  static_assert(kBlockK % kUnit == 0);
  const std::int64_t parts = k <= kBlockK ? 1 : (k + kBlockK - 1) / kBlockK;
  const std::int64_t step = parts == 1 ? k : ((k + parts - 1) / parts + kUnit - 1) / kUnit * kUnit;
  Part part{0, 0, false};
  do {
    part.k1 = part.k0 + step < k ? part.k0 + step : k;
    part.last = part.k1 == k;
    // What comes next: the same rows, or the next ones.
    const std::int64_t next = part.last ? n + N : n, next_k = part.last ? 0 : part.k1;
    Fetch fetch;
    if (m0 == 0 && next + N <= a.weight.n) {
      fetch = {row_start(a.weight, next) + next_k / kGroup * Format::kBytes, a.weight.row_bytes,
               (step / kGroup * Format::kBytes + 63) / 64, N};
      if constexpr (requires { Format::fetch_apart(a.weight, n, N); }) {
        if (part.last) Format::fetch_apart(a.weight, next, N);
      }
    }
    f(part, fetch);
    part.k0 = part.k1;
  } while (!part.last);
}

// Many rows of x by N rows of W, a part of k at a time: decoded once, then passed by each panel of x.
template <class Format, int N>
void thick(const ProductArgs& a, std::int64_t n, std::int64_t m0, std::int64_t m1, float* scratch) {
  const std::int64_t length = padded(a.weight.k);
  float *sums = scratch, *decoded = scratch + kBlockM * N * kWidth;
  typename Format::Row rows[N];
  for (int i = 0; i < N; ++i) rows[i] = Format::row(a.weight, n + i);
  each_part<Format, N>(a, n, m0, [&](const Part& part, Fetch& fetch) {
    if constexpr (Format::kBlock == 1) decode_rows<Format, N>(rows, part.k0, part.k1, decoded);
    each_panel(m0, m1, [&]<int M>(std::int64_t m) {
      const float* x = a.packed + m * length + part.k0 * M;
      float* to = sums + (m - m0) * N * kWidth;
      if constexpr (Format::kBlock > 1) {
        if (m == m0) return decoding_part_of_tile<Format, M, N>(rows, part, decoded, x, a, m, n, to, fetch);
      }
      part_of_tile<M, N>(decoded, part, x, a, m, n, to, fetch);
    });
  });
}

template <class Format>
void product_of(const ProductArgs& a, std::int64_t begin, std::int64_t end, float* scratch) {
  for (std::int64_t m0 = 0; m0 < a.m; m0 += kBlockM) {
    const std::int64_t m1 = m0 + kBlockM < a.m ? m0 + kBlockM : a.m;
    std::int64_t n = begin;
    if (m1 - m0 <= kThinM<Format>) {
      if constexpr (kRowN > kTileN) {
        if (m1 - m0 == 1) {
          for (; n + kRowN <= end; n += kRowN) one_row<Format>(a, n, m0);
        }
      }
      for (; n + kTileN <= end; n += kTileN) thin<Format, kTileN>(a, n, m0, m1);
      for (; n < end; ++n) thin<Format, 1>(a, n, m0, m1);
    } else {
      for (; n + kTileN <= end; n += kTileN) thick<Format, kTileN>(a, n, m0, m1, scratch);
      for (; n < end; ++n) thick<Format, 1>(a, n, m0, m1, scratch);
    }
  }
}

template <class Format>
void decode_of(const WeightView& w, std::int64_t row, float* out) {
  const auto r = Format::row(w, row);
  const std::int64_t groups = w.k / kGroup;
  for (std::int64_t g = 0; g < groups; g += Format::kBlock) decode_block<Format>(r, g, out + g * kGroup, kWidth);
  if constexpr (Format::kBlock == 1) {
    std::int64_t left = w.k % kGroup;
    if (left == 0) return;
    out += groups * kGroup;
    Format::tail(r, groups, left, [&](int v, F w) {
      const std::int64_t there = left - v * kWidth;
      if (there > 0) there >= kWidth ? store(out + v * kWidth, w) : store_first(out + v * kWidth, w, there);
    });
  }
}
