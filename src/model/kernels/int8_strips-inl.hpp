// Products with x rounded to 8 bits (int8-inl.hpp) of many rows of x: strips of W's rows turned into bytes side by
// side, so that the lanes of a vector are rows of W, and 32 products cost eight instructions for all of them. And which
// of the two loops computes what. Included after int8-inl.hpp, as often.

// Groups of k that kWidth rows of W are turned at once, a multiple of 8. In scratch: [group][4 numbers of k][row of W]
// bytes, then scales and offsets [eight groups][chain][row of W], then the chains' sums [row of x][chain][row of W].
constexpr std::int64_t kTurnedGroups = kWidth == 16 ? 64 : 128;
constexpr std::int64_t kTurnedBytes = kTurnedGroups * kGroup * kWidth, kTurnedScales = kTurnedGroups * 2 * kWidth;
static_assert(kTurnedBytes + 4 * (2 * kTurnedScales + kBlockM * 16 * kWidth) <= 4 * kScratchFloats);

struct TurnedRows {
  std::uint8_t* bytes;
  float *scales, *offsets, *sums;
  explicit TurnedRows(float* scratch)
      : bytes(reinterpret_cast<std::uint8_t*>(scratch)),
        scales(scratch + kTurnedBytes / 4),
        offsets(scales + kTurnedScales),
        sums(offsets + kTurnedScales) {}
};

// Groups [g0, g1) of rows [n, n + kWidth) of W; g0 is a multiple of 8.
template <class Bytes>
[[gnu::noinline]] STEER_INT8 void turn_rows(const WeightView& w, std::int64_t n, std::int64_t g0, std::int64_t g1,
                                            const TurnedRows& out) {
  for (int first = 0; first < kWidth; first += 8) {
    typename Bytes::Format::Row rows[8];
    for (int r = 0; r < 8; ++r) rows[r] = Bytes::Format::row(w, n + first + r);
    for (std::int64_t g = g0; g < g1; g += 8) {
      const std::int64_t count = g1 - g < 8 ? g1 - g : 8;
      Groups8 heads[8];
      for (int r = 0; r < 8; ++r) Bytes::head(Bytes::eight(rows[r], g), count, heads[r]);
      const auto turn = [&](const auto& of, float* to) {
        __m256i words[8];
#pragma GCC unroll 8
        for (int r = 0; r < 8; ++r) words[r] = load_256(of(heads[r]));
        turn_words(words, reinterpret_cast<std::uint8_t*>(to + first), 4 * kWidth);
      };
      const std::int64_t to = (g - g0) / 8 * kChains<Bytes> * kWidth;
      for (int c = 0; c < kChains<Bytes>; c += 8)
        turn([c](const Groups8& head) { return head.scale + c; }, out.scales + to + c * kWidth);
      if constexpr (!kOfHalves<Bytes> && kHasOffset<Bytes>)
        turn([](const Groups8& head) { return head.offset; }, out.offsets + to);
      for (int at = 0; at < count; ++at) {
        __m256i q[8];
#pragma GCC unroll 8
        for (int r = 0; r < 8; ++r) {
          q[r] = Bytes::group(Bytes::eight(rows[r], g), at);
          if constexpr (Bytes::kSigned && kRaised != 0) q[r] = _mm256_xor_si256(q[r], _mm256_set1_epi8(-128));
        }
        turn_words(q, out.bytes + (g - g0 + at) * kGroup * kWidth + first * 4, 4 * kWidth);
      }
    }
  }
}

// Adds to M sums the products of `Words` vectors of four numbers of k of kWidth rows of W with those of M rows of x.
template <class Bytes, int M, int Words>
[[gnu::always_inline]] STEER_INT8 inline void add_words(const std::uint8_t* w, const std::int8_t* x, I (&sum)[M]) {
  const auto of_x = [&](int i, int j) {
    std::int32_t word;
    __builtin_memcpy(&word, x + i * kGroup + 4 * j, sizeof word);
    return set1_i(word);
  };
#ifdef STEER_VNNI
#pragma GCC unroll 8
  for (int j = 0; j < Words; ++j) {
    I wv;
    __builtin_memcpy(&wv, w + j * 4 * kWidth, sizeof wv);
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) sum[i] = add_dots(sum[i], wv, of_x(i, j));
  }
