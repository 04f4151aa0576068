// Products with many rows of x, for callers to whom a row's last bits may depend on how many there are: vectors across
// rows of x, from x packed by `pack_rows`. Included by kernels-inl.hpp only, inside that file's namespace, where
// registers abound.
//
// A vector holds two numbers of each of kWidth / 2 rows, so that two of W's serve it with one load. Each weight is read
// from memory once, evenly between the additions, and x passes the first-level cache once for kTileRows rows of W. With
// vectors along k (product-inl.hpp) it does for every six, and its loads wait behind the fetches of W.

// Rows of W by one block of x (kWidth rows: two vectors) in registers.
constexpr int kTileRows = 12;
// Length of k that is added up before the sum joins the total: a longer chain of additions would round more.
constexpr std::int64_t kChain = 256;
// Rows of W that are decoded at once for many blocks.
constexpr int kStripRows = 2 * kTileRows;
static_assert(kStripRows * (kChain + kPackedRows) <= kScratchFloats && kPackedRows % kWidth == 0);

// Floats that a block of x takes packed.
inline std::int64_t block_floats(std::int64_t k) { return (k + 1) / 2 * 2 * kWidth; }

// a's x [m, k] as [ceil(m / kWidth), ceil(k / 2), 2, kWidth / 2, 2], of blocks, pairs of numbers and halves of a block:
// numbers [begin, end) of k, begin a multiple of kWidth. What the last block or pair lacks is zero.
void pack_rows(const ProductArgs& a, std::int64_t begin, std::int64_t end, float* packed) {
  constexpr int kHalf = kWidth / 2;
  const std::int64_t k = a.weight.k, padded = (a.m + kWidth - 1) / kWidth * kWidth;
  for (std::int64_t first = 0; first < padded; first += kHalf) {
    float* to = packed + first / kWidth * block_floats(k) + first % kWidth / kHalf * kWidth;
    for (std::int64_t at = begin; at < end; at += kWidth) {
      const std::int64_t count = end - at < kWidth ? end - at : kWidth;
      F part[kHalf];
      for (int i = 0; i < kHalf; ++i) {
        part[i] = first + i < a.m ? load_first(a.x + (first + i) * a.ldx + at, count) : zero();
      }
      transpose_pairs(part);
      for (int pair = 0; 2 * pair < count; ++pair) store(to + (at + 2 * pair) * kWidth, part[pair]);
    }
  }
}

// Sums of a block by N rows of W: of the first and the second half's pairs.
template <int N>
struct PairSums {
  F half[2][N];
  [[gnu::always_inline]] void clear() {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) half[0][n] = half[1][n] = zero();
  }
  // Adds them to totals [N, kWidth].
  [[gnu::always_inline]] void join(float* totals, bool first) const {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      const F sums = add_pairs(half[0][n], half[1][n]);
      store(totals + n * kWidth, first ? sums : add(load(totals + n * kWidth), sums));
    }
  }
};

// Adds `count` of k, by rows of W decoded at stride Stride (a last odd one followed by a zero). `between(pair)` runs at
// each pair of numbers.
template <int Stride, int N, class Between>
[[gnu::always_inline]] inline void add_rows(const float* w, const float* x, std::int64_t count, PairSums<N>& sums,
                                            const Between& between) {
#pragma GCC unroll 4
  for (std::int64_t pair = 0; pair < (count + 1) / 2; ++pair) {
    const F first = load(x + pair * 2 * kWidth), second = load(x + pair * 2 * kWidth + kWidth);
    between(pair);
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      const F weights = set1_pair(w + n * Stride + 2 * pair);
      sums.half[0][n] = fma(weights, first, sums.half[0][n]);
      sums.half[1][n] = fma(weights, second, sums.half[1][n]);
    }
  }
}

// A block's totals [count, kWidth], with the bias, to y.
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

// Rows [n, n + count) of W; the last again for those that N has more.
template <class Format, int N>
struct Strip {
  typename Format::Row rows[N];
  Strip(const WeightView& w, std::int64_t n, std::int64_t count) {
    for (int i = 0; i < N; ++i) rows[i] = Format::row(w, n + (i < count ? i : count - 1));
  }
  // Numbers [begin, end) of each, at stride Stride, an odd one followed by a zero.
  template <int Stride>
  void decode_part(std::int64_t begin, std::int64_t end, float* out) const {
    for (int i = 0; i < N; ++i, out += Stride) {
      decode<Format>(rows[i], begin, end, out);
      if ((end - begin) % 2 == 1) out[end - begin] = 0;
    }
  }
};

