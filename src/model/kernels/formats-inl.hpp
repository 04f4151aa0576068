// How 32 consecutive weights of a row become vectors of floats, for each WeightType. Included by kernels-inl.hpp only,
// inside that file's namespace.
//
// A format is a type with
//   using Row = ...;                                  what `block` needs of a row
//   static Row row(const WeightView&, int64 n);
//   kBytes                                           of 32 weights in memory, for prefetching
//   kBlock, kStep                                    groups that share a Block; groups that `step` decodes at once
//   static Block block(const Row&, int64 g);         of groups [g, g + kBlock), g a multiple of kBlock
//   static void step(const Block&, int s, put);      its groups from s kStep on: put(v, F) for v = 0 to
//                                                    kStep kVectors - 1, in that order. Each vector is put as soon as
//                                                    it is decoded, so that no more than a few wait in registers
//   static void tail(const Row&, int64 g, int64 count, put);    fewer than 32, the others 0; not for kBlock > 1, where
//                                                    rows are whole blocks
// and, if rows [n, n + rows) have something elsewhere in memory,
//   static void fetch_apart(const WeightView&, int64 n, int64 rows);
// Formats whose groups stand alone give `group(const Row&, int64 g, put)` and derive from SingleGroups.
// Blocks lie in memory as io/ggml_blocks.hpp says.

namespace ggml = io::detail::ggml;

constexpr int kGroup = 32;
constexpr int kVectors = kGroup / kWidth;

inline float read_half(ggml::Half bits) {
#ifdef STEER_KERNEL_X86
  return _cvtsh_ss(bits);
#else
  return half_to_float(bits);
#endif
}

inline F set1_half(ggml::Half bits) {
#ifdef STEER_KERNEL_X86
  return from_halves(static_cast<std::int16_t>(bits));
#else
  return set1(read_half(bits));
#endif
}

#ifdef STEER_KERNEL_X86
inline __m256i load_256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
#endif

inline std::uint32_t read_u32(const std::uint8_t* p) {
  std::uint32_t a;
  __builtin_memcpy(&a, p, sizeof a);
  return a;
}

inline const std::uint8_t* row_start(const WeightView& w, std::int64_t n) {
  return static_cast<const std::uint8_t*>(w.data) + n * w.row_bytes;
}

template <class Derived, class RowType>
struct SingleGroups {
  static constexpr int kBlock = 1, kStep = 1;
  using Row = RowType;
  struct Block {
    Row row;
    std::int64_t g;
  };
  [[gnu::always_inline]] static Block block(const Row& r, std::int64_t g) { return {r, g}; }
  template <class Put>
  [[gnu::always_inline]] static void step(const Block& b, int, const Put& put) {
    Derived::group(b.row, b.g, put);
  }
  // For formats of whole groups: rows are padded (int8) or must be whole blocks (GGUF).
  template <class Put>
  [[gnu::always_inline]] static void tail(const Row& r, std::int64_t g, std::int64_t, const Put& put) {
    Derived::group(r, g, put);
  }
};

struct FormatF32 : SingleGroups<FormatF32, const float*> {
  static constexpr int kBytes = 128;
  static Row row(const WeightView& w, std::int64_t n) { return reinterpret_cast<const float*>(row_start(w, n)); }
  template <class Put>
  [[gnu::always_inline]] static void group(Row r, std::int64_t g, const Put& put) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) put(v, load(r + g * kGroup + v * kWidth));
  }
  template <class Put>
  static void tail(Row r, std::int64_t g, std::int64_t count, const Put& put) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) put(v, load_up_to(r + g * kGroup + v * kWidth, count - v * kWidth));
  }
};

template <F (*Load)(const std::uint16_t*)>
struct Format16 : SingleGroups<Format16<Load>, const std::uint16_t*> {
  static constexpr int kBytes = 64;
  using Row = const std::uint16_t*;
  static Row row(const WeightView& w, std::int64_t n) {
    return reinterpret_cast<const std::uint16_t*>(row_start(w, n));
  }
  template <class Put>
  [[gnu::always_inline]] static void group(Row r, std::int64_t g, const Put& put) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) put(v, Load(r + g * kGroup + v * kWidth));
  }
  template <class Put>
  static void tail(Row r, std::int64_t g, std::int64_t count, const Put& put) {
    std::uint16_t padded[kGroup] = {};
    __builtin_memcpy(padded, r + g * kGroup, count * sizeof(std::uint16_t));
    group(padded, 0, put);
  }
};
using FormatBf16 = Format16<load_bf16>;
using FormatF16 = Format16<load_f16>;

