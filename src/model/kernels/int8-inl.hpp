// Products with x rounded to 8 bits, by VNNI's instruction for bytes (AVX-512 or AVX-VNNI) or by AVX2's older ones.
// Included by kernels-inl.hpp only, inside that file's namespace: twice beside AVX2, the second time with STEER_VNNI.
//
// Groups of 32 of W as bytes, w = scale q + offset, and of x as signed ones times a scale; their products are added in
// whole numbers, exactly. So W is never widened to floats: blocks of 4 to 8 bits are bound by memory again. What groups
// come to is added in eight chains, group g in chain g % 8 (Q6_K, whose scales are of 16 numbers: sixteen chains), and
// the chains in a fixed order. That is an element's order of additions whichever of two loops computes it: for few rows
// of x the lanes of a vector are chains, for many they are rows of W.

#undef STEER_INT8
#ifdef STEER_VNNI  // the name of a target that has it
#define STEER_INT8 __attribute__((target(STEER_VNNI)))
// Adds to each of eight sums four bytes of W, below 256, by four signed ones of x.
[[gnu::always_inline]] STEER_INT8 inline __m256i add_dots(__m256i sum, __m256i w, __m256i x) {
#if defined(__AVX512F__)
  return _mm256_dpbusd_epi32(sum, w, x);
#elif defined(STEER_DPBUSD)
  return STEER_DPBUSD(sum, w, x);
#else
  return _mm256_dpbusd_avx_epi32(sum, w, x);
#endif
}
#if defined(__AVX512F__)
[[gnu::always_inline]] STEER_INT8 inline __m512i add_dots(__m512i sum, __m512i w, __m512i x) {
  return _mm512_dpbusd_epi32(sum, w, x);
}
#endif
[[gnu::always_inline]] STEER_INT8 inline __m256i dot_unsigned(__m256i w, __m256i x) {
  return add_dots(_mm256_setzero_si256(), w, x);
}
// There is no instruction for two signed factors: W is raised by kRaised.
constexpr int kRaised = 128;
[[gnu::always_inline]] STEER_INT8 inline __m256i dot_signed(__m256i w, __m256i x) {
  return dot_unsigned(_mm256_xor_si256(w, _mm256_set1_epi8(-128)), x);
}
#else
#define STEER_INT8
// Two products are added in 16 bits first: W's bytes are below 64 here, or of seven bits and a sign.
inline __m256i dot_unsigned(__m256i w, __m256i x) {
  return _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1));
}
constexpr int kRaised = 0;
inline __m256i dot_signed(__m256i w, __m256i x) { return dot_unsigned(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)); }
#endif

// The first `count` of eight floats, zeros behind them: nothing was written there.
[[gnu::always_inline]] inline __m256 first8(const float* p, std::int64_t count) {
  if (count == 8) return _mm256_loadu_ps(p);
  const __m256i lanes =
      _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  return _mm256_maskload_ps(p, lanes);
}

inline __m256i with_fifth_bits(const std::uint8_t* nibbles, const std::uint8_t* high) {
#if defined(__AVX512F__)
  return _mm256_or_si256(nibbles32(nibbles), _mm256_maskz_set1_epi8(read_u32(high), 16));
#else
  return five_bits(nibbles, high);
#endif
}

// What eight groups of a row are, their scales and offsets: w = scale q + offset.
struct Groups8 {
  alignas(64) float scale[16], offset[8];
};

// A kind of weight as bytes, eight groups of a row at a time:
//   static Eight eight(Row, int64 g)                       groups from g on, a multiple of 8
//   static void head(Eight, int64 count, Groups8& out)     of the first `count`; the others' are not used
//   static __m256i group(Eight, int at)                    q of one of them: unsigned bytes, or, if kSigned, signed
//   ones
//                                                          that `dot_signed` raises
//   kMost                                                  the largest of them, or of their amounts
struct BytesInt8 {
  using Format = FormatInt8;
  using Eight = Int8Row;
  static constexpr bool kSigned = true;
  static constexpr int kMost = 128;
  static Eight eight(const Int8Row& r, std::int64_t g) { return {r.q + g * kGroup, r.scale + g}; }
  static void head(const Eight& e, std::int64_t count, Groups8& out) {
    const __m256 scale = first8(e.scale, count);
    _mm256_store_ps(out.scale, scale);
    _mm256_store_ps(out.offset, _mm256_mul_ps(scale, _mm256_set1_ps(-kRaised)));
  }
  static __m256i group(const Eight& e, int at) { return load_256(e.q + at * kGroup); }
};