// The block of x from m on by `count` <= kTileRows rows of W: W is decoded a little at a time; between the additions of
// the first block its next bytes are fetched.
template <class Format>
void one_block(const ProductArgs& a, std::int64_t m, std::int64_t n, std::int64_t count, float* scratch) {
  constexpr std::int64_t kStep = kGroup * Format::kBlock;  // of k
  constexpr std::int64_t kStepBytes = Format::kBytes * Format::kBlock;
  constexpr std::int64_t kAhead = kStepBytes < 384 ? 384 / kStepBytes * kStepBytes : kStepBytes;
  const std::int64_t k = a.weight.k, row_bytes = a.weight.row_bytes;
  const Strip<Format, kTileRows> strip(a.weight, n, count);
  const std::uint8_t* const here = row_start(a.weight, n);
  // Behind a row's end comes the same row of the next strip; fetched in vain, where there is none.
  const std::int64_t to_next = (n + 2 * kTileRows <= a.weight.n ? kTileRows * row_bytes : 0) - row_bytes;
  const std::int64_t fetched_rows = m == 0 ? count : 0;
  if constexpr (requires { Format::fetch_apart(a.weight, n, count); }) {
    if (m == 0 && n + 2 * kTileRows <= a.weight.n) Format::fetch_apart(a.weight, n + kTileRows, kTileRows);
  }
  float *decoded = scratch, *totals = scratch + kTileRows * kStep;
  for (std::int64_t begin = 0; begin == 0 || begin < k; begin += kChain) {
    const std::int64_t end = begin + kChain < k ? begin + kChain : k;
    PairSums<kTileRows> sums;
    sums.clear();
    for (std::int64_t at = begin; at < end; at += kStep) {
      const float* x = a.packed + m / kWidth * block_floats(k) + at * kWidth;
      if (at + kStep > end) [[unlikely]] {
        strip.template decode_part<kStep>(at, end, decoded);
        add_rows<kStep>(decoded, x, end - at, sums, [](std::int64_t) {});
        break;
      }
      for (int i = 0; i < kTileRows; ++i) decode_block<Format>(strip.rows[i], at / kGroup, decoded + i * kStep);
      const std::int64_t ahead = at / kGroup * Format::kBytes + kAhead;
      const std::uint8_t* fetched = here + ahead + (ahead < row_bytes ? 0 : to_next);
      add_rows<kStep>(decoded, x, kStep, sums, [&](std::int64_t pair) {
        if (pair >= fetched_rows) return;
#pragma GCC unroll 8
        for (int byte = 0; byte < kStepBytes; byte += 64) __builtin_prefetch(fetched + pair * row_bytes + byte);
      });
    }
    sums.join(totals, begin == 0);
  }
  store_block(totals, a, m, n, count);
}

// Lines of cache of kTileRows rows, `Lines` of each, to be fetched two at a time.
template <int Lines>
struct Fetch {
  const std::uint8_t* rows;  // null: nothing to fetch
  std::int64_t row_bytes;
  [[gnu::always_inline]] void operator()(std::int64_t pair) const {
    constexpr int kPairs = (Lines + 1) / 2;
    if (!rows || pair >= kTileRows * kPairs) return;
    const std::uint8_t* line = rows + pair / kPairs * row_bytes + pair % kPairs * 128;
    __builtin_prefetch(line, 0, 2);
    __builtin_prefetch(line + 64, 0, 2);
  }
};

// One chain of a block of x by kTileRows rows of W, to their totals.
template <class Between>
[[gnu::noinline]] void add_chain(const float* decoded, const float* x, std::int64_t count, bool first, float* totals,
                                 const Between& between) {
  PairSums<kTileRows> sums;
  sums.clear();
  add_rows<kChain>(decoded, x, count, sums, between);
  sums.join(totals, first);
}

// All blocks of x by `count` <= kStripRows rows of W: a chain's length of W is decoded, all blocks pass it, and while
// the first one does, the next length of W is fetched.
template <class Format>
void many_blocks(const ProductArgs& a, std::int64_t n, std::int64_t count, float* scratch) {
  constexpr int kLines = (Format::kBytes * (kChain / kGroup) + 63) / 64;
  const std::int64_t k = a.weight.k, row_bytes = a.weight.row_bytes, blocks = (a.m + kWidth - 1) / kWidth;
  const Strip<Format, kStripRows> strip(a.weight, n, count);
  const std::uint8_t* const here = row_start(a.weight, n);
  const std::uint8_t* const after = n + 2 * kStripRows <= a.weight.n ? here + kStripRows * row_bytes : nullptr;
  float *decoded = scratch, *totals = scratch + kStripRows * kChain;
  for (std::int64_t begin = 0; begin == 0 || begin < k; begin += kChain) {
    const bool whole = begin + kChain < k;
    const std::int64_t end = whole ? begin + kChain : k;
    strip.template decode_part<kChain>(begin, end, decoded);
    const std::uint8_t* next = whole && count == kStripRows ? here + end / kGroup * Format::kBytes : after;
    for (std::int64_t b = 0; b < blocks; ++b, next = nullptr) {
      const float* x = a.packed + b * block_floats(k) + begin * kWidth;
      float* to = totals + b * kStripRows * kWidth;
      for (int tile = 0; tile < kStripRows; tile += kTileRows) {
        const Fetch<kLines> fetch{next ? next + tile * row_bytes : nullptr, row_bytes};
        add_chain(decoded + tile * kChain, x, end - begin, begin == 0, to + tile * kWidth, fetch);
      }
    }
  }
  for (std::int64_t b = 0; b < blocks; ++b) store_block(totals + b * kStripRows * kWidth, a, b * kWidth, n, count);
}

// Up to so many blocks, each decodes W by itself, and all but the first find it in the second-level cache.
template <class Format>
constexpr std::int64_t kFewBlocks = 1;
template <>
constexpr std::int64_t kFewBlocks<FormatF32> = 4;

template <class Format>
void rows_product_of(const ProductArgs& a, std::int64_t begin, std::int64_t end, float* scratch) {
  const bool few = a.m <= kFewBlocks<Format> * kWidth;
  const std::int64_t step = few ? kTileRows : kStripRows;
  for (std::int64_t n = begin; n < end; n += step) {
    const std::int64_t count = end - n < step ? end - n : step;
    if (few) {
      for (std::int64_t m = 0; m < a.m; m += kWidth) one_block<Format>(a, m, n, count, scratch);
    } else {
      many_blocks<Format>(a, n, count, scratch);
    }
  }
}