struct Int8Row {
  const std::int8_t* q;
  const float* scale;
};

struct FormatInt8 : SingleGroups<FormatInt8, Int8Row> {
  static constexpr int kBytes = 32;
  static Row row(const WeightView& w, std::int64_t n) {
    return {reinterpret_cast<const std::int8_t*>(row_start(w, n)), w.scales + n * ((w.k + kGroup - 1) / kGroup)};
  }
  static void fetch_apart(const WeightView& w, std::int64_t n, std::int64_t rows) {
    const float *at = row(w, n).scale, *end = row(w, n + rows).scale;
    for (; at < end; at += 64 / sizeof(float)) __builtin_prefetch(at, 0, 2);
  }
  template <class Put>
  [[gnu::always_inline]] static void group(const Row& r, std::int64_t g, const Put& put) {
    const F scale = set1(r.scale[g]);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) put(v, mul(to_float(load_i8(r.q + g * kGroup + v * kWidth)), scale));
  }
};

/// A row of blocks of one kind.
template <class B>
inline const B* blocks_of_row(const WeightView& w, std::int64_t n) {
  return reinterpret_cast<const B*>(row_start(w, n));
}

template <class Derived, class B>
struct SingleBlocks : SingleGroups<Derived, const B*> {
  static constexpr int kBytes = sizeof(B);
  using Row = const B*;
  static Row row(const WeightView& w, std::int64_t n) { return blocks_of_row<B>(w, n); }
};

struct FormatQ8_0 : SingleBlocks<FormatQ8_0, ggml::Q8_0> {
  template <class Put>
  [[gnu::always_inline]] static void group(Row r, std::int64_t g, const Put& put) {
    const ggml::Q8_0& b = r[g];
    const F d = set1_half(b.d);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) put(v, mul(to_float(load_i8(b.qs + v * kWidth)), d));
  }
};

// The 32 nibbles of 16 bytes as points of a line: the low ones are values 0..15, the high ones 16..31.
template <class Put>
[[gnu::always_inline]] inline void nibbles_on(const Line16& line, const std::uint8_t* qs, const Put& put) {
  constexpr int half = kVectors / 2;
#pragma GCC unroll 8
  for (int v = 0; v < half; ++v) put(v, point(line, load_u8(qs + v * kWidth)));
#pragma GCC unroll 8
  for (int v = 0; v < half; ++v) put(v + half, high_point(line, load_u8(qs + v * kWidth)));
}

struct FormatQ4_0 : SingleBlocks<FormatQ4_0, ggml::Q4_0> {
  template <class Put>
  [[gnu::always_inline]] static void group(Row r, std::int64_t g, const Put& put) {
    const ggml::Q4_0& b = r[g];
    nibbles_on(line16_through_zero(set1_half(b.d), -8), b.qs, put);
  }
};

struct FormatQ4_1 : SingleBlocks<FormatQ4_1, ggml::Q4_1> {
  template <class Put>
  [[gnu::always_inline]] static void group(Row r, std::int64_t g, const Put& put) {
    const ggml::Q4_1& b = r[g];
    nibbles_on(line16(set1_half(b.d), set1_half(b.m)), b.qs, put);
  }
};

#ifdef STEER_KERNEL_X86
// Values of 4, 5 or 6 bits as 32 unsigned bytes. The nibbles of 16 bytes: the low ones are values 0..15, the high ones
// 16..31.
[[gnu::always_inline]] inline __m256i nibbles32(const std::uint8_t* p) {
  const __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(both, 4), both), _mm256_set1_epi8(15));
}

// Bits [shift, shift + Bits) of each of 32 bytes.
template <int Bits>
[[gnu::always_inline]] inline __m256i bits32(const std::uint8_t* p, int shift) {
  return _mm256_and_si256(_mm256_srl_epi16(load_256(p), _mm_cvtsi32_si128(shift)), _mm256_set1_epi8((1 << Bits) - 1));
}

