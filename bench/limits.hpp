#pragma once
// What this machine can do at best, measured now: the yardsticks of the benchmarks.

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace steer::bench {

double seconds(const auto& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Bytes a second that all threads together read from memory: the best of several sweeps over 512 MB.
inline double measure_read_limit(int repeats = 8) {
  const std::int64_t count = std::int64_t{1} << 26;
  const at::Tensor buffer = at::ones({count}, at::kLong);
  const std::int64_t* p = buffer.const_data_ptr<std::int64_t>();
  double best = 1e9;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    best = std::min(best, seconds([&] {
                      at::parallel_for(0, count / 8, 1 << 20, [&](std::int64_t begin, std::int64_t end) {
                        std::int64_t a = 0, b = 0, c = 0, d = 0;
                        for (std::int64_t i = begin * 8; i < end * 8; i += 8) {
                          a ^= p[i] + p[i + 1];
                          b ^= p[i + 2] + p[i + 3];
                          c ^= p[i + 4] + p[i + 5];
                          d ^= p[i + 6] + p[i + 7];
                        }
                        volatile std::int64_t keep = a ^ b ^ c ^ d;
                        (void)keep;
                      });
                    }));
  }
  return static_cast<double>(count) * sizeof(std::int64_t) / best;
}

/// Operations a second of libtorch's f32 GEMM at M = 256, the best of several.
inline double measure_gemm_limit(int repeats = 12) {
  const at::Tensor a = at::randn({256, 2048}), b = at::randn({2048, 2048});
  double best = 1e9;
  for (int repeat = 0; repeat < repeats; ++repeat) best = std::min(best, seconds([&] { (void)at::mm(a, b); }));
  return 2.0 * 256 * 2048 * 2048 / best;
}

}  // namespace steer::bench
