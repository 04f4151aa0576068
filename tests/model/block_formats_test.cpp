// GGUF block weights against an element-by-element dequantisation written from ggml's block definitions, in double.
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/isa.hpp"
#include "model/kernels/linear.hpp"
#include "support.hpp"

namespace steer::model::detail {
namespace {

double half_at(const std::uint8_t* p) {
  std::uint16_t h;
  std::memcpy(&h, p, 2);
  const int exponent = h >> 10 & 31, mantissa = h & 1023;
  const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return h & 0x8000 ? -magnitude : magnitude;
}

int nibble(const std::uint8_t* p, int i, bool high) { return high ? p[i] >> 4 : p[i] & 15; }
int bit(const std::uint8_t* p, int i) { return p[i / 8] >> (i % 8) & 1; }

/// 6-bit scale and minimum of sub-block j of a Q4_K or Q5_K block.
std::pair<int, int> scale_and_min(const std::uint8_t* s, int j) {
  if (j < 4) return {s[j] & 63, s[j + 4] & 63};
  return {(s[j + 4] & 15) + 16 * (s[j - 4] >> 6), (s[j + 4] >> 4) + 16 * (s[j] >> 6)};
}

struct Format {
  const char* name;
  int values, bytes;
  std::vector<int> half_offsets;  // where its f16 scales are
  double (*value)(const std::uint8_t* block, int i);
};

const std::vector<Format>& formats() {
  static const std::vector<Format> all = {
      {"Q4_0",
       32,
       18,
       {0},
       [](const std::uint8_t* b, int i) { return half_at(b) * (nibble(b + 2, i % 16, i >= 16) - 8); }},
      {"Q4_1",
       32,
       20,
       {0, 2},
       [](const std::uint8_t* b, int i) { return half_at(b) * nibble(b + 4, i % 16, i >= 16) + half_at(b + 2); }},
      {"Q5_0",
       32,
       22,
       {0},
       [](const std::uint8_t* b, int i) {
         return half_at(b) * (nibble(b + 6, i % 16, i >= 16) + 16 * bit(b + 2, i) - 16);
       }},
      {"Q5_1",
       32,
       24,
       {0, 2},
       [](const std::uint8_t* b, int i) {
         return half_at(b) * (nibble(b + 8, i % 16, i >= 16) + 16 * bit(b + 4, i)) + half_at(b + 2);
       }},
      {"Q8_0",
       32,
       34,
       {0},
       [](const std::uint8_t* b, int i) { return half_at(b) * static_cast<std::int8_t>(b[2 + i]); }},
      {"Q4_K",
       256,
       144,
       {0, 2},
       [](const std::uint8_t* b, int i) {
         const auto [scale, minimum] = scale_and_min(b + 4, i / 32);
         const int q = nibble(b + 16 + i / 64 * 32, i % 32, i / 32 % 2);
         return half_at(b) * scale * q - half_at(b + 2) * minimum;
       }},
      {"Q5_K",
       256,
       176,
       {0, 2},
       [](const std::uint8_t* b, int i) {
         const auto [scale, minimum] = scale_and_min(b + 4, i / 32);
         const int q = nibble(b + 48 + i / 64 * 32, i % 32, i / 32 % 2) + 16 * (b[16 + i % 32] >> (i / 32) & 1);
         return half_at(b) * scale * q - half_at(b + 2) * minimum;
       }},
      {"MXFP4",
       32,
       17,
       {},
       [](const std::uint8_t* b, int i) {
         constexpr double values[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
         const int n = nibble(b + 1, i % 16, i >= 16);
         return std::ldexp(n & 8 ? -values[n & 7] : values[n & 7], std::min<int>(b[0], 254) - 127);
       }},
      {"Q6_K", 256, 210, {208}, [](const std::uint8_t* b, int i) {
         const int half = i / 128, in_half = i % 128, quarter = in_half / 32, l = in_half % 32;
         const int low = nibble(b + half * 64, quarter % 2 * 32 + l, quarter >= 2);
         const int high = b[128 + half * 32 + l] >> (2 * quarter) & 3;
         return half_at(b + 208) * static_cast<std::int8_t>(b[192 + i / 16]) * (low + 16 * high - 32);
       }}};
  return all;
}

/// Random blocks [n, k] whose f16 scales are finite and of either sign, subnormal ones among them.
at::Tensor random_blocks(const Format& f, std::int64_t n, std::int64_t k, unsigned seed) {
  std::mt19937 generator(seed);
  const std::int64_t blocks = n * k / f.values;
  at::Tensor raw = at::empty({blocks * f.bytes}, at::kByte);
  auto* p = raw.data_ptr<std::uint8_t>();
  for (std::int64_t i = 0; i < raw.numel(); ++i) p[i] = static_cast<std::uint8_t>(generator());
  for (std::int64_t b = 0; b < blocks; ++b) {
    if (f.half_offsets.empty())  // a power of two, at times a subnormal one
      p[b * f.bytes] = static_cast<std::uint8_t>(generator() % 8 == 0 ? generator() % 3 : 110 + generator() % 30);
    for (int offset : f.half_offsets) {
      p[b * f.bytes + offset + 1] = static_cast<std::uint8_t>(generator() % 48 + (generator() % 2) * 128);
    }
  }
  return raw;
}

using core::detail::Isa;
using core::detail::isa_available;
using core::detail::set_isa_for_testing;

constexpr Isa kIsas[] = {Isa::portable, Isa::avx2, Isa::avxvnni, Isa::avx512, Isa::amx};

TEST(KernelBlocks, EveryFormatDequantisesToItsDefinition) {
  for (Isa isa : kIsas) {
    if (!isa_available(isa)) continue;
    set_isa_for_testing(isa);
    for (const auto& f : formats()) {
      const std::int64_t n = 5, k = 768;
      const at::Tensor raw = random_blocks(f, n, k, 11);
      const Linear linear = Linear::blocks(raw, f.name, n, k);
      const at::Tensor got = linear.to_f32();
      const auto* bytes = raw.const_data_ptr<std::uint8_t>();
      for (std::int64_t i = 0; i < n * k; ++i) {
        const double want = f.value(bytes + i / f.values * f.bytes, static_cast<int>(i % f.values));
        // Two roundings of terms that may cancel (scale * q - minimum).
        ASSERT_NEAR(got.const_data_ptr<float>()[i], want, 2e-7 * (std::abs(want) + 64 * 63))
            << f.name << " element " << i << " on " << kernels().name;
      }
      const std::vector<std::int64_t> ids = {4, 0};
      EXPECT_TRUE(at::equal(linear.gather(ids), got.index_select(0, at::tensor(ids)))) << f.name;
    }
  }
  set_isa_for_testing(Isa::avx512);
}

TEST(KernelBlocks, ProductsEqualTheDoubleProductAndDoNotDependOnTheBatch) {
  for (Isa isa : kIsas) {
    if (!isa_available(isa)) continue;
    set_isa_for_testing(isa);
    for (const auto& f : formats()) {
      for (std::int64_t n : {1, 7, 26}) {
        const std::int64_t k = n == 7 ? 1024 : 256, most = 70;
        const at::Tensor raw = random_blocks(f, n, k, 3);
        const Linear linear = Linear::blocks(raw, f.name, n, k);
        const auto* bytes = raw.const_data_ptr<std::uint8_t>();
        std::mt19937 generator(9);
        std::normal_distribution<float> normal;
        std::vector<float> x(most * k), alone(most * n);
        for (auto& v : x) v = normal(generator);
        for (std::int64_t i = 0; i < most; ++i) linear.apply(x.data() + i * k, 1, alone.data() + i * n);
        std::vector<double> truth(most * n), size(most * n, 1e-30);
        for (std::int64_t i = 0; i < most * n; ++i) {
          for (std::int64_t l = 0; l < k; ++l) {
            const std::int64_t at = i % n * k + l;
            const double term =
                x[i / n * k + l] * f.value(bytes + at / f.values * f.bytes, static_cast<int>(at % f.values));
            truth[i] += term;
            size[i] += std::abs(term);
          }
          ASSERT_NEAR(alone[i], truth[i], 2e-6 * size[i]) << f.name << " on " << kernels().name;
        }
        for (std::int64_t m : {1, 2, 3, 4, 5, 8, 16, 33, 70}) {
          std::vector<float> y(m * n);
          linear.apply(x.data(), m, y.data());
          EXPECT_EQ(std::memcmp(y.data(), alone.data(), y.size() * sizeof(float)), 0) << f.name << " m = " << m;
        }
      }
    }
  }
  set_isa_for_testing(Isa::avx512);
}

TEST(KernelBlocks, BytesThatDoNotFitAreRefused) {
  const at::Tensor raw = at::zeros({144}, at::kByte);
  EXPECT_TRUE(Linear::keeps_blocks("Q4_K"));
  EXPECT_FALSE(Linear::keeps_blocks("IQ2_XS"));
  EXPECT_EQ(Linear::blocks(raw, "Q4_K", 1, 256).bytes(), 144);
  EXPECT_STEER_ERROR(Linear::blocks(raw, "IQ2_XS", 1, 256), ErrorCode::unsupported, "IQ2_XS");
  EXPECT_STEER_ERROR(Linear::blocks(raw, "Q4_K", 1, 100), ErrorCode::shape, "multiple of 256");
  EXPECT_STEER_ERROR(Linear::blocks(raw, "Q4_K", 2, 256), ErrorCode::format, "288 bytes");
}

}  // namespace
}  // namespace steer::model::detail
