// Every kernel against a plain loop in double precision, for every instruction set this machine can run.
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string_view>
#include <vector>

#include "core/isa.hpp"
#include "model/kernels/linear.hpp"
#include "support.hpp"

namespace steer::model::detail {
namespace {

using core::detail::Isa;
using core::detail::isa_available;
using core::detail::set_isa_for_testing;

constexpr Isa kIsas[] = {Isa::portable, Isa::avx2, Isa::avxvnni, Isa::avx512, Isa::amx};

/// Runs `body` once for each instruction set available, then goes back to the best.
template <class Body>
void for_each_isa(const Body& body) {
  const Isa before = core::detail::isa_in_use();
  for (Isa isa : kIsas) {
    if (!isa_available(isa)) continue;
    set_isa_for_testing(isa);
    SCOPED_TRACE(kernels().name);
    body();
  }
  set_isa_for_testing(before);
}

std::vector<float> randoms(std::int64_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(count);
  for (auto& v : out) v = normal(generator);
  return out;
}

at::Tensor random_tensor(std::int64_t n, std::int64_t k, unsigned seed) {
  auto values = randoms(n * k, seed);
  return at::from_blob(values.data(), {n, k}, at::kFloat).clone();
}

/// Largest |y - double product| over the sum of |terms|: a bound free of cancellation.
double product_error(const at::Tensor& weight, const std::vector<float>& x, std::int64_t m, const float* bias,
                     const std::vector<float>& y) {
  const std::int64_t n = weight.size(0), k = weight.size(1);
  const at::Tensor w = weight.to(at::kFloat).contiguous();
  const float* wp = w.const_data_ptr<float>();
  double worst = 0;
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = bias ? bias[j] : 0, size = std::abs(sum) + 1e-30;
      for (std::int64_t l = 0; l < k; ++l) {
        const double term = static_cast<double>(x[i * k + l]) * wp[j * k + l];
        sum += term;
        size += std::abs(term);
      }
      if (!std::isfinite(y[i * n + j])) return std::numeric_limits<double>::infinity();  // max() would pass over NaN
      worst = std::max(worst, std::abs(y[i * n + j] - sum) / size);
    }
  }
  return worst;
}

struct Shape {
  std::int64_t m, n, k;
};
// One panel of rows of x or several, blocks of them and of k, and a rest of each.
constexpr Shape kShapes[] = {{1, 1, 1},     {1, 5, 3},     {2, 7, 31},    {3, 6, 32},     {4, 13, 33},
                             {5, 11, 64},   {7, 25, 65},   {8, 3, 95},    {16, 19, 7},    {17, 37, 257},
                             {33, 24, 96},  {64, 29, 100}, {65, 50, 48},  {130, 41, 72},  {1, 500, 768},
                             {4, 301, 515}, {9, 26, 1601}, {70, 25, 800}, {12, 47, 33},   {16, 73, 768},
                             {16, 24, 500}, {31, 49, 513}, {48, 25, 31},  {260, 50, 300}, {300, 97, 256}};
constexpr double kTolerance = 1e-6;

void check(const Linear& linear, const at::Tensor& truth, std::int64_t m, const float* bias) {
  const auto x = randoms(m * linear.in_features(), 5);
  std::vector<float> y(m * linear.out_features(), -1e30f);
  linear.apply(x.data(), m, y.data());
  EXPECT_LT(product_error(truth, x, m, bias, y), kTolerance)
      << m << "x" << linear.out_features() << "x" << linear.in_features();
}

TEST(KernelProduct, DenseWeightsEqualTheDoubleProduct) {
  for_each_isa([] {
    for (auto dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
      for (const auto& [m, n, k] : kShapes) {
        const at::Tensor weight = random_tensor(n, k, 1).to(dtype);
        const auto bias = randoms(n, 2);
        check(Linear::dense(weight), weight, m, nullptr);
        check(Linear::dense(weight, at::from_blob(const_cast<float*>(bias.data()), {n}, at::kFloat)), weight, m,
              bias.data());
      }
    }
  });
}

// As in a file that aligns no tensor: rows that begin anywhere in a line of cache, right up to the end of what is
// mapped.
TEST(KernelProduct, WeightsMayBeginAnywhere) {
  for_each_isa([] {
    const std::int64_t n = 50, k = 288;
    const at::Tensor weight = random_tensor(n, k, 4);
    for (int shift : {0, 1, 8, 15}) {
      std::vector<float> memory(shift + n * k);
      std::memcpy(memory.data() + shift, weight.const_data_ptr<float>(), n * k * sizeof(float));
      const Linear linear = Linear::dense(at::from_blob(memory.data() + shift, {n, k}, at::kFloat));
      for (std::int64_t m : {1, 4, 16, 32}) check(linear, weight, m, nullptr);
    }
  });
}