// Four bits from one place and `High` more, above them, from another.
template <int High>
[[gnu::always_inline]] inline __m256i four_and_more(const std::uint8_t* low, int low_shift, const std::uint8_t* high,
                                                    int high_shift) {
  return _mm256_or_si256(bits32<4>(low, low_shift), _mm256_slli_epi16(bits32<High>(high, high_shift), 4));
}
#endif

#if defined(__AVX512F__)
// The bits of vector v's lanes among the 32 at p.
[[gnu::always_inline]] inline std::uint32_t lane_bits(const std::uint8_t* p, int v) {
  std::uint16_t bits;
  __builtin_memcpy(&bits, p + 2 * v, sizeof bits);
  return bits;
}
#else
// 32 values of five bits: nibbles as above, a fifth bit each in `high`.
[[gnu::always_inline]] inline Bytes32 five_bits(const std::uint8_t* nibbles, const std::uint8_t* high) {
#ifdef STEER_KERNEL_X86
  // Byte i / 8 of the bits in byte i, and of it bit i % 8.
  const __m256i bytes =
      _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(read_u32(high))),
                          _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
  const __m256i bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201));
  const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
  return bytes32_of(_mm256_or_si256(nibbles32(nibbles), _mm256_and_si256(set, _mm256_set1_epi8(16))));
#else
  const std::uint32_t bits = read_u32(high);
  Bytes32 out;
  for (int i = 0; i < 16; ++i) {
    out.at[i] = static_cast<std::uint8_t>((nibbles[i] & 15) | (bits >> i & 1) << 4);
    out.at[i + 16] = static_cast<std::uint8_t>(nibbles[i] >> 4 | (bits >> (i + 16) & 1) << 4);
  }
  return out;
#endif
}
#endif

// `first` + q times d, for d an f16, is exact in f32.
struct FormatQ5_0 : SingleBlocks<FormatQ5_0, ggml::Q5_0> {
  template <class Put>
  [[gnu::always_inline]] static void group(Row r, std::int64_t g, const Put& put) {
    const ggml::Q5_0& b = r[g];
    const F d = set1_half(b.d);
#if defined(__AVX512F__)
    const F sixteen = mul(d, set1(16));
    nibbles_on(line16_through_zero(d, -16), b.qs,
               [&](int v, F w) { put(v, add_where(lane_bits(b.qh, v), w, sixteen)); });
#else
    const Bytes32 q = five_bits(b.qs, b.qh);
    const F first = mul(d, set1(-16));
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) put(v, fma(to_float(unsigned_at(q, v)), d, first));
#endif
  }
};

struct FormatQ5_1 : SingleBlocks<FormatQ5_1, ggml::Q5_1> {
  template <class Put>
  [[gnu::always_inline]] static void group(Row r, std::int64_t g, const Put& put) {
    const ggml::Q5_1& b = r[g];
    const F d = set1_half(b.d), m = set1_half(b.m);
#if defined(__AVX512F__)
    const Line32 line = line32(d, m);
    const std::uint32_t high = read_u32(b.qh);
    for (int v = 0; v < kVectors; ++v) {
      const I bytes = load_u8(b.qs);
      put(v, point(line, v == 0 ? bytes : shift_right<4>(bytes), high >> (v * kWidth)));
    }
#else
    const Bytes32 q = five_bits(b.qs, b.qh);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) put(v, fma(to_float(unsigned_at(q, v)), d, m));
#endif
  }
};

// Four bytes of each word, times a: eight floats.
[[gnu::always_inline]] inline void scale_bytes(const std::uint32_t words[2], float a, float out[8]) {
#ifdef STEER_KERNEL_X86
  const __m128i bytes = _mm_set_epi32(0, 0, static_cast<int>(words[1]), static_cast<int>(words[0]));
  _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)), _mm256_set1_ps(a)));
#else
  for (int i = 0; i < 8; ++i) out[i] = static_cast<float>(words[i / 4] >> 8 * (i % 4) & 255) * a;
#endif
}

