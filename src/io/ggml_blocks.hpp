#pragma once
// The blocks of GGUF's quantised types as they lie in memory, after ggml-common.h of llama.cpp (the formats'
// definition). Plain data: three readers share it, io/dequantize-inl.hpp, which unpacks blocks with the bits that ggml
// gives them, and model/kernels/formats-inl.hpp and model/cuda/products.cu, which widen them in registers in a product.

#include <cstdint>

namespace steer::io::detail::ggml {

/// An f16's bits.
using Half = std::uint16_t;

// Of 32 values. 16 bytes hold 32 nibbles: the low ones are values 0 to 15, the high ones 16 to 31.
struct Q4_0 {
  static constexpr int values = 32;
  Half d;
  std::uint8_t qs[16];  // less 8
};
struct Q4_1 {
  static constexpr int values = 32;
  Half d, m;
  std::uint8_t qs[16];
};
struct Q5_0 {
  static constexpr int values = 32;
  Half d;
  std::uint8_t qh[4];   // bit i is the fifth bit of value i
  std::uint8_t qs[16];  // less 16
};
struct Q5_1 {
  static constexpr int values = 32;
  Half d, m;
  std::uint8_t qh[4];
  std::uint8_t qs[16];
};
struct Q8_0 {
  static constexpr int values = 32;
  Half d;
  std::int8_t qs[32];
};
struct IQ4_NL {
  static constexpr int values = 32;
  Half d;
  std::uint8_t qs[16];  // places in kIq4Values
};
/// Microscaling: 4-bit floats and a power of two, of which 255 is no number.
struct MXFP4 {
  static constexpr int values = 32;
  std::uint8_t e;       // 2^(e - 127)
  std::uint8_t qs[16];  // places in kFp4Values
};

// Of 256 values.
struct Q2_K {
  static constexpr int values = 256;
  std::uint8_t scales[16];  // low nibble: scale, high: minimum, of 16 values each
  std::uint8_t qs[64];
  Half d, dmin;
};
struct Q3_K {
  static constexpr int values = 256;
  std::uint8_t hmask[32];  // the high bit, inverted, of 8 groups of 32 values
  std::uint8_t qs[64];
  std::uint8_t scales[12];  // sixteen of 6 bits: low nibbles in bytes 0-7, high pairs in bytes 8-11
  Half d;
};
struct Q4_K {
  static constexpr int values = 256;
  Half d, dmin;
  std::uint8_t scales[12];  // eight pairs of a 6-bit scale and a 6-bit minimum (get_scale_min_k4)
  std::uint8_t qs[128];     // groups of 32 in pairs: low nibbles, high nibbles
};
struct Q5_K {
  static constexpr int values = 256;
  Half d, dmin;
  std::uint8_t scales[12];
  std::uint8_t qh[32];  // bit j of byte i: the fifth bit of value i of group j
  std::uint8_t qs[128];
};
struct Q6_K {
  static constexpr int values = 256;
  std::uint8_t ql[128];
  std::uint8_t qh[64];
  std::int8_t scales[16];
  Half d;
};
struct IQ4_XS {
  static constexpr int values = 256;
  Half d;
  std::uint16_t scales_h;
  std::uint8_t scales_l[4];
  std::uint8_t qs[128];
};

inline constexpr float kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
inline constexpr float kFp4Values[16] = {0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6};

static_assert(sizeof(Q4_0) == 18 && sizeof(Q4_1) == 20 && sizeof(Q5_0) == 22 && sizeof(Q5_1) == 24 &&
              sizeof(Q8_0) == 34 && sizeof(IQ4_NL) == 18 && sizeof(MXFP4) == 17);
static_assert(sizeof(Q2_K) == 84 && sizeof(Q3_K) == 110 && sizeof(Q4_K) == 144 && sizeof(Q5_K) == 176 &&
              sizeof(Q6_K) == 210 && sizeof(IQ4_XS) == 136);

}  // namespace steer::io::detail::ggml
