#pragma once
// vpdpbusd as Intel's "Architecture Instruction Set Extensions Programming Reference" defines it for 256 bits, for
// machines without AVX-VNNI.

#include <immintrin.h>

#include <cstdint>

namespace steer::test {

inline __m256i slow_dpbusd(__m256i sum, __m256i bytes, __m256i signed_bytes) {
  alignas(32) std::int32_t sums[8];
  alignas(32) std::uint8_t a[32];
  alignas(32) std::int8_t b[32];
  _mm256_store_si256(reinterpret_cast<__m256i*>(sums), sum);
  _mm256_store_si256(reinterpret_cast<__m256i*>(a), bytes);
  _mm256_store_si256(reinterpret_cast<__m256i*>(b), signed_bytes);
  for (int i = 0; i < 32; ++i) sums[i / 4] += a[i] * b[i];
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(sums));
}

}  // namespace steer::test
