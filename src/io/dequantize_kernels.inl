// Block layouts and their unpacking, after ggml-common.h and ggml-quants.c of llama.cpp (the formats' definition).
// Compiled once for each instruction set, in a namespace that the including file names STEER_KERNEL_NAMESPACE. No
// header with functions of its own may be included here: they would be compiled for that instruction set too, and the
// linker might give them to the whole program. (Those of immintrin.h are always inlined.)
//
// Products keep ggml's order of multiplication, so results equal ggml's bit for bit.

#ifdef __F16C__
#include <immintrin.h>
#endif

namespace steer::io::detail::STEER_KERNEL_NAMESPACE {
namespace {

using u8 = unsigned char;
using i8 = signed char;
using u16 = unsigned short;
using u32 = unsigned int;
using i64 = std::int64_t;
static_assert(sizeof(u16) == 2 && sizeof(u32) == 4);

inline float float_of_bits(u32 bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

inline float half_to_float(u16 half) {
#ifdef __F16C__
  return _cvtsh_ss(half);
#else
  const u32 sign = (half & 0x8000u) << 16, rest = half & 0x7fffu;
  if (rest < 0x0400u) {  // denormal: a multiple of 2^-24
    const float magnitude = static_cast<float>(rest) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  const u32 exponent = rest < 0x7c00u ? 112u << 23 : 224u << 23;  // infinities and NaN take the largest exponent
  return float_of_bits(sign | ((rest << 13) + exponent));
#endif
}

struct Q4_0 {
  static constexpr int values = 32;
  u16 d;
  u8 qs[16];
  void unpack(float* y) const {
    const float scale = half_to_float(d);
    for (int j = 0; j < 16; ++j) y[j] = static_cast<float>((qs[j] & 15) - 8) * scale;
    for (int j = 0; j < 16; ++j) y[j + 16] = static_cast<float>((qs[j] >> 4) - 8) * scale;
  }
};

struct Q4_1 {
  static constexpr int values = 32;
  u16 d, m;
  u8 qs[16];
  void unpack(float* y) const {
    const float scale = half_to_float(d), least = half_to_float(m);
    for (int j = 0; j < 16; ++j) y[j] = static_cast<float>(qs[j] & 15) * scale + least;
    for (int j = 0; j < 16; ++j) y[j + 16] = static_cast<float>(qs[j] >> 4) * scale + least;
  }
};

// Bits j and j + 16 of the 32 high bits belong to the low and the high nibble of byte j.
inline u32 high_bits(const u8 (&qh)[4]) {
  u32 bits;
  __builtin_memcpy(&bits, qh, sizeof bits);
  return bits;
}

struct Q5_0 {
  static constexpr int values = 32;
  u16 d;
  u8 qh[4];
  u8 qs[16];
  void unpack(float* y) const {
    const float scale = half_to_float(d);
    const u32 high = high_bits(qh);
    for (int j = 0; j < 16; ++j)
      y[j] = static_cast<float>(static_cast<int>((qs[j] & 15u) | ((high >> j) & 1u) << 4) - 16) * scale;
    for (int j = 0; j < 16; ++j)
      y[j + 16] = static_cast<float>(static_cast<int>((qs[j] >> 4) | ((high >> (j + 16)) & 1u) << 4) - 16) * scale;
  }
};

struct Q5_1 {
  static constexpr int values = 32;
  u16 d, m;
  u8 qh[4];
  u8 qs[16];
  void unpack(float* y) const {
    const float scale = half_to_float(d), least = half_to_float(m);
    const u32 high = high_bits(qh);
    for (int j = 0; j < 16; ++j)
      y[j] = static_cast<float>(static_cast<int>((qs[j] & 15u) | ((high >> j) & 1u) << 4)) * scale + least;
    for (int j = 0; j < 16; ++j)
      y[j + 16] = static_cast<float>(static_cast<int>((qs[j] >> 4) | ((high >> (j + 16)) & 1u) << 4)) * scale + least;
  }
};

struct Q8_0 {
  static constexpr int values = 32;
  u16 d;
  i8 qs[32];
  void unpack(float* y) const {
    const float scale = half_to_float(d);
    for (int j = 0; j < 32; ++j) y[j] = static_cast<float>(qs[j]) * scale;
  }
};

struct Q2_K {
  static constexpr int values = 256;
  u8 scales[16];  // low nibble: scale, high: minimum, of 16 values each
  u8 qs[64];
  u16 d, dmin;
  void unpack(float* y) const {
    const float scale = half_to_float(d), least = half_to_float(dmin);
    for (int part = 0; part < 16; ++part, y += 16) {
      const float dl = scale * static_cast<float>(scales[part] & 15),
                  ml = least * static_cast<float>(scales[part] >> 4);
      const u8* q = qs + part / 8 * 32 + part % 2 * 16;
      const int shift = part % 8 / 2 * 2;
      for (int l = 0; l < 16; ++l) y[l] = dl * static_cast<float>((q[l] >> shift) & 3) - ml;
    }
  }
};

struct Q3_K {
  static constexpr int values = 256;
  u8 hmask[32];  // the high bit, inverted, of 8 groups of 32 values
  u8 qs[64];
  u8 scales[12];  // sixteen of 6 bits: low nibbles in bytes 0-7, high pairs in bytes 8-11
  u16 d;
  void unpack(float* y) const {
    const float scale = half_to_float(d);
    for (int part = 0; part < 16; ++part, y += 16) {
      const int low = part < 8 ? scales[part] & 15 : scales[part - 8] >> 4;
      const int high = (scales[8 + part % 4] >> (part / 4 * 2)) & 3;
      const float dl = scale * static_cast<float>((low | high << 4) - 32);
      const u8* q = qs + part / 8 * 32 + part % 2 * 16;
      const u8* h = hmask + part % 2 * 16;
      const int shift = part % 8 / 2 * 2, bit = part / 2;
      for (int l = 0; l < 16; ++l)
        y[l] = dl * static_cast<float>(((q[l] >> shift) & 3) - (((h[l] >> bit) & 1) ^ 1) * 4);
    }
  }
};

// Eight pairs of a 6-bit scale and a 6-bit minimum in 12 bytes (ggml's get_scale_min_k4).
struct ScaleMin {
  float scale, least;
};
inline ScaleMin scale_min(const u8 (&packed)[12], int j, float d, float dmin) {
  const int scale = j < 4 ? packed[j] & 63 : (packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4;
  const int least = j < 4 ? packed[j + 4] & 63 : packed[j + 4] >> 4 | (packed[j] >> 6) << 4;
  return {d * static_cast<float>(scale), dmin * static_cast<float>(least)};
}

struct Q4_K {
  static constexpr int values = 256;
  u16 d, dmin;
  u8 scales[12];
  u8 qs[128];
  void unpack(float* y) const {
    const float scale = half_to_float(d), least = half_to_float(dmin);
    for (int part = 0; part < 4; ++part, y += 64) {
      const auto a = scale_min(scales, 2 * part, scale, least), b = scale_min(scales, 2 * part + 1, scale, least);
      const u8* q = qs + 32 * part;
      for (int l = 0; l < 32; ++l) y[l] = a.scale * static_cast<float>(q[l] & 15) - a.least;
      for (int l = 0; l < 32; ++l) y[l + 32] = b.scale * static_cast<float>(q[l] >> 4) - b.least;
    }
  }
};

struct Q5_K {
  static constexpr int values = 256;
  u16 d, dmin;
  u8 scales[12];
  u8 qh[32];
  u8 qs[128];
  void unpack(float* y) const {
    const float scale = half_to_float(d), least = half_to_float(dmin);
    for (int part = 0; part < 4; ++part, y += 64) {
      const auto a = scale_min(scales, 2 * part, scale, least), b = scale_min(scales, 2 * part + 1, scale, least);
      const u8* q = qs + 32 * part;
      const int bit = 2 * part;
      for (int l = 0; l < 32; ++l)
        y[l] = a.scale * static_cast<float>((q[l] & 15) + ((qh[l] >> bit) & 1) * 16) - a.least;
      for (int l = 0; l < 32; ++l)
        y[l + 32] = b.scale * static_cast<float>((q[l] >> 4) + ((qh[l] >> (bit + 1)) & 1) * 16) - b.least;
    }
  }
};

struct Q6_K {
  static constexpr int values = 256;
  u8 ql[128];
  u8 qh[64];
  i8 scales[16];
  u16 d;
  void unpack(float* y) const {
    const float scale = half_to_float(d);
    for (int part = 0; part < 16; ++part, y += 16) {
      const float dl = scale * static_cast<float>(scales[part]);
      const int row = part % 8 / 2;  // of four rows of 32 values in each half
      const u8* low = ql + part / 8 * 64 + row % 2 * 32 + part % 2 * 16;
      const u8* high = qh + part / 8 * 32 + part % 2 * 16;
      const int low_shift = row / 2 * 4, high_shift = row * 2;
      for (int l = 0; l < 16; ++l)
        y[l] = dl * static_cast<float>((((low[l] >> low_shift) & 15) | ((high[l] >> high_shift) & 3) << 4) - 32);
    }
  }
};

constexpr float kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

struct IQ4_NL {
  static constexpr int values = 32;
  u16 d;
  u8 qs[16];
  void unpack(float* y) const {
    const float scale = half_to_float(d);
    for (int j = 0; j < 16; ++j) y[j] = scale * kIq4Values[qs[j] & 15];
    for (int j = 0; j < 16; ++j) y[j + 16] = scale * kIq4Values[qs[j] >> 4];
  }
};

struct IQ4_XS {
  static constexpr int values = 256;
  u16 d, scales_h;
  u8 scales_l[4];
  u8 qs[128];
  void unpack(float* y) const {
    const float scale = half_to_float(d);
    for (int part = 0; part < 8; ++part, y += 32) {
      const int ls = ((scales_l[part / 2] >> (part % 2 * 4)) & 15) | ((scales_h >> (2 * part)) & 3) << 4;
      const float dl = scale * static_cast<float>(ls - 32);
      const u8* q = qs + 16 * part;
      for (int j = 0; j < 16; ++j) y[j] = dl * kIq4Values[q[j] & 15];
      for (int j = 0; j < 16; ++j) y[j + 16] = dl * kIq4Values[q[j] >> 4];
    }
  }
};

constexpr float kFp4Values[16] = {0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6};

// Microscaling: 4-bit floats and a power of two, of which 255 is no number.
struct MXFP4 {
  static constexpr int values = 32;
  u8 e;
  u8 qs[16];
  void unpack(float* y) const {
    const float scale = power(e);
    for (int j = 0; j < 16; ++j) y[j] = scale * kFp4Values[qs[j] & 15];
    for (int j = 0; j < 16; ++j) y[j + 16] = scale * kFp4Values[qs[j] >> 4];
  }
  static float power(u8 e) {
    const unsigned bits = e > 0 ? static_cast<unsigned>(e) << 23 : 0x400000u;  // 2^-127 is subnormal
    float out;
    __builtin_memcpy(&out, &bits, sizeof out);
    return out;
  }
};

static_assert(sizeof(Q4_0) == 18 && sizeof(Q4_1) == 20 && sizeof(Q5_0) == 22 && sizeof(Q5_1) == 24 &&
              sizeof(Q8_0) == 34);
static_assert(sizeof(Q2_K) == 84 && sizeof(Q3_K) == 110 && sizeof(Q4_K) == 144 && sizeof(Q5_K) == 176);
static_assert(sizeof(Q6_K) == 210 && sizeof(IQ4_NL) == 18 && sizeof(IQ4_XS) == 136 && sizeof(MXFP4) == 17);

// Callers guarantee that `data` is aligned to 2 bytes (GGUF aligns tensors to 8 or more).
template <class Block>
void unpack_all(const std::byte* data, i64 blocks, float* out) {
  const auto* block = reinterpret_cast<const Block*>(data);
  for (i64 i = 0; i < blocks; ++i) block[i].unpack(out + i * Block::values);
}

}  // namespace

// By the number of ggml.h's `enum ggml_type`; a null pointer for a type without a kernel.
DequantizeKernel kernel_of(unsigned type_id) {
  switch (type_id) {
    case 2:
      return unpack_all<Q4_0>;
    case 3:
      return unpack_all<Q4_1>;
    case 6:
      return unpack_all<Q5_0>;
    case 7:
      return unpack_all<Q5_1>;
    case 8:
      return unpack_all<Q8_0>;
    case 10:
      return unpack_all<Q2_K>;
    case 11:
      return unpack_all<Q3_K>;
    case 12:
      return unpack_all<Q4_K>;
    case 13:
      return unpack_all<Q5_K>;
    case 14:
      return unpack_all<Q6_K>;
    case 20:
      return unpack_all<IQ4_NL>;
    case 23:
      return unpack_all<IQ4_XS>;
    case 39:
      return unpack_all<MXFP4>;
    default:
      return nullptr;
  }
}

}  // namespace steer::io::detail::STEER_KERNEL_NAMESPACE
