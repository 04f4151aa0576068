// Products by x in 8 bits with AVX-VNNI against AVX2's older instructions and against exact ones, one thread, weights
// in the cache, in turn: ratios, median and quartiles.
//
//   bench/vnni [REPETITIONS]
//
// The library's own kernels, but with AVX-VNNI's instruction in AVX-512's encoding, sixteen registers and 256 bits: so
// machines with AVX-512 and no AVX-VNNI (AMD's Zen 4) can measure them too.

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <utility>
#include <vector>

static inline __m256i dpbusd(__m256i sum, __m256i w, __m256i x) {
  asm("%{evex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(w), "x"(x));
  return sum;
}
#define STEER_DPBUSD dpbusd
#define STEER_ISA bench
#include "model/kernels/kernels-inl.hpp"

namespace {

using namespace steer::model::detail;

struct Kind {
  const char* name;
  WeightType type;
  std::int64_t values, bytes;  // of a block
};
constexpr Kind kKinds[] = {{"int8", WeightType::int8, 32, 32},   {"Q4_0", WeightType::q4_0, 32, 18},
                           {"Q8_0", WeightType::q8_0, 32, 34},   {"Q4_K", WeightType::q4_k, 256, 144},
                           {"Q5_K", WeightType::q5_k, 256, 176}, {"Q6_K", WeightType::q6_k, 256, 210}};
constexpr std::int64_t kRows = 1536, kWidthOfRow = 1536;

double seconds(const KernelTable& table, ProductArgs a, float* packed, float* scratch) {
  const auto times = static_cast<int>(std::max(1.0, 3e7 / static_cast<double>(a.m * kRows * kWidthOfRow)));
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < times; ++i) {
    table.pack_rows(a, 0, kWidthOfRow, packed);
    a.packed = packed;
    table.product(a, 0, kRows, scratch);
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / times;
}

void print(const char* what, std::vector<double> ratios) {
  std::ranges::sort(ratios);
  const auto n = ratios.size();
  std::printf("  %s %.2f [%.2f, %.2f]", what, ratios[n / 2], ratios[n / 4], ratios[n - 1 - n / 4]);
}

}  // namespace

int main(int argc, char** argv) {
  const int repetitions = argc > 1 ? std::max(1, std::atoi(argv[1])) : 21;
  if (!__builtin_cpu_supports("avx512vnni") || !__builtin_cpu_supports("avx512vl")) {
    std::puts("expected a processor with AVX-512 VNNI and VL; on others compare STEER_ISA=avxvnni with avx2");
    return 1;
  }
  std::mt19937 random(1);
  std::vector<float> scratch(kScratchFloats + 16);
  float* aligned = scratch.data() + -reinterpret_cast<std::uintptr_t>(scratch.data()) % 64 / 4;
  for (const Kind& kind : kKinds) {
    const std::int64_t row_bytes = kWidthOfRow / kind.values * kind.bytes;
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(kRows * row_bytes));
    for (auto& b : bytes) b = static_cast<std::uint8_t>(random() % 60);  // finite scales
    const std::vector<float> scales(static_cast<std::size_t>(kRows * kWidthOfRow / 32), 0.01f);
    for (const std::int64_t m : {1, 4, 16, 64, 256}) {
      std::vector<float> x(static_cast<std::size_t>(m * kWidthOfRow)), packed(x.size() * 2),
          y(static_cast<std::size_t>(m * kRows));
      for (float& v : x) v = static_cast<float>(random() % 2000) / 1000 - 1;
      ProductArgs a{.weight = {kind.type, bytes.data(), scales.data(), kRows, kWidthOfRow, row_bytes},
                    .x = x.data(),
                    .ldx = kWidthOfRow,
                    .m = m,
                    .y = y.data(),
                    .ldy = kRows,
                    .rounding = Rounding::int8};
      std::vector<double> over_avx2, over_exact;
      for (int i = 0; i < repetitions; ++i) {
        const double with = seconds(kernels_with_vnni_bench, a, packed.data(), aligned);
        over_avx2.push_back(seconds(kernels_bench, a, packed.data(), aligned) / with);
        a.rounding = Rounding::none;
        over_exact.push_back(seconds(kernels_bench, a, packed.data(), aligned) / with);
        a.rounding = Rounding::int8;
      }
      std::printf("%-5s %3d rows:", kind.name, static_cast<int>(m));
      print("x AVX2", std::move(over_avx2));
      print("x exact", std::move(over_exact));
      std::puts("");
    }
  }
  return 0;
}
