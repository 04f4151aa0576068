// Vectors of `kWidth` floats for the instruction set this file is compiled for. Included inside the unnamed namespace
// of a file that is built as core/isa.hpp says; <immintrin.h> or <arm_neon.h> has been included by then.

// IEEE half to float, for instruction sets without a conversion.
[[maybe_unused]] inline float half_to_float(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000) << 16;
  std::uint32_t exponent = h >> 10 & 31, mantissa = h & 1023, bits;
  if (exponent == 31) {
    bits = sign | 0x7f800000 | mantissa << 13;
  } else if (exponent != 0) {
    bits = sign | (exponent + 112) << 23 | mantissa << 13;
  } else {
    const float value = static_cast<float>(mantissa) * 5.9604644775390625e-8f;  // 2^-24
    __builtin_memcpy(&bits, &value, sizeof bits);
    bits |= sign;
  }
  float out;
  __builtin_memcpy(&out, &bits, sizeof out);
  return out;
}

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

constexpr int kWidth = 16;
constexpr int kRegisters = 32;
using F = __m512;
using I = __m512i;

inline __mmask16 first_lanes(std::int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
inline F zero() { return _mm512_setzero_ps(); }
inline F set1(float a) { return _mm512_set1_ps(a); }
inline F load(const float* p) { return _mm512_loadu_ps(p); }
inline F load_first(const float* p, std::int64_t n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
inline void store(float* p, F a) { _mm512_storeu_ps(p, a); }
inline void store_first(float* p, F a, std::int64_t n) { _mm512_mask_storeu_ps(p, first_lanes(n), a); }
inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F add(F a, F b) { return _mm512_add_ps(a, b); }
inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
inline F div(F a, F b) { return _mm512_div_ps(a, b); }
inline F max(F a, F b) { return _mm512_max_ps(a, b); }
inline F min(F a, F b) { return _mm512_min_ps(a, b); }
inline F round(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline F load_bf16(const std::uint16_t* p) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
}
inline F load_f16(const std::uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
/// An f16's bits in every lane, as floats.
inline F from_halves(std::int16_t bits) { return _mm512_cvtph_ps(_mm256_set1_epi16(bits)); }
inline I load_u8(const std::uint8_t* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline I load_i8(const std::int8_t* p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline I set1_i(std::int32_t a) { return _mm512_set1_epi32(a); }
inline I and_i(I a, I b) { return _mm512_and_si512(a, b); }
template <int S>
inline I shift_right(I a) {
  return _mm512_srli_epi32(a, S);
}
inline void store_i(std::int32_t* p, I a) { _mm512_storeu_si512(p, a); }
inline F to_float(I a) { return _mm512_cvtepi32_ps(a); }
inline I to_int(F a) { return _mm512_cvtps_epi32(a); }
inline F as_float(I a) { return _mm512_castsi512_ps(a); }
/// a + b in the lanes whose bit of `bits` is set, else a.
inline F add_where(std::uint32_t bits, F a, F b) { return _mm512_mask_add_ps(a, static_cast<__mmask16>(bits), a, b); }
/// The values q * scale + offset of q = 0 to 15, or (q + first) * scale where that is exact. `point` takes q from the
/// low four bits of each lane, `high_point` from the next four, of numbers below 256.
using Line16 = F;
inline Line16 line16(F scale, F offset) {
  return fma(_mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), scale, offset);
}
inline Line16 line16_through_zero(F scale, float first) {
  return mul(scale, add(_mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), set1(first)));
}
inline F point(Line16 line, I q) { return _mm512_permutexvar_ps(q, line); }
inline F high_point(Line16 line, I q) { return point(line, shift_right<4>(q)); }
/// The same for q = 0 to 31. `point` takes the fifth bit of lane i from bit i of `high`.
struct Line32 {
  F low, high;
};
inline Line32 line32(F scale, F offset) {
  const F sixteen = _mm512_setr_ps(16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31);
  return {line16(scale, offset), fma(sixteen, scale, offset)};
}
inline F point(const Line32& line, I q, std::uint32_t high) {
  return _mm512_mask_permutexvar_ps(_mm512_permutexvar_ps(q, line.low), static_cast<__mmask16>(high), q, line.high);
}
/// Bit `bit` of each of the 32 bytes at p; byte i's is bit i of the result.
inline std::uint32_t bit_of_bytes(const std::uint8_t* p, int bit) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return static_cast<std::uint32_t>(_mm256_movemask_epi8(_mm256_sll_epi16(bytes, _mm_cvtsi32_si128(7 - bit))));
}
// The order of additions is part of the contract (a row's bits): halves, quarters, eighths.
inline __m128 fold4(F a) {
  __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  return _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
}
inline __m128 max4(F a) {
  __m256 b = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  return _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
}
// Two vectors' halves, and two such pairs' quarters, added in reduce_add's order.
inline F fold_halves(F a, F b) { return add(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee)); }
inline F fold_quarters(F ab, F cd) {
  return add(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
}
inline void store_sums(float* y, const F (&a)[6], const float* bias) {
  const F abcd = fold_quarters(fold_halves(a[0], a[1]), fold_halves(a[2], a[3]));
  const F ef = fold_quarters(fold_halves(a[4], a[5]), zero());
  const F twos = add(_mm512_shuffle_ps(abcd, ef, 0x44), _mm512_shuffle_ps(abcd, ef, 0xee));
  const F ones = add(_mm512_shuffle_ps(twos, twos, 0x88), _mm512_shuffle_ps(twos, twos, 0xdd));
  const F sums = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), ones);
  store_first(y, add(sums, bias ? load_first(bias, 6) : zero()), 6);
}
#define STEER_KERNEL_X86 1
#define STEER_KERNEL_BF16 1