// Blocks of one group: a scale `d`; offsets `Zero` below, or a minimum `m`.
template <class F32, int Zero, bool Signed = false>
struct BytesSingle {
  using Format = F32;
  using Eight = typename F32::Row;
  static constexpr bool kSigned = Signed;
  static Eight eight(Eight r, std::int64_t g) { return r + g; }
  static void head(Eight e, std::int64_t count, Groups8& out) {
    const __m256 scale = halves8(&e->d, count);
    _mm256_store_ps(out.scale, scale);
    if constexpr (Signed || Zero != 0)
      _mm256_store_ps(out.offset, _mm256_mul_ps(scale, _mm256_set1_ps(-Zero)));
    else
      _mm256_store_ps(out.offset, halves8(&e->m, count));
  }

 private:
  static __m256 halves8(const ggml::Half* first, std::int64_t count) {
    const auto* b = reinterpret_cast<const std::uint8_t*>(first);
    alignas(16) std::uint16_t bits[8] = {};
    if (count == 8) {
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) __builtin_memcpy(bits + i, b + i * F32::kBytes, 2);
      return _mm256_cvtph_ps(_mm_setr_epi16(bits[0], bits[1], bits[2], bits[3], bits[4], bits[5], bits[6], bits[7]));
    }
    for (std::int64_t i = 0; i < 8 && i < count; ++i) __builtin_memcpy(bits + i, b + i * F32::kBytes, 2);
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(bits)));
  }
};
struct BytesQ8_0 : BytesSingle<FormatQ8_0, kRaised, true> {
  static constexpr int kMost = 128;
  static __m256i group(Eight e, int at) { return load_256(e[at].qs); }
};
struct BytesQ4_0 : BytesSingle<FormatQ4_0, 8> {
  static constexpr int kMost = 15;
  static __m256i group(Eight e, int at) { return nibbles32(e[at].qs); }
};
struct BytesQ4_1 : BytesSingle<FormatQ4_1, 0> {
  static constexpr int kMost = 15;
  static __m256i group(Eight e, int at) { return nibbles32(e[at].qs); }
};
struct BytesQ5_0 : BytesSingle<FormatQ5_0, 16> {
  static constexpr int kMost = 31;
  static __m256i group(Eight e, int at) { return with_fifth_bits(e[at].qs, e[at].qh); }
};
struct BytesQ5_1 : BytesSingle<FormatQ5_1, 0> {
  static constexpr int kMost = 31;
  static __m256i group(Eight e, int at) { return with_fifth_bits(e[at].qs, e[at].qh); }
};

// Blocks of eight groups.
template <class F32>
struct BytesOfEight {
  using Format = F32;
  using Eight = typename F32::Row;
  static constexpr bool kSigned = false;
  static Eight eight(Eight r, std::int64_t g) { return r + g / 8; }
};
struct BytesQ4_K : BytesOfEight<FormatQ4_K> {
  static constexpr int kMost = 15;
  static void head(Eight e, std::int64_t, Groups8& out) { scales_and_offsets(*e, out.scale, out.offset); }
  static __m256i group(Eight e, int at) { return bits32<4>(e->qs + at / 2 * 32, 4 * (at % 2)); }
};
struct BytesQ5_K : BytesOfEight<FormatQ5_K> {
  static constexpr int kMost = 31;
  static void head(Eight e, std::int64_t, Groups8& out) { scales_and_offsets(*e, out.scale, out.offset); }
  static __m256i group(Eight e, int at) { return four_and_more<1>(e->qs + at / 2 * 32, 4 * (at % 2), e->qh, at); }
};
// Scales of 16 values each: `scale` holds all 16 by chain, 32 below which the values are.
struct BytesQ6_K : BytesOfEight<FormatQ6_K> {
  static constexpr int kMost = 63;
  static void head(Eight e, std::int64_t, Groups8& out) {
    float scales[16];
    const F d = set1_half(e->d);
    for (int i = 0; i < 16; i += kWidth) store(scales + i, mul(to_float(load_i8(e->scales + i)), d));
    const __m256i by_chain = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    for (int i = 0; i < 16; i += 8)
      _mm256_store_ps(out.scale + i, _mm256_permutevar8x32_ps(_mm256_loadu_ps(scales + i), by_chain));
  }
  static __m256i group(Eight e, int at) {
    const int half = at / 4, quarter = at % 4;
    return four_and_more<2>(e->ql + half * 64 + quarter % 2 * 32, quarter / 2 * 4, e->qh + half * 32, quarter * 2);
  }
};

template <class Bytes>
constexpr bool kOfHalves = std::is_same_v<Bytes, BytesQ6_K>;
template <class Bytes>
constexpr int kChains = kOfHalves<Bytes> ? 16 : 8;
template <class Bytes>
constexpr bool kHasOffset = !Bytes::kSigned || kRaised != 0;

