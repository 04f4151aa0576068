// Products with many rows of x, for callers to whom a row's last bits may depend on how many there are: vectors across
// kWidth rows of x, from x packed by `pack_rows`. Included by kernels-inl.hpp only, inside that file's namespace, where
// registers abound.
//
// Each weight is read from memory once, evenly between the additions, and x passes the first-level cache once for
// kStripN rows of W. With vectors along k (product-inl.hpp) it does for every six, and its loads wait behind the
// fetches of W.

// Rows of W by one vector of rows of x in registers.
constexpr int kStripN = 24;
// Length of k that is added up before the sum joins the total: a longer chain of additions would round more.
constexpr std::int64_t kChain = 256;
static_assert(kStripN * (kChain + kPackedRows) <= kScratchFloats && kPackedRows % kWidth == 0);

// x [m, k] as [ceil(m / kWidth), k, kWidth]: numbers [begin, end) of k, begin a multiple of kWidth. Rows that the last
// block lacks are zero.
void pack_rows(const float* x, std::int64_t ldx, std::int64_t m, std::int64_t k, std::int64_t begin, std::int64_t end,
               float* packed) {
  for (std::int64_t first = 0; first < m; first += kWidth) {
    const std::int64_t rows = m - first < kWidth ? m - first : kWidth;
    for (std::int64_t at = begin; at < end; at += kWidth) {
      const std::int64_t count = end - at < kWidth ? end - at : kWidth;
      F part[kWidth];
      for (int i = 0; i < kWidth; ++i) part[i] = i < rows ? load_first(x + (first + i) * ldx + at, count) : zero();
      transpose(part);
      for (std::int64_t j = 0; j < count; ++j) store(packed + first * k + (at + j) * kWidth, part[j]);
    }
  }
}

// Adds `count` of k to the sums of N rows of W, decoded at stride Stride, by V blocks of x. `between(j)` runs at each.
template <int Stride, int V, int N, class Between>
[[gnu::always_inline]] inline void add_rows(const float* w, const float* const (&x)[V], std::int64_t count,
                                            F (&sum)[V][N], const Between& between) {
#pragma GCC unroll 4
  for (std::int64_t j = 0; j < count; ++j) {
    F xv[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) xv[v] = load(x[v] + j * kWidth);
    between(j);
#pragma GCC unroll 24
    for (int n = 0; n < N; ++n) {
      const F weight = set1(w[n * Stride + j]);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[v][n] = fma(weight, xv[v], sum[v][n]);
    }
  }
}

// A block's totals [kStripN, 16], with the bias, to y.
inline void store_block(const float* totals, const ProductArgs& a, std::int64_t m, std::int64_t n, std::int64_t count) {
  const std::int64_t rows = a.m - m < kWidth ? a.m - m : kWidth;
  for (std::int64_t first = 0; first < count; first += kWidth) {
    const std::int64_t lanes = count - first < kWidth ? count - first : kWidth;
    F part[kWidth];
    for (int i = 0; i < kWidth; ++i) part[i] = first + i < count ? load(totals + (first + i) * kWidth) : zero();
    transpose(part);
    const F bias = a.bias ? load_first(a.bias + n + first, lanes) : zero();
    for (std::int64_t i = 0; i < rows; ++i) store_first(a.y + (m + i) * a.ldy + n + first, add(part[i], bias), lanes);
  }
}

// Decodes rows [n, n + count) of W; the last again for those that kStripN has more.
template <class Format>
struct Strip {
  typename Format::Row rows[kStripN];
  Strip(const WeightView& w, std::int64_t n, std::int64_t count) {
    for (int i = 0; i < kStripN; ++i) rows[i] = Format::row(w, n + (i < count ? i : count - 1));
  }
};

// One block of x by `count` <= kStripN rows of W: W is decoded a little at a time, its next bytes are fetched between
// the additions.
template <class Format>
void one_block(const ProductArgs& a, std::int64_t n, std::int64_t count, float* scratch) {
  constexpr std::int64_t kStep = kGroup * Format::kBlock;  // of k
  constexpr std::int64_t kStepBytes = Format::kBytes * Format::kBlock;
  constexpr std::int64_t kAhead = kStepBytes < 384 ? 384 / kStepBytes * kStepBytes : kStepBytes;
  const std::int64_t k = a.weight.k, row_bytes = a.weight.row_bytes;
  const Strip<Format> strip(a.weight, n, count);
  const std::uint8_t* const here = row_start(a.weight, n);
  // Behind a row's end comes the same row of the next strip; fetched in vain, where there is none.
  const std::int64_t to_next = (n + 2 * kStripN <= a.weight.n ? kStripN * row_bytes : 0) - row_bytes;
  float *decoded = scratch, *totals = scratch + kStripN * kStep;
  for (std::int64_t begin = 0; begin == 0 || begin < k; begin += kChain) {
    const std::int64_t end = begin + kChain < k ? begin + kChain : k;
    F sum[1][kStripN];
#pragma GCC unroll 24
    for (int i = 0; i < kStripN; ++i) sum[0][i] = zero();
    for (std::int64_t at = begin; at < end; at += kStep) {
      const float* const x[1] = {a.packed + at * kWidth};
      if (at + kStep > end) [[unlikely]] {
        for (int i = 0; i < kStripN; ++i) decode<Format>(strip.rows[i], at, end, decoded + i * kStep);
        add_rows<kStep>(decoded, x, end - at, sum, [](std::int64_t) {});
        break;
      }
      for (int i = 0; i < kStripN; ++i) decode_block<Format>(strip.rows[i], at / kGroup, decoded + i * kStep);
      const std::int64_t ahead = at / kGroup * Format::kBytes + kAhead;
      const std::uint8_t* fetched = here + ahead + (ahead < row_bytes ? 0 : to_next);
      add_rows<kStep>(decoded, x, kStep, sum, [&](std::int64_t j) {
        if (j >= count) return;
#pragma GCC unroll 8
        for (int byte = 0; byte < kStepBytes; byte += 64) __builtin_prefetch(fetched + j * row_bytes + byte);
      });
    }
#pragma GCC unroll 24
    for (int i = 0; i < kStripN; ++i) {
      float* total = totals + i * kWidth;
      store(total, begin == 0 ? sum[0][i] : add(load(total), sum[0][i]));
    }
  }
  store_block(totals, a, 0, n, count);
}