#else
  // So many products of W's largest byte and x's are added in 16 bits.
  constexpr int kTogether = Bytes::kMost < 16 ? 8 : Bytes::kMost < 32 ? 4 : Bytes::kMost < 64 ? 2 : 1;
  constexpr int kStep = kTogether < Words ? kTogether : Words;
#pragma GCC unroll 8
  for (int first = 0; first < Words; first += kStep) {
    I pairs[M];
#pragma GCC unroll 8
    for (int j = first; j < first + kStep; ++j) {
      const I wv = load_256(w + j * 4 * kWidth);
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) {
        const I product = Bytes::kSigned ? _mm256_maddubs_epi16(_mm256_abs_epi8(wv), _mm256_sign_epi8(of_x(i, j), wv))
                                         : _mm256_maddubs_epi16(wv, of_x(i, j));
        pairs[i] = j == first ? product : _mm256_add_epi16(pairs[i], product);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(pairs[i], _mm256_set1_epi16(1)));
  }
#endif
}

// Groups [g0, g1) of a panel of M rows of x by turned rows of W, chain by chain. `sums` is that of the panel.
template <class Bytes, int M>
[[gnu::noinline]] STEER_INT8 void tile_of_turned(const BytePanel& panel, std::int64_t g0, std::int64_t g1,
                                                 const TurnedRows& w, float* sums) {
  constexpr int kHalves = kOfHalves<Bytes> ? 2 : 1, kWords = 8 / kHalves;
  for (std::int64_t first = g0; first < g0 + 8 && first < g1; ++first) {
    F sum[kHalves][M];
    const auto chain = [first](int half) { return kOfHalves<Bytes> ? chain_of_half(first, half) : first % 8; };
    const auto sum_at = [&](int half, int i) { return sums + (i * kChains<Bytes> + chain(half)) * kWidth; };
#pragma GCC unroll 2
    for (int half = 0; half < kHalves; ++half) {
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) sum[half][i] = g0 == 0 ? zero() : load(sum_at(half, i));
    }
    for (std::int64_t g = first; g < g1; g += 8) {
      const std::uint8_t* bytes = w.bytes + (g - g0) * kGroup * kWidth;
      const std::int8_t* x = panel.bytes + g * M * kGroup;
      const float* of_x = panel.scales + g / 8 * M * kScalesOf8;
#pragma GCC unroll 2
      for (int half = 0; half < kHalves; ++half) {
        I dot[M];
#pragma GCC unroll 4
        for (int i = 0; i < M; ++i) dot[i] = set1_i(0);
        add_words<Bytes, M, kWords>(bytes + half * kWords * 4 * kWidth, x + half * kWords * 4, dot);
        const std::int64_t at = ((g - g0) / 8 * kChains<Bytes> + chain(half)) * kWidth;
        const F scale = load(w.scales + at);
        F offset = zero();
        if constexpr (kOfHalves<Bytes>)
          offset = mul(scale, set1(-32));
        else if constexpr (kHasOffset<Bytes>)
          offset = load(w.offsets + at);
        const std::int64_t sum_of_x = chain(half) + (kOfHalves<Bytes> ? 16 : 8);
#pragma GCC unroll 4
        for (int i = 0; i < M; ++i) {
          const float* of_row = of_x + i * kScalesOf8;
          if constexpr (kHasOffset<Bytes>) sum[half][i] = fma(offset, set1(of_row[sum_of_x]), sum[half][i]);
          sum[half][i] = fma(to_float(dot[i]), mul(scale, set1(of_row[g % 8])), sum[half][i]);
        }
      }
    }
#pragma GCC unroll 2
    for (int half = 0; half < kHalves; ++half) {
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) store(sum_at(half, i), sum[half][i]);
    }
  }
}