// The sums of the halves of four vectors: first halves, then second ones.
[[gnu::always_inline]] inline __m256i sums_of_halves(const __m256i* a) {
  return _mm256_hadd_epi32(_mm256_hadd_epi32(a[0], a[1]), _mm256_hadd_epi32(a[2], a[3]));
}
// The sums of eight vectors.
[[gnu::always_inline]] inline __m256i sums_of_eight(const __m256i* a) {
  const __m256i low = sums_of_halves(a), high = sums_of_halves(a + 4);
  return _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31));
}

// Up to eight groups of a row of W by those of M rows of x.
template <class Bytes, int M>
[[gnu::always_inline]] STEER_INT8 inline void add_eight(const typename Bytes::Eight& w, const std::int8_t* x,
                                                        const float* scales, std::int64_t count,
                                                        __m256 (&sum)[M][kChains<Bytes> / 8]) {
  Groups8 head;
  Bytes::head(w, count, head);
  __m256i dot[M][8];
#pragma GCC unroll 8
  for (int at = 0; at < 8; ++at) {
    if (at < count) {
      const __m256i q = Bytes::group(w, at);
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) {
        const __m256i xv = load_256(x + (at * M + i) * kGroup);
        dot[i][at] = Bytes::kSigned ? dot_signed(q, xv) : dot_unsigned(q, xv);
      }
    } else {
      for (int i = 0; i < M; ++i) dot[i][at] = _mm256_setzero_si256();
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < M; ++i) {
    const float* of_row = scales + kScalesOf8 * i;
    const __m256 of_x = first8(of_row, count);
    if constexpr (kOfHalves<Bytes>) {
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        const __m256 scale = _mm256_load_ps(head.scale + 8 * h);
        const __m128 four = h == 0 ? _mm256_castps256_ps128(of_x) : _mm256_extractf128_ps(of_x, 1);
        sum[i][h] =
            _mm256_fmadd_ps(_mm256_mul_ps(scale, _mm256_set1_ps(-32)), _mm256_loadu_ps(of_row + 16 + 8 * h), sum[i][h]);
        sum[i][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums_of_halves(dot[i] + 4 * h)),
                                    _mm256_mul_ps(scale, _mm256_set_m128(four, four)), sum[i][h]);
      }
    } else {
      if constexpr (kHasOffset<Bytes>)
        sum[i][0] = _mm256_fmadd_ps(_mm256_load_ps(head.offset), first8(of_row + 8, count), sum[i][0]);
      sum[i][0] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums_of_eight(dot[i])),
                                  _mm256_mul_ps(_mm256_load_ps(head.scale), of_x), sum[i][0]);
    }
  }
}

// So far ahead of what is in work W is fetched: memory answers later than a short row is done.
constexpr std::int64_t kFetchedBytes = 4096;

template <class Bytes>
[[gnu::always_inline]] inline void fetch_eight(const std::uint8_t* at) {
#pragma GCC unroll 8
  for (int line = 0; line < 8 * Bytes::Format::kBytes; line += 64) __builtin_prefetch(at + line, 0, 2);
}

// M rows of x by rows [n0, n1) of W.
template <class Bytes, int M>
[[gnu::noinline]] STEER_INT8 void tiles_int8(const ProductArgs& a, std::int64_t m, std::int64_t n0, std::int64_t n1) {
  const std::int64_t groups = padded(a.weight.k) / kGroup;
  const BytePanel panel(a, m, M, a.packed);
  for (std::int64_t n = n0; n < n1; ++n) {
    const auto row = Bytes::Format::row(a.weight, n);
    const std::uint8_t* ahead = m == 0 ? row_start(a.weight, n) + kFetchedBytes : nullptr;
    __m256 sum[M][kChains<Bytes> / 8];
    for (auto& of_row : sum) {
      for (auto& s : of_row) s = _mm256_setzero_ps();
    }
    const std::int8_t* x = panel.bytes;
    const float* scales = panel.scales;
    std::int64_t g = 0;
    for (; g + 8 <= groups; g += 8, x += 8 * M * kGroup, scales += kScalesOf8 * M) {
      if (ahead) fetch_eight<Bytes>(ahead + g * Bytes::Format::kBytes);
      add_eight<Bytes, M>(Bytes::eight(row, g), x, scales, 8, sum);
    }
    if constexpr (Bytes::Format::kBlock == 1) {
      if (g < groups) {
        if (ahead) fetch_eight<Bytes>(ahead + g * Bytes::Format::kBytes);
        add_eight<Bytes, M>(Bytes::eight(row, g), x, scales, groups - g, sum);
      }
    }
    for (int i = 0; i < M; ++i) {
      const __m256 all = kOfHalves<Bytes> ? _mm256_add_ps(sum[i][0], sum[i][kChains<Bytes> / 8 - 1]) : sum[i][0];
      __m128 four = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
      four = _mm_add_ps(four, _mm_movehl_ps(four, four));
      a.y[(m + i) * a.ldy + n] =
          _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1))) + (a.bias ? a.bias[n] : 0.0f);
    }
  }
}