#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

constexpr int kWidth = 8;
constexpr int kRegisters = 16;
using F = __m256;
using I = __m256i;

inline __m256i first_lanes(std::int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline F zero() { return _mm256_setzero_ps(); }
inline F set1(float a) { return _mm256_set1_ps(a); }
inline F load(const float* p) { return _mm256_loadu_ps(p); }
inline F load_first(const float* p, std::int64_t n) { return _mm256_maskload_ps(p, first_lanes(n)); }
inline void store(float* p, F a) { _mm256_storeu_ps(p, a); }
inline void store_first(float* p, F a, std::int64_t n) { _mm256_maskstore_ps(p, first_lanes(n), a); }
inline F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
inline F add(F a, F b) { return _mm256_add_ps(a, b); }
inline F sub(F a, F b) { return _mm256_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm256_mul_ps(a, b); }
inline F div(F a, F b) { return _mm256_div_ps(a, b); }
inline F max(F a, F b) { return _mm256_max_ps(a, b); }
inline F min(F a, F b) { return _mm256_min_ps(a, b); }
inline F round(F a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline F load_bf16(const std::uint16_t* p) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
}
inline F load_f16(const std::uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline F from_halves(std::int16_t bits) { return _mm256_cvtph_ps(_mm_set1_epi16(bits)); }
inline I load_u8(const std::uint8_t* p) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
inline I load_i8(const std::int8_t* p) {
  return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
inline I set1_i(std::int32_t a) { return _mm256_set1_epi32(a); }
inline I and_i(I a, I b) { return _mm256_and_si256(a, b); }
template <int S>
inline I shift_right(I a) {
  return _mm256_srli_epi32(a, S);
}
inline void store_i(std::int32_t* p, I a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a); }
inline F to_float(I a) { return _mm256_cvtepi32_ps(a); }
inline I to_int(F a) { return _mm256_cvtps_epi32(a); }
inline F as_float(I a) { return _mm256_castsi256_ps(a); }
inline __m128 fold4(F a) { return _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1)); }
inline __m128 max4(F a) { return _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1)); }
inline F fold_halves(F a, F b) { return add(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31)); }
inline void store_sums(float* y, const F (&a)[3], const float* bias) {
  const F ab = fold_halves(a[0], a[1]), c = fold_halves(a[2], zero());
  const F twos = add(_mm256_shuffle_ps(ab, c, 0x44), _mm256_shuffle_ps(ab, c, 0xee));
  const __m128 low = _mm256_castps256_ps128(twos), high = _mm256_extractf128_ps(twos, 1);  // a a c c, b b 0 0
  const __m128 acb = _mm_add_ps(_mm_shuffle_ps(low, high, 0x88), _mm_shuffle_ps(low, high, 0xdd));
  const __m128i first = _mm_setr_epi32(-1, -1, -1, 0);
  const __m128 sums = _mm_shuffle_ps(acb, acb, 0xd8);
  _mm_maskstore_ps(y, first, _mm_add_ps(sums, bias ? _mm_maskload_ps(bias, first) : _mm_setzero_ps()));
}
#define STEER_KERNEL_X86 1

