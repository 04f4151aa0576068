#pragma once
// What the kernels of this folder are written in: CUDA C++, less the launch, whose brackets no other compiler reads.
// Compiled by nvcc they run on the card. Compiled by a C++ compiler they run on the CPU, thread by thread
// (emulation.hpp): slow, but every index, barrier and shuffle is the card's, so they are tested where there is none.

#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define STEER_LAUNCH(kernel, grid, block, stream, ...) \
  kernel<<<grid, block, 0, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
#else
#include <c10/util/Half.h>

#include "model/cuda/emulation.hpp"
#endif

namespace steer::model::detail::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

__device__ inline float from_half(std::uint16_t bits) {
#if defined(__CUDACC__)
  return __half2float(__ushort_as_half(bits));
#else
  return c10::detail::fp16_ieee_to_fp32_value(bits);
#endif
}

/// Rounds to nearest, clamped: a cache must not turn large into infinite. NaN stays.
__device__ inline std::uint16_t to_half(float x) {
  x = x > 65504.f ? 65504.f : x < -65504.f ? -65504.f : x;
#if defined(__CUDACC__)
  return __half_as_ushort(__float2half_rn(x));
#else
  return c10::detail::fp16_ieee_from_fp32_value(x);
#endif
}

__device__ inline float from_bits(std::uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

__device__ inline float from_bf16(std::uint16_t bits) { return from_bits(static_cast<std::uint32_t>(bits) << 16); }

/// Rounds to nearest, ties to even.
__device__ inline std::uint16_t to_bf16(float x) {
  std::uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

template <int Bytes>
__device__ inline bool aligned_to(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p) % Bytes == 0;
}

/// `Bytes` bytes in one load.
template <int Bytes, class T>
struct alignas(Bytes) Wide {
  T at[Bytes / sizeof(T)];
};
template <int Bytes, class T>
__device__ inline Wide<Bytes, T> read_aligned(const void* p) {
  return *static_cast<const Wide<Bytes, T>*>(p);
}

/// The sum over a warp's lanes, in every lane, added in one fixed order.
__device__ inline float warp_sum(float x) {
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

__device__ inline float warp_max(float x) {
  for (int step = kWarp / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}

inline unsigned blocks_for(std::int64_t items, int a_block) {
  return static_cast<unsigned>((items + a_block - 1) / a_block);
}

}  // namespace steer::model::detail::cuda
