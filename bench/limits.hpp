#pragma once
// What this machine can do at best, measured now: the yardsticks of the benchmarks.

#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <vector>

#include <steer/core/threads.hpp>

#include "core/crew.hpp"

namespace steer::bench {

double seconds(const auto& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Reads `bytes` from p as `Streams` stretches side by side, fetching so far ahead (0: left to the hardware).
template <int Streams, int Ahead>
std::uint64_t read_streams(const std::byte* p, std::int64_t bytes) {
  using Line = std::uint64_t __attribute__((vector_size(64), may_alias));
  const std::int64_t length = bytes / Streams / 64 * 64;
  Line sums[Streams]{};
  for (std::int64_t at = 0; at < length; at += 64)
    for (int s = 0; s < Streams; ++s) {
      const std::byte* from = p + s * length + at;
      if constexpr (Ahead > 0) __builtin_prefetch(from + Ahead);
      sums[s] ^= *reinterpret_cast<const Line*>(from);
    }
  std::uint64_t all = 0;
  for (const Line& sum : sums)
    for (int i = 0; i < 8; ++i) all ^= sum[i];
  return all;
}

/// Bytes a second that all threads together read from memory: 512 MB, in pieces as products take them, by the best of
/// several ways to read and several tries. A machine whose prefetchers want several streams is not measured by one.
inline double measure_read_limit(int repeats = 4) {
  constexpr std::int64_t kPiece = 1 << 20, kPieces = 512;
  static const std::vector<std::byte> buffer(kPieces * kPiece, std::byte{1});
  using Read = std::uint64_t (*)(const std::byte*, std::int64_t);
  constexpr Read kWays[] = {read_streams<1, 0>, read_streams<4, 0>, read_streams<8, 0>, read_streams<1, 1024>,
                            read_streams<6, 512>};
  double best = 1e9;
  for (int repeat = 0; repeat < repeats; ++repeat)
    for (const Read read : kWays)
      best = std::min(best, seconds([&] {
                        core::detail::run_pieces(kPieces, [&](std::int64_t i) {
                          volatile std::uint64_t keep = read(buffer.data() + i * kPiece, kPiece);
                          (void)keep;
                        });
                      }));
  return static_cast<double>(kPieces * kPiece) / best;
}

/// Operations a second of libtorch's GEMM at M = 256, the best of several.
inline double measure_gemm_limit(int repeats = 12, at::ScalarType type = at::kFloat) {
  const at::Tensor a = at::randn({256, 2048}).to(type), b = at::randn({2048, 2048}).to(type);
  double best = 1e9;
  for (int repeat = 0; repeat < repeats; ++repeat) best = std::min(best, seconds([&] { (void)at::mm(a, b); }));
  return 2.0 * 256 * 2048 * 2048 / best;
}

}  // namespace steer::bench