TEST(KernelProduct, Int8EqualsTheProductOfItsOwnDequantisedWeights) {
  for_each_isa([] {
    for (const auto& [m, n, k] : kShapes) {
      const at::Tensor weight = random_tensor(n, k, 3);
      const Linear linear = Linear::int8(weight);
      const at::Tensor dequantised = linear.to_f32();
      // Half a step of the largest value of a group of 32 is all that rounding may take.
      EXPECT_LE((dequantised - weight).abs().max().item<float>(), weight.abs().max().item<float>() / 127 / 2 * 1.001f);
      check(linear, dequantised, m, nullptr);
    }
  });
}

TEST(KernelProduct, EmptyEdgesAreDefined) {
  for_each_isa([] {
    const Linear none = Linear::dense(at::empty({0, 5}));
    EXPECT_EQ(none(at::ones({3, 5})).sizes(), (std::vector<std::int64_t>{3, 0}));
    const Linear wide = Linear::dense(at::ones({4, 5}));
    EXPECT_EQ(wide(at::empty({0, 5})).sizes(), (std::vector<std::int64_t>{0, 4}));
    const Linear flat = Linear::dense(at::empty({4, 0}), at::arange(4).to(at::kFloat));
    EXPECT_TRUE(at::equal(flat(at::empty({2, 0})), at::arange(4).to(at::kFloat).expand({2, 4})));
    EXPECT_STEER_ERROR(wide(at::ones({3, 6})), ErrorCode::shape, "width 5");
  });
}

TEST(KernelProduct, ARowsBitsDoNotDependOnItsBatchMates) {
  for_each_isa([] {
    const std::int64_t n = 53, most = 80;
    for (int kind = 0; kind < 6; ++kind) {
      const std::int64_t k = kind == 0 ? 300 : kind < 4 ? 1700 : 2304;  // of one block of k and of several
      const at::Tensor weight = random_tensor(n, k, 7);
      const auto blocks = [&](const char* type, std::int64_t bytes) {
        return Linear::blocks(at::randint(0, 60, {n * k / 256 * bytes}, at::kByte), type, n, k);
      };
      const Linear linear = kind <= 1   ? Linear::dense(weight)
                            : kind == 2 ? Linear::dense(weight.to(at::kBFloat16))
                            : kind == 3 ? Linear::int8(weight)
                            : kind == 4 ? blocks("Q4_K", 144)
                                        : blocks("Q6_K", 210);
      const auto x = randoms(most * k, 8);
      std::vector<float> alone(most * n);
      for (std::int64_t i = 0; i < most; ++i) linear.apply(x.data() + i * k, 1, alone.data() + i * n);
      for (std::int64_t m = 1; m <= most; ++m) {
        std::vector<float> y(m * n);
        linear.apply(x.data(), m, y.data());
        EXPECT_EQ(std::memcmp(y.data(), alone.data(), y.size() * sizeof(float)), 0) << "m = " << m;
      }
    }
  });
}

/// x as a product with such rounding takes it: bf16 by libtorch; or whole multiples of a group's largest value over
/// 127.
std::vector<float> rounded(const std::vector<float>& x, std::int64_t k, Rounding rounding) {
  auto out = x;
  if (rounding == Rounding::bf16) {
    for (float& v : out) v = static_cast<float>(at::BFloat16(v));
    return out;
  }
  for (std::size_t row = 0; row < x.size(); row += static_cast<std::size_t>(k))
    for (std::int64_t first = 0; first < k; first += 32) {
      float* group = out.data() + row + first;
      const std::int64_t count = std::min<std::int64_t>(32, k - first);
      float most = 0;
      for (std::int64_t i = 0; i < count; ++i) most = std::max(most, std::abs(group[i]));
      for (std::int64_t i = 0; i < count && most > 0; ++i)
        group[i] = std::nearbyint(group[i] * (127 / most)) * (most / 127);
    }
  return out;
}

/// Leaves NaNs in the memory that this thread packs rows of x into.
void spoil_packed_rows() {
  const std::vector<float> x(64 * 2304, std::numeric_limits<float>::quiet_NaN());
  std::vector<float> y(64);
  Linear::dense(at::ones({1, 2304})).apply(x.data(), 64, y.data());
}