#else  // the compiler's own vectors: SSE2 or NEON registers, or plain code

constexpr int kWidth = 4;
#if defined(__aarch64__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif
#if defined(__aarch64__)
using F = float32x4_t;
using I = int32x4_t;
#else
typedef float F __attribute__((vector_size(16)));
typedef std::int32_t I __attribute__((vector_size(16)));
#endif

inline F zero() { return F{}; }
inline F set1(float a) { return F{a, a, a, a}; }
inline F load(const float* p) {
  F a;
  __builtin_memcpy(&a, p, sizeof a);
  return a;
}
inline F load_first(const float* p, std::int64_t n) {
  F a{};
  for (int i = 0; i < kWidth && i < n; ++i) a[i] = p[i];
  return a;
}
inline void store(float* p, F a) { __builtin_memcpy(p, &a, sizeof a); }
inline void store_first(float* p, F a, std::int64_t n) {
  for (int i = 0; i < kWidth && i < n; ++i) p[i] = a[i];
}
inline F fma(F a, F b, F c) { return a * b + c; }
inline F add(F a, F b) { return a + b; }
inline F sub(F a, F b) { return a - b; }
inline F mul(F a, F b) { return a * b; }
inline F div(F a, F b) { return a / b; }
inline F max(F a, F b) { return a > b ? a : b; }
inline F min(F a, F b) { return a < b ? a : b; }
inline F to_float(I a) { return __builtin_convertvector(a, F); }
inline F as_float(I a) { return reinterpret_cast<F>(a); }
inline F round(F a) {  // |a| < 2^22
  const F magic = set1(12582912.0f);
  return (a + magic) - magic;
}
inline I to_int(F a) { return __builtin_convertvector(round(a), I); }
#if defined(__aarch64__)  // where the compiler would put vectors together lane by lane
inline F load_bf16(const std::uint16_t* p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
inline F load_f16(const std::uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
inline I load_u8(const std::uint8_t* p) {
  std::uint32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four)))));
}
inline I load_i8(const std::int8_t* p) {
  std::uint32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four))));
}
#else
inline F load_bf16(const std::uint16_t* p) { return as_float(I{p[0] << 16, p[1] << 16, p[2] << 16, p[3] << 16}); }
inline F load_f16(const std::uint16_t* p) {
  return F{half_to_float(p[0]), half_to_float(p[1]), half_to_float(p[2]), half_to_float(p[3])};
}
inline I load_u8(const std::uint8_t* p) { return I{p[0], p[1], p[2], p[3]}; }
inline I load_i8(const std::int8_t* p) { return I{p[0], p[1], p[2], p[3]}; }
#endif
inline I set1_i(std::int32_t a) { return I{a, a, a, a}; }
inline I and_i(I a, I b) { return a & b; }
template <int S>
inline I shift_right(I a) {
  return a >> S;
}  // of values >= 0 only
inline F fold4(F a) { return a; }
inline F max4(F a) { return a; }

#endif

