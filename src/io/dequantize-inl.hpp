// Unpacks GGUF's blocks for one instruction set (core/isa.hpp). The order of multiplication is that of llama.cpp's
// ggml-quants.c, so results equal ggml's bit for bit.

#ifdef __F16C__
#include <immintrin.h>
#endif

#include <cstddef>
#include <cstdint>

#include "core/isa.hpp"
#include "io/dequantize_kernels.hpp"
#include "io/ggml_blocks.hpp"

namespace steer::io::detail {
namespace {

using namespace ggml;
using u8 = std::uint8_t;
using u32 = std::uint32_t;

inline float float_of_bits(u32 bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

inline float half_to_float(Half half) {
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

inline void unpack(const Q4_0& b, float* y) {
  const float scale = half_to_float(b.d);
  for (int j = 0; j < 16; ++j) y[j] = static_cast<float>((b.qs[j] & 15) - 8) * scale;
  for (int j = 0; j < 16; ++j) y[j + 16] = static_cast<float>((b.qs[j] >> 4) - 8) * scale;
}

inline void unpack(const Q4_1& b, float* y) {
  const float scale = half_to_float(b.d), least = half_to_float(b.m);
  for (int j = 0; j < 16; ++j) y[j] = static_cast<float>(b.qs[j] & 15) * scale + least;
  for (int j = 0; j < 16; ++j) y[j + 16] = static_cast<float>(b.qs[j] >> 4) * scale + least;
}

// Bits j and j + 16 of the 32 high bits belong to the low and the high nibble of byte j.
inline u32 high_bits(const u8 (&qh)[4]) {
  u32 bits;
  __builtin_memcpy(&bits, qh, sizeof bits);
  return bits;
}

inline void unpack(const Q5_0& b, float* y) {
  const float scale = half_to_float(b.d);
  const u32 high = high_bits(b.qh);
  for (int j = 0; j < 16; ++j)
    y[j] = static_cast<float>(static_cast<int>((b.qs[j] & 15u) | ((high >> j) & 1u) << 4) - 16) * scale;
  for (int j = 0; j < 16; ++j)
    y[j + 16] = static_cast<float>(static_cast<int>((b.qs[j] >> 4) | ((high >> (j + 16)) & 1u) << 4) - 16) * scale;
}

inline void unpack(const Q5_1& b, float* y) {
  const float scale = half_to_float(b.d), least = half_to_float(b.m);
  const u32 high = high_bits(b.qh);
  for (int j = 0; j < 16; ++j)
    y[j] = static_cast<float>(static_cast<int>((b.qs[j] & 15u) | ((high >> j) & 1u) << 4)) * scale + least;
  for (int j = 0; j < 16; ++j)
    y[j + 16] = static_cast<float>(static_cast<int>((b.qs[j] >> 4) | ((high >> (j + 16)) & 1u) << 4)) * scale + least;
}

inline void unpack(const Q8_0& b, float* y) {
  const float scale = half_to_float(b.d);
  for (int j = 0; j < 32; ++j) y[j] = static_cast<float>(b.qs[j]) * scale;
}

inline void unpack(const Q2_K& b, float* y) {
  const float scale = half_to_float(b.d), least = half_to_float(b.dmin);
  for (int part = 0; part < 16; ++part, y += 16) {
    const float dl = scale * static_cast<float>(b.scales[part] & 15),
                ml = least * static_cast<float>(b.scales[part] >> 4);
    const u8* q = b.qs + part / 8 * 32 + part % 2 * 16;
    const int shift = part % 8 / 2 * 2;
    for (int l = 0; l < 16; ++l) y[l] = dl * static_cast<float>((q[l] >> shift) & 3) - ml;
  }
}

inline void unpack(const Q3_K& b, float* y) {
  const float scale = half_to_float(b.d);
  for (int part = 0; part < 16; ++part, y += 16) {
    const int low = part < 8 ? b.scales[part] & 15 : b.scales[part - 8] >> 4;
    const int high = (b.scales[8 + part % 4] >> (part / 4 * 2)) & 3;
    const float dl = scale * static_cast<float>((low | high << 4) - 32);
    const u8* q = b.qs + part / 8 * 32 + part % 2 * 16;
    const u8* h = b.hmask + part % 2 * 16;
    const int shift = part % 8 / 2 * 2, bit = part / 2;
    for (int l = 0; l < 16; ++l) y[l] = dl * static_cast<float>(((q[l] >> shift) & 3) - (((h[l] >> bit) & 1) ^ 1) * 4);
  }
}

// Eight pairs of a 6-bit scale and a 6-bit minimum in 12 bytes (ggml's get_scale_min_k4).
struct ScaleMin {
  float scale, least;
};
inline ScaleMin scale_min(const u8 (&packed)[12], int j, float d, float dmin) {
  const int scale = j < 4 ? packed[j] & 63 : (packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4;
  const int least = j < 4 ? packed[j + 4] & 63 : packed[j + 4] >> 4 | (packed[j] >> 6) << 4;
  return {d * static_cast<float>(scale), dmin * static_cast<float>(least)};
}

inline void unpack(const Q4_K& b, float* y) {
  const float scale = half_to_float(b.d), least = half_to_float(b.dmin);
  for (int part = 0; part < 4; ++part, y += 64) {
    const auto first = scale_min(b.scales, 2 * part, scale, least),
               second = scale_min(b.scales, 2 * part + 1, scale, least);
    const u8* q = b.qs + 32 * part;
    for (int l = 0; l < 32; ++l) y[l] = first.scale * static_cast<float>(q[l] & 15) - first.least;
    for (int l = 0; l < 32; ++l) y[l + 32] = second.scale * static_cast<float>(q[l] >> 4) - second.least;
  }
}

inline void unpack(const Q5_K& b, float* y) {
  const float scale = half_to_float(b.d), least = half_to_float(b.dmin);
  for (int part = 0; part < 4; ++part, y += 64) {
    const auto first = scale_min(b.scales, 2 * part, scale, least),
               second = scale_min(b.scales, 2 * part + 1, scale, least);
    const u8* q = b.qs + 32 * part;
    const int bit = 2 * part;
    for (int l = 0; l < 32; ++l)
      y[l] = first.scale * static_cast<float>((q[l] & 15) + ((b.qh[l] >> bit) & 1) * 16) - first.least;
    for (int l = 0; l < 32; ++l)
      y[l + 32] = second.scale * static_cast<float>((q[l] >> 4) + ((b.qh[l] >> (bit + 1)) & 1) * 16) - second.least;
  }
}

inline void unpack(const Q6_K& b, float* y) {
  const float scale = half_to_float(b.d);
  for (int part = 0; part < 16; ++part, y += 16) {
    const float dl = scale * static_cast<float>(b.scales[part]);
    const int row = part % 8 / 2;  // of four rows of 32 values in each half
    const u8* low = b.ql + part / 8 * 64 + row % 2 * 32 + part % 2 * 16;
    const u8* high = b.qh + part / 8 * 32 + part % 2 * 16;
    const int low_shift = row / 2 * 4, high_shift = row * 2;
    for (int l = 0; l < 16; ++l)
      y[l] = dl * static_cast<float>((((low[l] >> low_shift) & 15) | ((high[l] >> high_shift) & 3) << 4) - 32);
  }
}

inline void unpack(const IQ4_NL& b, float* y) {
  const float scale = half_to_float(b.d);
  for (int j = 0; j < 16; ++j) y[j] = scale * kIq4Values[b.qs[j] & 15];
  for (int j = 0; j < 16; ++j) y[j + 16] = scale * kIq4Values[b.qs[j] >> 4];
}

inline void unpack(const IQ4_XS& b, float* y) {
  const float scale = half_to_float(b.d);
  for (int part = 0; part < 8; ++part, y += 32) {
    const int ls = ((b.scales_l[part / 2] >> (part % 2 * 4)) & 15) | ((b.scales_h >> (2 * part)) & 3) << 4;
    const float dl = scale * static_cast<float>(ls - 32);
    const u8* q = b.qs + 16 * part;
    for (int j = 0; j < 16; ++j) y[j] = dl * kIq4Values[q[j] & 15];
    for (int j = 0; j < 16; ++j) y[j + 16] = dl * kIq4Values[q[j] >> 4];
  }
}

inline void unpack(const MXFP4& b, float* y) {
  const float scale = float_of_bits(b.e > 0 ? static_cast<u32>(b.e) << 23 : 0x400000u);  // 2^-127 is subnormal
  for (int j = 0; j < 16; ++j) y[j] = scale * kFp4Values[b.qs[j] & 15];
  for (int j = 0; j < 16; ++j) y[j + 16] = scale * kFp4Values[b.qs[j] >> 4];
}

// Callers guarantee that `data` is aligned to 2 bytes (GGUF aligns tensors to 8 or more).
template <class Block>
void unpack_all(const std::byte* data, std::int64_t blocks, float* out) {
  const auto* block = reinterpret_cast<const Block*>(data);
  for (std::int64_t i = 0; i < blocks; ++i) unpack(block[i], out + i * Block::values);
}

// By the number of ggml.h's `enum ggml_type`.
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

}  // namespace

STEER_ISA_TABLE(DequantizeKernels, dequantize_kernels) = {kernel_of};

}  // namespace steer::io::detail
