#pragma once
// Sixteen floats that the compiler turns into whatever the instruction set has (one AVX-512, two AVX2 or four SSE or
// NEON registers), and the elementary functions on them. For files that are built as core/isa.hpp says.

#include <cstdint>

#define STEER_INLINE inline __attribute__((always_inline))

namespace steer::core::detail {
namespace {

using V = float __attribute__((vector_size(64), aligned(4), may_alias));
using VI = std::int32_t __attribute__((vector_size(64), aligned(4), may_alias));
inline constexpr std::int64_t kLanes = 16;

// Vectors at any address: clang does not keep the alignment that an alias asks for, a packed structure's it does.
struct __attribute__((packed, may_alias)) UnalignedV {
  V value;
};
struct __attribute__((packed, may_alias)) UnalignedVI {
  VI value;
};
STEER_INLINE V load(const float* p) { return reinterpret_cast<const UnalignedV*>(p)->value; }
STEER_INLINE VI load_bits(const float* p) { return reinterpret_cast<const UnalignedVI*>(p)->value; }
STEER_INLINE void store(float* p, V a) { reinterpret_cast<UnalignedV*>(p)->value = a; }
STEER_INLINE V splat(float a) { return V{a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a}; }
STEER_INLINE V load_first(const float* p, std::int64_t n) {
  V a = splat(0);
  __builtin_memcpy(&a, p, static_cast<std::size_t>(n) * sizeof(float));
  return a;
}
STEER_INLINE void store_first(float* p, V a, std::int64_t n) {
  __builtin_memcpy(p, &a, static_cast<std::size_t>(n) * sizeof(float));
}

/// The sum of the lanes, always in the same order.
STEER_INLINE float sum(V a) {
  float x[16];
  __builtin_memcpy(x, &a, sizeof x);
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
}
STEER_INLINE V max(V a, V b) { return a > b ? a : b; }
STEER_INLINE V min(V a, V b) { return a < b ? a : b; }
STEER_INLINE float max(V a) {
  float best = a[0];
  for (int i = 1; i < 16; ++i) best = a[i] > best ? a[i] : best;
  return best;
}

/// e^x to about 2 units in the last place; 0 below -87.3, e^88.3 above 88.3; NaN stays NaN. (Reduction by ln 2 in two
/// parts and the degree 5 polynomial of the Cephes library.)
STEER_INLINE V exp(V x) {
  const V clamped = min(max(x, splat(-87.3f)), splat(88.3f));
  const V magic = splat(12582912.f);  // 1.5 * 2^23: adding it rounds to an integer
  const V shifted = clamped * 1.44269504088896341f + magic;
  const V n = shifted - magic;
  const V r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  V p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.f;
  const VI power = (__builtin_bit_cast(VI, shifted) + (127 - 0x4b400000)) << 23;
  const V y = p * __builtin_bit_cast(V, power);
  return x != x ? x : (x < -87.3f ? splat(0) : y);
}

/// tanh to about 1e-7 absolute.
STEER_INLINE V tanh(V x) { return 1.f - 2.f / (exp(x + x) + 1.f); }

}  // namespace
}  // namespace steer::core::detail
