// Products with rounded activations, where AVX-512 has instructions for them. Included by kernels-inl.hpp only, inside
// that file's namespace. As in product-inl.hpp, the order of an element's additions does not depend on its tile.
//
// bf16: W as it lies in memory, vdpbf16ps adds 32 products to 16 sums.
// int8: groups of 32 of W as unsigned bytes, w = scale q + offset, and of x as signed ones times a scale; vpdpbusd adds
// products in whole numbers, exactly. So W is never widened to floats: blocks of 4 to 8 bits are bound by memory again.

#define STEER_ROUNDED __attribute__((target("avx512bf16,avx512vnni")))

inline bool rounds_type(WeightType type, Rounding rounding) {
  if (rounding == Rounding::bf16) return type == WeightType::bf16 && __builtin_cpu_supports("avx512bf16");
  if (rounding != Rounding::int8 || !__builtin_cpu_supports("avx512vnni")) return false;
  switch (type) {
    case WeightType::int8:
    case WeightType::q4_0:
    case WeightType::q4_1:
    case WeightType::q5_0:
    case WeightType::q5_1:
    case WeightType::q8_0:
    case WeightType::q4_k:
    case WeightType::q5_k:
    case WeightType::q6_k:
      return true;
    default:
      return false;
  }
}

// Numbers [at, at + 16) of a row of x, zeros behind k.
inline F sixteen_of(const ProductArgs& a, std::int64_t row, std::int64_t at) {
  const std::int64_t left = a.weight.k - at;
  const float* from = a.x + row * a.ldx + at;
  return left >= kWidth ? load(from) : left > 0 ? load_first(from, left) : zero();
}

// Panels as those of pack_rows, of half the size: [step of kGroup][row][kGroup] bf16.
STEER_ROUNDED inline void pack_bf16(const ProductArgs& a, std::int64_t begin, std::int64_t end, float* packed) {
  const std::int64_t length = padded(a.weight.k);
  for (std::int64_t first = 0; first < a.m; first += kTileM) {
    const std::int64_t rows = a.m - first < kTileM ? a.m - first : kTileM;
    auto* panel = reinterpret_cast<std::uint16_t*>(packed + first * length);
    for (std::int64_t at = begin; at < end; at += kGroup) {
      for (std::int64_t r = 0; r < rows; ++r) {
        const __m512bh both = _mm512_cvtne2ps_pbh(sixteen_of(a, first + r, at + kWidth), sixteen_of(a, first + r, at));
        _mm512_storeu_si512(panel + at * rows + r * kGroup, reinterpret_cast<__m512i>(both));
      }
    }
  }
}

template <int M, int N>
[[gnu::noinline]] STEER_ROUNDED void tile_bf16(const ProductArgs& a, std::int64_t m, std::int64_t n) {
  const std::int64_t k = a.weight.k, groups = k / kGroup, rest = k % kGroup;
  const auto* x = reinterpret_cast<const std::uint16_t*>(a.packed + m * padded(k));
  const std::uint16_t* rows[N];
#pragma GCC unroll 8
  for (int j = 0; j < N; ++j) rows[j] = FormatBf16::row(a.weight, n + j);
  const std::uint8_t* next = m == 0 && n + 2 * N <= a.weight.n ? row_start(a.weight, n + N) : nullptr;
  F sum[M][N];
  clear(sum);
  for (std::int64_t g = 0; g < groups; ++g, x += M * kGroup) {
    if (next) {
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) __builtin_prefetch(next + (g * N + j) * 64, 0, 2);
    }
    __m512bh w[N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) w[j] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(rows[j] + g * kGroup));
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
      const auto xv = reinterpret_cast<__m512bh>(_mm512_loadu_si512(x + i * kGroup));
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], w[j], xv);
    }
  }
  if (rest > 0) {
    const auto lanes = static_cast<__mmask32>((std::uint32_t{1} << rest) - 1);
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) {
      const auto w = reinterpret_cast<__m512bh>(_mm512_maskz_loadu_epi16(lanes, rows[j] + groups * kGroup));
#pragma GCC unroll 8
      for (int i = 0; i < M; ++i) {
        const auto xv = reinterpret_cast<__m512bh>(_mm512_loadu_si512(x + i * kGroup));
        sum[i][j] = _mm512_dpbf16_ps(sum[i][j], w, xv);
      }
    }
  }
  finish<M, N>(sum, a, m, n);
}