// A row of x by kWidth rows of W: the chains' sums, added as tiles_int8 adds its lanes.
template <class Bytes>
[[gnu::always_inline]] inline void add_chains(const float* sums, std::int64_t chains, const float* bias, float* y) {
  F sum[8];
  for (int c = 0; c < 8; ++c) {
    sum[c] = c < chains ? load(sums + c * kWidth) : zero();
    if constexpr (kOfHalves<Bytes>) sum[c] = add(sum[c], load(sums + (8 + c) * kWidth));
  }
  for (int half = 4; half > 0; half /= 2) {
    for (int c = 0; c < half; ++c) sum[c] = add(sum[c], sum[c + half]);
  }
  store(y, add(sum[0], bias ? load(bias) : zero()));
}

// Rows [m0, m1) of x by rows [n, n + kWidth) of W.
template <class Bytes>
void strip_int8(const ProductArgs& a, std::int64_t n, std::int64_t m0, std::int64_t m1, float* scratch) {
  const TurnedRows w(scratch);
  const std::int64_t groups = padded(a.weight.k) / kGroup;
  const auto sums_of = [&](std::int64_t m) { return w.sums + (m - m0) * kChains<Bytes> * kWidth; };
  for (std::int64_t g0 = 0; g0 < groups; g0 += kTurnedGroups) {
    const std::int64_t g1 = groups - g0 < kTurnedGroups ? groups : g0 + kTurnedGroups;
    turn_rows<Bytes>(a.weight, n, g0, g1, w);
    each_panel(m0, m1, [&]<int M>(std::int64_t m) {
      tile_of_turned<Bytes, M>(BytePanel(a, m, M, a.packed), g0, g1, w, sums_of(m));
    });
  }
  for (std::int64_t m = m0; m < m1; ++m)
    add_chains<Bytes>(sums_of(m), groups, a.bias ? a.bias + n : nullptr, a.y + m * a.ldy + n);
}

template <class Bytes>
void product_int8(const ProductArgs& a, std::int64_t begin, std::int64_t end, float* scratch) {
  constexpr std::int64_t kRows = 24;  // of W, that stay near for a block of x
  for (std::int64_t m0 = 0; m0 < a.m; m0 += kBlockM) {
    const std::int64_t m1 = m0 + kBlockM < a.m ? m0 + kBlockM : a.m;
    std::int64_t n = begin;
    if (m1 - m0 > kTileM)  // else turning rows of W costs more than it saves
      for (; n + kWidth <= end; n += kWidth) strip_int8<Bytes>(a, n, m0, m1, scratch);
    for (; n < end; n += kRows) {
      const std::int64_t n1 = n + kRows < end ? n + kRows : end;
      each_panel(m0, m1, [&]<int M>(std::int64_t m) { tiles_int8<Bytes, M>(a, m, n, n1); });
    }
  }
}

// Null for weights that there is none for.
inline auto product_int8_for(WeightType type) -> void (*)(const ProductArgs&, std::int64_t, std::int64_t, float*) {
#if defined(__AVX512F__)
  if (!__builtin_cpu_supports("avx512vnni")) return nullptr;
#endif
  switch (type) {
    case WeightType::int8:
      return product_int8<BytesInt8>;
    case WeightType::q4_0:
      return product_int8<BytesQ4_0>;
    case WeightType::q4_1:
      return product_int8<BytesQ4_1>;
    case WeightType::q5_0:
      return product_int8<BytesQ5_0>;
    case WeightType::q5_1:
      return product_int8<BytesQ5_1>;
    case WeightType::q8_0:
      return product_int8<BytesQ8_0>;
    case WeightType::q4_k:
      return product_int8<BytesQ4_K>;
    case WeightType::q5_k:
      return product_int8<BytesQ5_K>;
    case WeightType::q6_k:
      return product_int8<BytesQ6_K>;
    default:
      return nullptr;
  }
}