#ifdef STEER_KERNEL_X86
inline float reduce_add(F a) {
  __m128 s = fold4(a);
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
inline float reduce_max(F a) {
  __m128 s = max4(a);
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}
// Eight rows of eight words each become columns, `stride` words apart.
[[gnu::always_inline]] inline void turn_words(const __m256i (&r)[8], std::uint8_t* to, std::int64_t stride) {
  __m256i a[8], b[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    a[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    b[4 * i] = _mm256_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
    b[4 * i + 1] = _mm256_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
    b[4 * i + 2] = _mm256_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
    b[4 * i + 3] = _mm256_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const auto at = [&](int column) { return reinterpret_cast<__m256i*>(to + column * stride); };
    _mm256_storeu_si256(at(i), _mm256_permute2x128_si256(b[i], b[i + 4], 0x20));
    _mm256_storeu_si256(at(i + 4), _mm256_permute2x128_si256(b[i], b[i + 4], 0x31));
  }
}
#else
inline float reduce_add(F a) { return (a[0] + a[2]) + (a[1] + a[3]); }
inline float reduce_max(F a) {
  const float x = a[0] > a[2] ? a[0] : a[2], y = a[1] > a[3] ? a[1] : a[3];
  return x > y ? x : y;
}
#endif

/// The first n of a vector's numbers at p, zeros behind them; n may be more than it holds, or less than 1.
inline F load_up_to(const float* p, std::int64_t n) {
  return n >= kWidth ? load(p) : n > 0 ? load_first(p, n) : zero();
}

/// y[j] = reduce_add(a[j]) + bias[j], bias 0 where null. For the tile's width there is a faster form with the same
/// bits.
template <int N>
inline void store_sums(float* y, const F (&a)[N], const float* bias) {
  for (int j = 0; j < N; ++j) y[j] = reduce_add(a[j]) + (bias ? bias[j] : 0.0f);
}

#if !defined(__AVX512F__)
// No register holds sixteen floats: computed each time.
struct Line16 {
  F scale, offset;
};
inline Line16 line16(F scale, F offset) { return {scale, offset}; }
inline Line16 line16_through_zero(F scale, float first) { return {scale, mul(scale, set1(first))}; }
inline F point(const Line16& line, I q) { return fma(to_float(and_i(q, set1_i(15))), line.scale, line.offset); }
inline F high_point(const Line16& line, I q) { return fma(to_float(shift_right<4>(q)), line.scale, line.offset); }
#endif

/// 32 bytes, of which vectors of integers are made: the v-th of kWidth.
#if defined(__AVX2__) && !defined(__AVX512F__)
using Bytes32 = __m256i;  // in a register: four parts read back from memory would each wait for the write
inline Bytes32 bytes32_of(__m256i a) { return a; }
inline Bytes32 bytes32_of(__m128i low, __m128i high) { return _mm256_set_m128i(high, low); }
[[gnu::always_inline]] inline __m128i bytes_from(Bytes32 a, int v) {
  const __m128i half = v < 2 ? _mm256_castsi256_si128(a) : _mm256_extracti128_si256(a, 1);
  return v % 2 == 0 ? half : _mm_unpackhi_epi64(half, half);
}
[[gnu::always_inline]] inline I unsigned_at(Bytes32 a, int v) { return _mm256_cvtepu8_epi32(bytes_from(a, v)); }
[[gnu::always_inline]] inline I signed_at(Bytes32 a, int v) { return _mm256_cvtepi8_epi32(bytes_from(a, v)); }
#else
struct Bytes32 {
  alignas(32) std::uint8_t at[32];
};
#if defined(__AVX512F__)
[[gnu::always_inline]] inline Bytes32 bytes32_of(__m256i a) {
  Bytes32 out;
  _mm256_store_si256(reinterpret_cast<__m256i*>(out.at), a);
  return out;
}
[[gnu::always_inline]] inline Bytes32 bytes32_of(__m128i low, __m128i high) {
  Bytes32 out;
  _mm_store_si128(reinterpret_cast<__m128i*>(out.at), low);
  _mm_store_si128(reinterpret_cast<__m128i*>(out.at) + 1, high);
  return out;
}
#endif
[[gnu::always_inline]] inline I unsigned_at(const Bytes32& a, int v) { return load_u8(a.at + v * kWidth); }
[[gnu::always_inline]] inline I signed_at(const Bytes32& a, int v) {
  return load_i8(reinterpret_cast<const std::int8_t*>(a.at) + v * kWidth);
}
#endif