// What a super-block of Q4_K or Q5_K begins with: for each of its eight groups w = q * scale + offset. Scales and
// minima are 6 bits each in 12 bytes (get_scale_min_k4), taken four groups at a time: a byte of a word is one of them.
template <class B>
[[gnu::always_inline]] inline void scales_and_offsets(const B& b, float scale[8], float offset[8]) {
  const float d = read_half(b.d), m = -read_half(b.dmin);
  const std::uint32_t low = read_u32(b.scales), mid = read_u32(b.scales + 4), top = read_u32(b.scales + 8);
  const std::uint32_t scales[2] = {low & 0x3f3f3f3f, (top & 0x0f0f0f0f) | (low >> 2 & 0x30303030)};
  const std::uint32_t offsets[2] = {mid & 0x3f3f3f3f, (top >> 4 & 0x0f0f0f0f) | (mid >> 2 & 0x30303030)};
  scale_bytes(scales, d, scale);
  scale_bytes(offsets, m, offset);
}

struct FormatQ4_K {
  static constexpr int kBytes = sizeof(ggml::Q4_K) / 8, kBlock = 8, kStep = 2;
  using Row = const ggml::Q4_K*;
  struct Block {
    const std::uint8_t* qs;
    float scale[8], offset[8];
  };
  static Row row(const WeightView& w, std::int64_t n) { return blocks_of_row<ggml::Q4_K>(w, n); }
  [[gnu::always_inline]] static Block block(Row r, std::int64_t g) {
    const ggml::Q4_K& b = r[g >> 3];
    Block out;
    out.qs = b.qs;
    scales_and_offsets(b, out.scale, out.offset);
    return out;
  }
  template <class Put>
  [[gnu::always_inline]] static void step(const Block& b, int s, const Put& put) {
    const std::uint8_t* qs = b.qs + s * 32;
    const Line16 even = line16(set1(b.scale[2 * s]), set1(b.offset[2 * s]));
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) put(v, point(even, load_u8(qs + v * kWidth)));
    const Line16 odd = line16(set1(b.scale[2 * s + 1]), set1(b.offset[2 * s + 1]));
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) put(v + kVectors, high_point(odd, load_u8(qs + v * kWidth)));
  }
};

struct FormatQ5_K {
  static constexpr int kBytes = sizeof(ggml::Q5_K) / 8, kBlock = 8, kStep = 2;
  using Row = const ggml::Q5_K*;
  struct Block {
    const ggml::Q5_K* at;
    float scale[8], offset[8];
  };
  static Row row(const WeightView& w, std::int64_t n) { return blocks_of_row<ggml::Q5_K>(w, n); }
  [[gnu::always_inline]] static Block block(Row r, std::int64_t g) {
    Block out;
    out.at = r + (g >> 3);
    scales_and_offsets(*out.at, out.scale, out.offset);
    return out;
  }
  // Groups 2s and 2s + 1 share the bytes of their low four bits.
  template <class Put>
  [[gnu::always_inline]] static void step(const Block& b, int s, const Put& put) {
    const std::uint8_t* qs = b.at->qs + s * 32;
#if defined(__AVX512F__)
    const Line32 even = line32(set1(b.scale[2 * s]), set1(b.offset[2 * s]));
    const std::uint32_t even_high = bit_of_bytes(b.at->qh, 2 * s);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) put(v, point(even, load_u8(qs + v * kWidth), even_high >> v * kWidth));
    const Line32 odd = line32(set1(b.scale[2 * s + 1]), set1(b.offset[2 * s + 1]));
    const std::uint32_t odd_high = bit_of_bytes(b.at->qh, 2 * s + 1);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      put(v + kVectors, point(odd, shift_right<4>(load_u8(qs + v * kWidth)), odd_high >> v * kWidth));
    }
#else
#pragma GCC unroll 2
    for (int group = 0; group < 2; ++group) {
      const Bytes32 q = five_bits(qs, 4 * group, b.at->qh, 2 * s + group);
      const F scale = set1(b.scale[2 * s + group]), offset = set1(b.offset[2 * s + group]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) put(group * kVectors + v, fma(to_float(unsigned_at(q, v)), scale, offset));
    }
#endif
  }

#if !defined(__AVX512F__)
 private:
  // Four bits, from `shift` on, of each of 32 bytes, and bit `bit` of each of 32 others.
  [[gnu::always_inline]] static Bytes32 five_bits(const std::uint8_t* nibbles, int shift, const std::uint8_t* high,
                                                  int bit) {
#ifdef STEER_KERNEL_X86
    return bytes32_of(four_and_more<1>(nibbles, shift, high, bit));
#else
    Bytes32 out;
    for (int i = 0; i < kGroup; ++i)
      out.at[i] = static_cast<std::uint8_t>((nibbles[i] >> shift & 15) | (high[i] >> bit & 1) << 4);
    return out;
#endif
  }