/// GGUF's, with where each block's f16 lie.
struct BlockType {
  const char* name;
  std::int64_t values, bytes;
  std::vector<std::int64_t> halves;
};
const BlockType kBlockTypes[] = {{"Q4_0", 32, 18, {0}},      {"Q4_1", 32, 20, {0, 2}},  {"Q5_0", 32, 22, {0}},
                                 {"Q5_1", 32, 24, {0, 2}},   {"Q8_0", 32, 34, {0}},     {"Q4_K", 256, 144, {0, 2}},
                                 {"Q5_K", 256, 176, {0, 2}}, {"Q6_K", 256, 210, {208}}, {"MXFP4", 32, 17, {}}};

struct RoundedCase {
  Linear linear;
  Rounding rounding;
};

std::vector<RoundedCase> rounded_cases(std::int64_t n, std::int64_t k) {
  const at::Tensor weight = random_tensor(n, k, 11);
  std::vector<RoundedCase> cases = {{Linear::dense(weight.to(at::kBFloat16)), Rounding::bf16},
                                    {Linear::dense(weight.to(at::kHalf)), Rounding::bf16},
                                    {Linear::int8(weight), Rounding::bf16},
                                    {Linear::int8(weight), Rounding::int8}};
  for (const BlockType& type : kBlockTypes) {
    if (k % type.values != 0) continue;
    const Linear linear =  // bytes below 60 keep every f16 finite
        Linear::blocks(at::randint(0, 60, {n * k / type.values * type.bytes}, at::kByte), type.name, n, k);
    cases.push_back({linear, Rounding::bf16});
    if (linear.type() != WeightType::mxfp4) cases.push_back({linear, Rounding::int8});
  }
  return cases;
}

TEST(KernelProduct, RoundedActivationsGiveTheProductOfTheRoundedNumbers) {
  for_each_isa([] {
    for (const auto& [m, n, k] :
         {Shape{1, 7, 256}, {5, 30, 512}, {3, 13, 96}, {4, 9, 353}, {70, 26, 2304}, {300, 5, 64}})
      for (const auto& [linear, rounding] : rounded_cases(n, k)) {
        const bool rounds = kernels().rounds(linear.type(), rounding);
        const auto x = randoms(m * k, 12);
        std::vector<float> y(m * n);
        spoil_packed_rows();
        linear.apply(x.data(), m, y.data(), rounding);
        at::Tensor weight = linear.to_f32();
        if (rounds && rounding == Rounding::bf16) weight = weight.to(at::kBFloat16).to(at::kFloat);
        EXPECT_LT(product_error(weight, rounds ? rounded(x, k, rounding) : x, m, nullptr, y), 3e-6)
            << m << "x" << n << "x" << k << " of type " << static_cast<int>(linear.type());
      }
  });
}

/// The largest bytes that W and x can have, all of one sign: sums in 16 bits must hold them.
TEST(KernelProduct, RoundedTo8BitsHoldsTheLargestNumbers) {
  for_each_isa([&] {
    for (const BlockType& type : kBlockTypes)
      for (const int fill : {0xff, 0x80, 0x7f}) {
        if (type.name == std::string_view("MXFP4")) continue;  // has no product of 8 bits
        const std::int64_t n = 17, k = 512;
        at::Tensor bytes = at::full({n * k / type.values, type.bytes}, fill, at::kByte);
        for (std::int64_t at : type.halves)
          bytes.slice(1, at, at + 1).fill_(0), bytes.slice(1, at + 1, at + 2).fill_(0x3c);
        if (type.name == std::string_view("Q6_K")) bytes.slice(1, 192, 208).fill_(1);
        const Linear linear = Linear::blocks(bytes.flatten(), type.name, n, k);
        for (const std::int64_t m : {1, 3, 8})
          for (const float value : {1.0f, -1.0f}) {
            const std::vector<float> x(static_cast<std::size_t>(m * k), value);
            std::vector<float> y(m * n);
            linear.apply(x.data(), m, y.data(), Rounding::int8);
            EXPECT_LT(product_error(linear.to_f32(), x, m, nullptr, y), 3e-6)
                << type.name << " of bytes " << fill << ", " << m << " rows of " << value;
          }
      }
  });
}

TEST(KernelProduct, ARowsBitsDoNotDependOnItsBatchMatesWhereItIsRounded) {
  for_each_isa([] {
    for (const std::int64_t k :
         {4608, 4416})  // several parts on each instruction set; of whole eights of groups, and not
      for (const auto& [linear, rounding] : rounded_cases(31, k)) {
        const std::int64_t n = 31;
        const auto x = randoms(70 * k, 13);
        std::vector<float> alone(70 * n);
        for (std::int64_t i = 0; i < 70; ++i) linear.apply(x.data() + i * k, 1, alone.data() + i * n, rounding);
        for (std::int64_t m : {2, 3, 4, 7, 65, 70}) {
          std::vector<float> y(m * n);
          linear.apply(x.data(), m, y.data(), rounding);
          EXPECT_EQ(std::memcmp(y.data(), alone.data(), y.size() * sizeof(float)), 0) << "m = " << m;
        }
      }
  });
}