inline void product_bf16(const ProductArgs& a, std::int64_t begin, std::int64_t end) {
  for (std::int64_t m0 = 0; m0 < a.m; m0 += kBlockM) {
    const std::int64_t m1 = m0 + kBlockM < a.m ? m0 + kBlockM : a.m;
    std::int64_t n = begin;
    for (; n + kTileN <= end; n += kTileN) {
      each_panel(m0, m1, [&]<int M>(std::int64_t m) { tile_bf16<M, kTileN>(a, m, n); });
    }
    for (; n < end; ++n) {
      each_panel(m0, m1, [&]<int M>(std::int64_t m) { tile_bf16<M, 1>(a, m, n); });
    }
  }
}

// A panel of `rows` rounded to 8 bits: [group][row][32] bytes; then, for each eight groups and row, their scales, scale
// times sum of each, and of each half.
constexpr std::int64_t kScalesOf8 = 32;
struct BytePanel {
  std::int8_t* bytes;
  float* scales;
  BytePanel(const ProductArgs& a, std::int64_t first, std::int64_t rows, const float* packed) {
    const std::int64_t length = padded(a.weight.k);
    bytes = reinterpret_cast<std::int8_t*>(const_cast<float*>(packed) + first * length);
    scales = reinterpret_cast<float*>(bytes + rows * length);
  }
};

inline void pack_int8(const ProductArgs& a, std::int64_t begin, std::int64_t end, float* packed) {
  for (std::int64_t first = 0; first < a.m; first += kTileM) {
    const std::int64_t rows = a.m - first < kTileM ? a.m - first : kTileM;
    const BytePanel panel(a, first, rows, packed);
    for (std::int64_t at = begin; at < end; at += kGroup) {
      const std::int64_t g = at / kGroup;
      for (std::int64_t r = 0; r < rows; ++r) {
        const F low = sixteen_of(a, first + r, at), high = sixteen_of(a, first + r, at + kWidth);
        const float most = _mm512_reduce_max_ps(max(_mm512_abs_ps(low), _mm512_abs_ps(high)));
        const F inverse = set1(most > 0 ? 127.0f / most : 0.0f);
        const I a0 = to_int(mul(low, inverse)), a1 = to_int(mul(high, inverse));
        auto* to = reinterpret_cast<__m128i*>(panel.bytes + (g * rows + r) * kGroup);
        _mm_storeu_si128(to, _mm512_cvtsepi32_epi8(a0));
        _mm_storeu_si128(to + 1, _mm512_cvtsepi32_epi8(a1));
        float* scales = panel.scales + (g / 8 * rows + r) * kScalesOf8;
        const float scale = most / 127.0f, halves[2] = {scale * static_cast<float>(_mm512_reduce_add_epi32(a0)),
                                                        scale * static_cast<float>(_mm512_reduce_add_epi32(a1))};
        scales[g % 8] = scale;
        scales[8 + g % 8] = halves[0] + halves[1];
        __builtin_memcpy(scales + 16 + g % 8 * 2, halves, sizeof halves);
      }
    }
  }
}