// `lines` lines of cache of each of `rows` rows, to be fetched one at a time.
template <int Lines>
struct Fetch {
  const std::uint8_t* rows;  // null: nothing to fetch
  std::int64_t row_bytes, count;
  [[gnu::always_inline]] void operator()(std::int64_t j) const {
    if (rows && j < count * Lines) __builtin_prefetch(rows + j / Lines * row_bytes + j % Lines * 64, 0, 2);
  }
};

// Adds one chain of V blocks of x by N rows of W to their totals.
template <int V, int N, class Between>
[[gnu::noinline]] void add_chain(const float* decoded, const float* const (&x)[V], std::int64_t count, bool first,
                                 float* totals, const Between& between) {
  F sum[V][N];
#pragma GCC unroll 2
  for (int v = 0; v < V; ++v) {
#pragma GCC unroll 24
    for (int n = 0; n < N; ++n) sum[v][n] = zero();
  }
  add_rows<kChain>(decoded, x, count, sum, between);
#pragma GCC unroll 2
  for (int v = 0; v < V; ++v) {
#pragma GCC unroll 24
    for (int n = 0; n < N; ++n) {
      float* total = totals + (v * kStripN + n) * kWidth;
      store(total, first ? sum[v][n] : add(load(total), sum[v][n]));
    }
  }
}

// All blocks of x by `count` <= kStripN rows of W: a chain's length of W is decoded, all blocks pass it, and while the
// first two do, the next length of W is fetched.
template <class Format>
void many_blocks(const ProductArgs& a, std::int64_t n, std::int64_t count, float* scratch) {
  constexpr int kHalf = kStripN / 2;
  constexpr int kLines = (Format::kBytes * (kChain / kGroup) + 63) / 64;
  const std::int64_t k = a.weight.k, row_bytes = a.weight.row_bytes, blocks = (a.m + kWidth - 1) / kWidth;
  const Strip<Format> strip(a.weight, n, count);
  const std::uint8_t* const here = row_start(a.weight, n);
  const std::uint8_t* const after = n + 2 * kStripN <= a.weight.n ? here + kStripN * row_bytes : nullptr;
  float *decoded = scratch, *totals = scratch + kStripN * kChain;
  const auto total = [&](std::int64_t b) { return totals + b * kStripN * kWidth; };
  for (std::int64_t begin = 0; begin == 0 || begin < k; begin += kChain) {
    const bool whole = begin + kChain < k;
    const std::int64_t end = whole ? begin + kChain : k;
    for (int i = 0; i < kStripN; ++i) decode<Format>(strip.rows[i], begin, end, decoded + i * kChain);
    const std::uint8_t* next = whole && count == kStripN ? here + end / kGroup * Format::kBytes : after;
    const auto x = [&](std::int64_t b) { return a.packed + (b * k + begin) * kWidth; };
    std::int64_t b = 0;
    for (; b + 2 <= blocks; b += 2) {
      const float* const both[2] = {x(b), x(b + 1)};
      Fetch<kLines> fetch{b == 0 ? next : nullptr, row_bytes, kHalf};
      add_chain<2, kHalf>(decoded, both, end - begin, begin == 0, total(b), fetch);
      if (fetch.rows) fetch.rows += kHalf * row_bytes;
      add_chain<2, kHalf>(decoded + kHalf * kChain, both, end - begin, begin == 0, total(b) + kHalf * kWidth, fetch);
    }
    if (b < blocks) {
      const float* const one[1] = {x(b)};
      add_chain<1, kStripN>(decoded, one, end - begin, begin == 0, total(b), [](std::int64_t) {});
    }
  }
  for (std::int64_t b = 0; b < blocks; ++b) store_block(total(b), a, b * kWidth, n, count);
}

template <class Format>
void rows_product_of(const ProductArgs& a, std::int64_t begin, std::int64_t end, float* scratch) {
  for (std::int64_t n = begin; n < end; n += kStripN) {
    const std::int64_t count = end - n < kStripN ? end - n : kStripN;
    a.m <= kWidth ? one_block<Format>(a, n, count, scratch) : many_blocks<Format>(a, n, count, scratch);
  }
}