TEST(KernelProduct, TogetherEqualsOneByOne) {
  for_each_isa([] {
    const std::int64_t k = 129;
    for (std::int64_t m : {1, 5, 70, 300}) {
      const Linear a = Linear::dense(random_tensor(40, k, 1)), b = Linear::int8(random_tensor(17, k, 2));
      const auto x = randoms(m * k, 3);
      std::vector<float> ya(m * 40), yb(m * 17), joint(m * 60, 9.0f);
      a.apply(x.data(), m, ya.data());
      b.apply(x.data(), m, yb.data());
      const LinearCall calls[] = {{&a, joint.data(), 60}, {&b, joint.data() + 40, 60}};
      apply_together(x.data(), m, calls);
      for (std::int64_t i = 0; i < m; ++i) {
        EXPECT_EQ(std::memcmp(&joint[i * 60], &ya[i * 40], 40 * sizeof(float)), 0);
        EXPECT_EQ(std::memcmp(&joint[i * 60 + 40], &yb[i * 17], 17 * sizeof(float)), 0);
        for (int j = 57; j < 60; ++j) EXPECT_EQ(joint[i * 60 + j], 9.0f);
      }
    }
  });
}

TEST(KernelProduct, SeveralInputsTogetherEqualOneByOne) {
  for_each_isa([] {
    for (const std::int64_t k : {96, 129})
      for (const Rounding rounding : {Rounding::none, Rounding::bf16, Rounding::int8}) {
        // Experts with no row, one, a few and more than are packed at once; two share a row, as those of one token do.
        const std::int64_t rows[] = {1, 1, 0, 5, 70, 1, 300, 128, 129};
        const auto x = randoms(700 * k, 5);
        std::vector<Linear> weights;
        std::vector<std::vector<float>> alone, together;
        std::vector<LinearCall> calls;
        std::vector<LinearGroup> groups;
        std::int64_t begin = 0;
        for (std::size_t i = 0; i < std::size(rows); ++i)
          for (std::int64_t n : {40, 17}) {
            const auto seed = static_cast<unsigned>(10 * i + static_cast<std::size_t>(n));
            weights.push_back(n == 40 ? Linear::dense(random_tensor(n, k, seed))
                                      : Linear::int8(random_tensor(n, k, seed)));
            alone.emplace_back(rows[i] * n);
            together.emplace_back(rows[i] * n);
          }
        for (std::size_t i = 0; i < weights.size(); ++i) calls.push_back({&weights[i], together[i].data(), 0});
        for (std::size_t i = 0; i < std::size(rows); ++i) {
          const float* from = x.data() + begin * k;
          if (i != 0) begin += rows[i];
          groups.push_back({from, rows[i], std::span(calls).subspan(2 * i, 2)});
          for (std::size_t j = 2 * i; j < 2 * i + 2; ++j) weights[j].apply(from, rows[i], alone[j].data(), rounding);
        }
        spoil_packed_rows();
        apply_together(groups, rounding);
        for (std::size_t i = 0; i < weights.size(); ++i)
          EXPECT_TRUE(alone[i].empty() ||
                      std::memcmp(together[i].data(), alone[i].data(), alone[i].size() * sizeof(float)) == 0)
              << "product " << i << " of width " << k << ", rounding " << static_cast<int>(rounding);
      }
  });
}

TEST(KernelProduct, StepsAsideForGradients) {
  const at::Tensor weight = random_tensor(6, 40, 1);
  const Linear linear = Linear::dense(weight.to(at::kBFloat16));
  at::Tensor x = random_tensor(3, 40, 2).requires_grad_();
  at::Tensor y = linear(x);
  EXPECT_TRUE(y.requires_grad());
  EXPECT_TRUE(at::allclose(y.detach(), linear(x.detach()), 1e-4, 1e-5));
}

TEST(KernelProduct, GatherIsTheRowsOfTheWeight) {
  for_each_isa([] {
    for (auto dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
      const at::Tensor weight = random_tensor(9, 77, 1).to(dtype);
      const Linear linear = Linear::dense(weight);
      const std::vector<std::int64_t> ids = {8, 0, 3, 3};
      EXPECT_TRUE(at::equal(linear.gather(ids), weight.to(at::kFloat).index_select(0, at::tensor(ids))));
      EXPECT_STEER_ERROR(linear.gather(std::vector<std::int64_t>{9}), ErrorCode::argument, "[0, 9)");
    }
  });
}

}  // namespace
}  // namespace steer::model::detail
