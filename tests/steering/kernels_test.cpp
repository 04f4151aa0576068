#include "steering/kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include <steer/core/random.hpp>

#include "core/isa.hpp"

namespace steer::steering::detail {
namespace {

using core::detail::Isa;

std::vector<float> numbers(Rng& rng, std::int64_t count) {
  std::vector<float> out(static_cast<std::size_t>(count));
  for (float& x : out) x = static_cast<float>(rng.normal());
  return out;
}

double dot(const std::vector<float>& a, const float* b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

// Every loop for every instruction set, against sums in f64: widths with and without a rest, more rows than one pass
// takes.
TEST(SteeringKernels, EqualPlainSums) {
  const Isa before = core::detail::isa_in_use();
  std::int64_t checked = 0;
  for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512}) {
    if (!core::detail::isa_available(isa)) continue;
    core::detail::set_isa_for_testing(isa);
    const Kernels& loops = kernels();
    for (const std::int64_t width : {1, 15, 16, 33, 64, 100, 768})
      for (std::int64_t count = 1; count <= 11; ++count) {
        Rng rng(static_cast<std::uint64_t>(width * 100 + count));
        const std::vector<float> h = numbers(rng, width), table = numbers(rng, count * width), c = numbers(rng, count);
        std::vector<const float*> rows;
        for (std::int64_t i = 0; i < count; ++i) rows.push_back(table.data() + i * width);
        const double squares = dot(h, h.data()), near = 1e-5 * static_cast<double>(width);
        double sum = 0;
        for (const float x : h) sum += x;
        // One more than is written, so that a write beyond shows.
        std::vector<float> out(static_cast<std::size_t>(count) + 1, 99), measured = out;
        loops.dots(h.data(), rows.data(), count, width, out.data());
        const float norm = loops.dots_measured(h.data(), rows.data(), count, width, measured.data());
        for (std::int64_t i = 0; i < count; ++i)
          EXPECT_NEAR(out[static_cast<std::size_t>(i)], dot(h, rows[static_cast<std::size_t>(i)]), near) << i;
        EXPECT_EQ(out.back(), 99);
        EXPECT_EQ(measured, out) << "the same bits with and without |h|^2";
        EXPECT_NEAR(norm, squares, near);
        const Moments moments = loops.moments(h.data(), width);
        EXPECT_EQ(moments.sum_squares, norm) << "and |h|^2 those of `moments`";
        EXPECT_NEAR(moments.sum, sum, near);
        std::vector<float> added = h;
        loops.add_scaled(added.data(), rows.data(), c.data(), count, width);
        for (std::int64_t k = 0; k < width; ++k) {
          double wanted = h[static_cast<std::size_t>(k)];
          for (std::int64_t i = 0; i < count; ++i)
            wanted += static_cast<double>(c[static_cast<std::size_t>(i)]) * rows[static_cast<std::size_t>(i)][k];
          EXPECT_NEAR(added[static_cast<std::size_t>(k)], wanted, 1e-5) << k;
        }
        std::vector<float> one = h, scaled = h;
        EXPECT_EQ(loops.add_measured(one.data(), rows[0], width), norm) << "|h|^2 from before, the same bits";
        loops.scale(scaled.data(), 1.5F, width);
        for (std::int64_t k = 0; k < width; ++k) {
          EXPECT_EQ(one[static_cast<std::size_t>(k)], h[static_cast<std::size_t>(k)] + rows[0][k]);
          EXPECT_EQ(scaled[static_cast<std::size_t>(k)], 1.5F * h[static_cast<std::size_t>(k)]);
        }
        ++checked;
      }
  }
  core::detail::set_isa_for_testing(before);
  EXPECT_GE(checked, 77);
}

}  // namespace
}  // namespace steer::steering::detail