inline __m256i bytes32(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline __m256i nibbles32(const std::uint8_t* p) {
  const __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_and_si256(_mm256_inserti128_si256(_mm256_castsi128_si256(both), _mm_srli_epi16(both, 4), 1),
                          _mm256_set1_epi8(15));
}
inline __m256i fifth_bits(std::uint32_t bits) { return _mm256_maskz_set1_epi8(bits, 16); }

// Up to eight groups of a row from group g on, as unsigned bytes: w = scale q + offset. kBytesOf: of eight groups.
struct Groups8 {
  alignas(64) float scale[16], offset[8];
};

struct BytesInt8 {
  using Format = FormatInt8;
  static void head(const Int8Row& r, std::int64_t g, std::int64_t count, Groups8& out) {
    const auto lanes = static_cast<__mmask8>((1u << count) - 1);
    const __m256 scale = _mm256_maskz_loadu_ps(lanes, r.scale + g);
    _mm256_store_ps(out.scale, scale);
    _mm256_store_ps(out.offset, _mm256_mul_ps(scale, _mm256_set1_ps(-128)));
  }
  static __m256i group(const Int8Row& r, std::int64_t g) {
    return _mm256_xor_si256(bytes32(r.q + g * kGroup), _mm256_set1_epi8(-128));
  }
};

// Blocks of one group: a scale `d`; offsets `Zero` below, or a minimum `m`.
template <class F32, int Zero>
struct BytesSingle {
  using Format = F32;
  using Row = typename F32::Row;
  static void head(Row r, std::int64_t g, std::int64_t count, Groups8& out) {
    const __m256 scale = halves8(&r[g].d, count);
    _mm256_store_ps(out.scale, scale);
    if constexpr (Zero != 0)
      _mm256_store_ps(out.offset, _mm256_mul_ps(scale, _mm256_set1_ps(-Zero)));
    else
      _mm256_store_ps(out.offset, halves8(&r[g].m, count));
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
    for (std::int64_t i = 0; i < count; ++i) __builtin_memcpy(bits + i, b + i * F32::kBytes, 2);
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(bits)));
  }
};
struct BytesQ8_0 : BytesSingle<FormatQ8_0, 128> {
  static __m256i group(Row r, std::int64_t g) { return _mm256_xor_si256(bytes32(r[g].qs), _mm256_set1_epi8(-128)); }
};
struct BytesQ4_0 : BytesSingle<FormatQ4_0, 8> {
  static __m256i group(Row r, std::int64_t g) { return nibbles32(r[g].qs); }
};
struct BytesQ4_1 : BytesSingle<FormatQ4_1, 0> {
  static __m256i group(Row r, std::int64_t g) { return nibbles32(r[g].qs); }
};
struct BytesQ5_0 : BytesSingle<FormatQ5_0, 16> {
  static __m256i group(Row r, std::int64_t g) {
    return _mm256_or_si256(nibbles32(r[g].qs), fifth_bits(read_u32(r[g].qh)));
  }
};
struct BytesQ5_1 : BytesSingle<FormatQ5_1, 0> {
  static __m256i group(Row r, std::int64_t g) {
    return _mm256_or_si256(nibbles32(r[g].qs), fifth_bits(read_u32(r[g].qh)));
  }
};
// Even groups are the low halves of 32 bytes, odd ones the high halves.
inline __m256i half_bytes(const std::uint8_t* p, std::int64_t odd) {
  return _mm256_and_si256(_mm256_srl_epi16(bytes32(p), _mm_cvtsi64_si128(4 * odd)), _mm256_set1_epi8(15));
}
struct BytesQ4_K {
  using Format = FormatQ4_K;
  static void head(Format::Row r, std::int64_t g, std::int64_t, Groups8& out) {
    scales_and_offsets(r[g / 8], out.scale, out.offset);
  }
  static __m256i group(Format::Row r, std::int64_t g) { return half_bytes(r[g / 8].qs + g % 8 / 2 * 32, g % 2); }
};
struct BytesQ5_K {
  using Format = FormatQ5_K;
  static void head(Format::Row r, std::int64_t g, std::int64_t, Groups8& out) {
    scales_and_offsets(r[g / 8], out.scale, out.offset);
  }
  static __m256i group(Format::Row r, std::int64_t g) {
    const ggml::Q5_K& b = r[g / 8];
    const __m256i fifth = _mm256_srl_epi16(bytes32(b.qh), _mm_cvtsi64_si128(g % 8));
    return _mm256_or_si256(half_bytes(b.qs + g % 8 / 2 * 32, g % 2),
                           _mm256_slli_epi16(_mm256_and_si256(fifth, _mm256_set1_epi8(1)), 4));
  }
};
// Scales of 16 values each: `scale` holds all 16, 32 below which the values are.
struct BytesQ6_K {
  using Format = FormatQ6_K;
  static void head(Format::Row r, std::int64_t g, std::int64_t, Groups8& out) {
    const ggml::Q6_K& b = r[g / 8];
    store(out.scale, mul(to_float(load_i8(b.scales)), set1_half(b.d)));
  }
  static __m256i group(Format::Row r, std::int64_t g) {
    const ggml::Q6_K& b = r[g / 8];
    const std::int64_t half = g % 8 / 4, quarter = g % 4;
    const __m256i high = _mm256_srl_epi16(bytes32(b.qh + half * 32), _mm_cvtsi64_si128(2 * quarter));
    return _mm256_or_si256(half_bytes(b.ql + half * 64 + quarter % 2 * 32, quarter / 2),
                           _mm256_slli_epi16(_mm256_and_si256(high, _mm256_set1_epi8(3)), 4));
  }
};