#endif
};

struct FormatQ6_K {
  static constexpr int kBytes = sizeof(ggml::Q6_K) / 8, kBlock = 8, kStep = 4;
  using Row = const ggml::Q6_K*;
  struct Block {
    const ggml::Q6_K* at;
    float scale[16];
  };
  static Row row(const WeightView& w, std::int64_t n) { return blocks_of_row<ggml::Q6_K>(w, n); }
  [[gnu::always_inline]] static Block block(Row r, std::int64_t g) {
    Block out;
    out.at = r + (g >> 3);
    const F d = set1_half(out.at->d);
    for (int i = 0; i < 16; i += kWidth) store(out.scale + i, mul(to_float(load_i8(out.at->scales + i)), d));
    return out;
  }
  template <class Put>
  [[gnu::always_inline]] static void step(const Block& b, int s, const Put& put) {
    const std::uint8_t *low = b.at->ql + s * 64, *high = b.at->qh + s * 32;
#pragma GCC unroll 4
    for (int quarter = 0; quarter < 4; ++quarter) {
      const Bytes32 q = six_bits(low + quarter % 2 * 32, quarter / 2 * 4, high, quarter * 2);
      const float* scale = b.scale + s * 8 + quarter * 2;
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        put(quarter * kVectors + v, mul(to_float(signed_at(q, v)), set1(scale[v / (kVectors / 2)])));
      }
    }
  }

 private:
  // 32 values of four bits of `low` and two of `high`, from a shift on each, less 32.
  [[gnu::always_inline]] static Bytes32 six_bits(const std::uint8_t* low, int low_shift, const std::uint8_t* high,
                                                 int high_shift) {
#ifdef STEER_KERNEL_X86
    return bytes32_of(_mm256_sub_epi8(four_and_more<2>(low, low_shift, high, high_shift), _mm256_set1_epi8(32)));
#else
    Bytes32 out;
    for (int i = 0; i < kGroup; ++i)
      out.at[i] = static_cast<std::uint8_t>(((low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4) - 32);
    return out;
#endif
  }
};

// 4-bit floats (1 sign, 2 exponent, 1 mantissa) and a power of two, 2^(e - 127). All exact in f32: the table holds
// twice the values, so that they are bytes, and the power is halved.
struct FormatMxFp4 : SingleBlocks<FormatMxFp4, ggml::MXFP4> {
  template <class Put>
  [[gnu::always_inline]] static void group(Row r, std::int64_t g, const Put& put) {
    const ggml::MXFP4& b = r[g];
    const Bytes32 q = twice_the_values(b.qs);
    const F scale = set1(half_power(b.e));
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) put(v, mul(to_float(signed_at(q, v)), scale));
  }

 private:
  [[gnu::always_inline]] static float half_power(std::uint8_t e) {
    // Below 2^-126 numbers are subnormal: the bit of the power itself, in place of an exponent.
    const std::uint32_t bits = e >= 2 ? static_cast<std::uint32_t>(e - 1) << 23 : 0x200000u << e;
    float out;
    __builtin_memcpy(&out, &bits, sizeof out);
    return out;
  }
  [[gnu::always_inline]] static Bytes32 twice_the_values(const std::uint8_t* qs) {
#ifdef STEER_KERNEL_X86
    const __m128i table = _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(qs)), low = _mm_set1_epi8(15);
    const __m128i a = _mm_and_si128(bytes, low), b = _mm_and_si128(_mm_srli_epi16(bytes, 4), low);
    return bytes32_of(_mm_shuffle_epi8(table, a), _mm_shuffle_epi8(table, b));
#else
    constexpr std::int8_t table[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    Bytes32 out;
    for (int i = 0; i < 16; ++i) {
      out.at[i] = static_cast<std::uint8_t>(table[qs[i] & 15]);
      out.at[i + 16] = static_cast<std::uint8_t>(table[qs[i] >> 4]);
    }
    return out;
#endif
  }
};