// M rows of x by row n of W. Even and odd groups have sums of their own: one would wait for its own last addition.
template <class Bytes, int M>
[[gnu::noinline]] STEER_ROUNDED void tile_int8(const ProductArgs& a, std::int64_t m, std::int64_t n) {
  constexpr bool kSixteens = std::is_same_v<Bytes, BytesQ6_K>;
  const auto row = Bytes::Format::row(a.weight, n);
  const std::int64_t groups = padded(a.weight.k) / kGroup;
  const BytePanel panel(a, m, M, a.packed);
  const std::int8_t* x = panel.bytes;
  const float* scales = panel.scales;
  const std::uint8_t* next = m == 0 && n + 1 < a.weight.n ? row_start(a.weight, n + 1) : nullptr;
  __m256 sum[2][M];
  for (auto& half : sum) {
    for (auto& s : half) s = _mm256_setzero_ps();
  }
  Groups8 head{};
  for (std::int64_t g = 0; g < groups; g += 8, scales += kScalesOf8 * M) {
    const std::int64_t count = groups - g < 8 ? groups - g : 8;
    const auto there = static_cast<__mmask8>((1u << count) - 1);  // behind them nothing was written
    Bytes::head(row, g, count, head);
    if (next) {
      for (std::int64_t line = 0; line < count * Bytes::Format::kBytes; line += 64)
        __builtin_prefetch(next + g * Bytes::Format::kBytes + line, 0, 2);
    }
    alignas(64) float both[M][kSixteens ? 16 : 8];
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) {
      const __m256 of_x = _mm256_maskz_loadu_ps(there, scales + kScalesOf8 * i);
      if constexpr (kSixteens) {
        const F twice = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7),
                                              _mm512_castps256_ps512(of_x));
        const F all = load(head.scale), down = mul(mul(all, set1(-32)), load(scales + kScalesOf8 * i + 16));
        store(both[i], mul(all, twice));
        sum[0][i] =
            _mm256_add_ps(sum[0][i], _mm256_add_ps(_mm512_castps512_ps256(down), _mm512_extractf32x8_ps(down, 1)));
      } else {
        _mm256_store_ps(both[i], _mm256_mul_ps(_mm256_load_ps(head.scale), of_x));
        sum[0][i] = _mm256_fmadd_ps(_mm256_load_ps(head.offset),
                                    _mm256_maskz_loadu_ps(there, scales + kScalesOf8 * i + 8), sum[0][i]);
      }
    }
    const auto one = [&](std::int64_t at, __m256(&to)[M]) STEER_ROUNDED __attribute__((always_inline)) {
      const __m256i q = Bytes::group(row, g + at);
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) {
        const __m256i xv = bytes32(x + ((g + at) * M + i) * kGroup);
        const __m256i dot = _mm256_dpbusd_epi32(_mm256_setzero_si256(), q, xv);
        __m256 scale;
        if constexpr (kSixteens) {
          const I pair = add_i(_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0),
                               set1_i(static_cast<int>(2 * at)));
          scale = _mm512_castps512_ps256(_mm512_permutexvar_ps(pair, load(both[i])));
        } else {
          scale = _mm256_set1_ps(both[i][at]);
        }
        to[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, to[i]);
      }
    };
    if (count == 8) {
#pragma GCC unroll 4
      for (std::int64_t at = 0; at < 8; at += 2) {
        one(at, sum[0]);
        one(at + 1, sum[1]);
      }
    } else {
      for (std::int64_t at = 0; at < count; ++at) one(at, sum[at % 2]);
    }
  }
  for (int i = 0; i < M; ++i) {
    const __m256 all = _mm256_add_ps(sum[0][i], sum[1][i]);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    a.y[(m + i) * a.ldy + n] =
        _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1))) + (a.bias ? a.bias[n] : 0.0f);
  }
}

template <class Bytes>
void product_int8(const ProductArgs& a, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t kRows = 24;  // of W, that stay near for a block of x
  for (std::int64_t m0 = 0; m0 < a.m; m0 += kBlockM) {
    const std::int64_t m1 = m0 + kBlockM < a.m ? m0 + kBlockM : a.m;
    for (std::int64_t n0 = begin; n0 < end; n0 += kRows) {
      const std::int64_t n1 = n0 + kRows < end ? n0 + kRows : end;
      each_panel(m0, m1, [&]<int M>(std::int64_t m) {
        for (std::int64_t n = n0; n < n1; ++n) tile_int8<Bytes, M>(a, m, n);
      });
    }
  }
}

inline void rounded_product(const ProductArgs& a, std::int64_t begin, std::int64_t end) {
  if (a.rounding == Rounding::bf16) return product_bf16(a, begin, end);
  switch (a.weight.type) {
    case WeightType::int8:
      return product_int8<BytesInt8>(a, begin, end);
    case WeightType::q4_0:
      return product_int8<BytesQ4_0>(a, begin, end);
    case WeightType::q4_1:
      return product_int8<BytesQ4_1>(a, begin, end);
    case WeightType::q5_0:
      return product_int8<BytesQ5_0>(a, begin, end);
    case WeightType::q5_1:
      return product_int8<BytesQ5_1>(a, begin, end);
    case WeightType::q8_0:
      return product_int8<BytesQ8_0>(a, begin, end);
    case WeightType::q4_k:
      return product_int8<BytesQ4_K>(a, begin, end);
    case WeightType::q5_k:
      return product_int8<BytesQ5_K>(a, begin, end);
    case WeightType::q6_k:
      return product_int8<BytesQ6_K>(a, begin, end);
    default:
      return;  // rounds_type says no
  }
}
