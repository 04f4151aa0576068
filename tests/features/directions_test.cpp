#include <steer/features/directions.hpp>

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/diag.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

#include "support.hpp"

namespace steer {
namespace {

double cosine(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  return (x.dot(y) / (x.norm() * y.norm())).item<double>();
}

at::Tensor unit(std::int64_t width) {
  const at::Tensor v = at::randn({width});
  return v / v.norm();
}

// Every behaviour's answers share a direction (being asked for something) and have one of their own. Against unsteered
// answers the mean difference is mostly the shared one; centred, it is its own.
TEST(Directions, CentringCancelsWhatAllBehavioursShare) {
  at::manual_seed(1);
  const std::int64_t width = 64;
  const at::Tensor shared = 5 * unit(width);
  std::vector<at::Tensor> own, examples;
  for (int k = 0; k < 8; ++k) {
    own.push_back(unit(width));
    examples.push_back(at::randn({200 + 50 * k, width}) + shared + own.back());
  }
  const at::Tensor plain = at::randn({400, width});
  const at::Tensor naive = examples[0].mean(0) - plain.mean(0);
  const at::Tensor centred = centred_difference(examples[0], std::span(examples).subspan(1));
  EXPECT_LT(cosine(naive, own[0]), 0.4);
  EXPECT_GT(cosine(centred, own[0]), 0.75);
  EXPECT_LT(std::abs(cosine(centred, shared)), 0.25);
  // Each other behaviour weighs the same, however many examples it has.
  at::Tensor slow = examples[0].to(at::kDouble).mean(0);
  for (int k = 1; k < 8; ++k) slow = slow - examples[k].to(at::kDouble).mean(0) / 7;
  EXPECT_LT((centred - slow).abs().max().item<double>(), 1e-5);
}

/// Ledoit and Wolf 2004 word for word: b^2 = sum_k |x_k x_k' - S|^2 / n^2, d^2 = |S - m I|^2, norms divided by width.
std::pair<at::Tensor, double> slow_metric(const at::Tensor& x) {
  const auto n = x.size(0), width = x.size(1);
  const at::Tensor d = x.to(at::kDouble), s = at::matmul(d.t(), d) / n, eye = at::eye(width, at::kDouble);
  const double m = s.trace().item<double>() / width;
  const double d2 = (s - m * eye).square().sum().item<double>() / width;
  double b2 = 0;
  for (std::int64_t k = 0; k < n; ++k) b2 += (at::outer(d[k], d[k]) - s).square().sum().item<double>() / width;
  b2 = std::min(b2 / static_cast<double>(n * n), d2);
  return {b2 / d2 * m * eye + (1 - b2 / d2) * s, b2 / d2};
}

TEST(Directions, MetricIsLedoitAndWolfs) {
  at::manual_seed(2);
  for (std::int64_t rows : {5, 40, 600}) {
    const at::Tensor x = at::matmul(at::randn({rows, 24}), at::randn({24, 24}));
    const auto metric = estimate_metric(x);
    const auto [expected, shrinkage] = slow_metric(x);
    EXPECT_NEAR(metric.shrinkage, shrinkage, 1e-9) << rows;
    EXPECT_LT((metric.matrix - expected).abs().max().item<double>(), 1e-4 * expected.abs().max().item<double>());
  }
}

// With fewer rows than width the shrunk moments are nearer to the true ones than the moments alone, and invertible.
TEST(Directions, ShrinkageComesNearerToTheTruth) {
  at::manual_seed(3);
  const std::int64_t width = 60;
  const at::Tensor scale = at::linspace(0.2, 3, width), truth = at::diag(scale.square());
  const at::Tensor x = at::randn({30, width}) * scale;
  const auto metric = estimate_metric(x);
  const at::Tensor moments = at::matmul(x.t(), x) / 30;
  EXPECT_LT((metric.matrix - truth).norm().item<double>(), 0.8 * (moments - truth).norm().item<double>());
  EXPECT_GT(least_collateral(at::ones({width}), metric).norm().item<double>(), 0);
}

TEST(Directions, LeastCollateralIsTheOptimum) {
  at::manual_seed(4);
  const std::int64_t width = 16;
  const auto metric = estimate_metric(at::matmul(at::randn({500, width}), at::randn({width, width})));
  const at::Tensor v = at::randn({width}), v_unit = v / v.norm(), best = least_collateral(v, metric);
  EXPECT_NEAR(best.dot(v_unit).item<double>(), 1, 1e-4);
  const auto cost = [&](const at::Tensor& d) { return d.dot(at::mv(metric.matrix, d)).item<double>(); };
  EXPECT_LT(cost(best), cost(v_unit));
  for (int i = 0; i < 200; ++i) {  // no feasible change near it or far from it is cheaper
    at::Tensor other = at::randn({width}) * (i % 2 ? 1 : 0.01);
    other = other - other.dot(v_unit) * v_unit;
    EXPECT_GE(cost(best + other), cost(best) * (1 - 1e-4));
  }
  // The identity asks for no turn.
  EXPECT_GT(cosine(least_collateral(v, {.matrix = at::eye(width)}), v), 1 - 1e-6);
}

struct Planted {
  at::Tensor h, change, w, z;
  double b = 0;
  at::Tensor gate(const at::Tensor& x) const { return at::relu(at::mv(x, w) + b); }
};

Planted planted(std::int64_t tokens, std::int64_t width, double noise) {
  Planted p;
  p.w = 0.8 * unit(width);
  p.z = 6 * unit(width);
  const at::Tensor mean = 3 * unit(width);
  p.b = -mean.dot(p.w).item<double>() - 0.3;  // open on about a third of the tokens
  p.h = at::randn({tokens, width}) + mean;
  p.change = at::outer(p.gate(p.h), p.z) + noise * at::randn({tokens, width});
  return p;
}

TEST(Directions, PromptReplacementFindsAPlantedGate) {
  at::manual_seed(5);
  for (const auto& [tokens, width] : {std::pair<std::int64_t, std::int64_t>{1500, 32}, {800, 96}}) {
    const Planted p = planted(tokens, width, 0.05);
    const auto fit = fit_prompt_replacement(p.h, p.h + p.change, {.l2 = 1e-6});
    EXPECT_GT(cosine(fit.z, p.z), 0.999);
    EXPECT_GT(cosine(fit.w, p.w), 0.98) << width;
    EXPECT_NEAR(fit.active, p.gate(p.h).gt(0).to(at::kDouble).mean().item<double>(), 0.05);
    // On tokens it has not seen: the change itself.
    const at::Tensor fresh = at::randn({400, width}) + p.h.mean(0);
    const at::Tensor expected = at::outer(p.gate(fresh), p.z),
                     found = at::outer(at::relu(at::mv(fresh, fit.w) + fit.b), fit.z);
    EXPECT_LT((found - expected).norm().item<double>(), 0.12 * expected.norm().item<double>()) << width;
    EXPECT_GT(fit.explained, 0.9);
  }
}

TEST(Directions, PromptReplacementOfAConstantChangeIsThatConstant) {
  at::manual_seed(6);
  const at::Tensor h = at::randn({300, 16}), constant = 2 * unit(16);
  const auto fit = fit_prompt_replacement(h, h + constant);
  EXPECT_GT(fit.explained, 0.999);
  const at::Tensor found = at::outer(at::relu(at::mv(h, fit.w) + fit.b), fit.z);
  EXPECT_LT((found - constant).abs().max().item<double>(), 0.02);
}

/// The loss is a mean over tokens: each token twice is the same problem, in a shape that is solved in another way.
TEST(Directions, PromptReplacementOfFewTokensIsThatOfEachTwice) {
  at::manual_seed(7);
  const Planted p = planted(50, 64, 0.05);
  const at::Tensor asked = p.h + p.change;
  const PromptReplacementOptions some{.l2 = 1e-3};
  const auto once = fit_prompt_replacement(p.h, asked, some),
             twice = fit_prompt_replacement(at::cat({p.h, p.h}), at::cat({asked, asked}), some);
  EXPECT_NEAR(once.explained, twice.explained, 1e-6);
  EXPECT_LT((once.w - twice.w).norm().item<double>(), 1e-3 * once.w.norm().item<double>());
  EXPECT_LT((once.z - twice.z).norm().item<double>(), 1e-3 * once.z.norm().item<double>());
  EXPECT_NEAR(once.b, twice.b, 1e-3 * std::abs(once.b));
}

TEST(Directions, BadInputIsNamed) {
  const at::Tensor x = at::randn({4, 3}), nan = at::full({4, 3}, std::nan(""));
  const std::vector<at::Tensor> narrow = {at::randn({4, 2})}, broken = {nan};
  EXPECT_STEER_ERROR(centred_difference(x, {}), ErrorCode::argument, "at least one other behaviour");
  EXPECT_STEER_ERROR(centred_difference(x, narrow), ErrorCode::shape, "3 and 2");
  EXPECT_STEER_ERROR(centred_difference(x, broken), ErrorCode::argument, "NaN");
  EXPECT_STEER_ERROR(estimate_metric(at::zeros({4, 3})), ErrorCode::argument, "not all 0");
  EXPECT_STEER_ERROR(estimate_metric(at::zeros({1, 3})), ErrorCode::shape, "2 rows");
  EXPECT_STEER_ERROR(least_collateral(at::ones({4}), estimate_metric(x)), ErrorCode::shape, "width");
  EXPECT_STEER_ERROR(least_collateral(at::zeros({3}), estimate_metric(x)), ErrorCode::argument, "length 0");
  EXPECT_STEER_ERROR(least_collateral(at::ones({3}), {.matrix = -at::eye(3)}), ErrorCode::argument,
                     "positive definite");
  EXPECT_STEER_ERROR(fit_prompt_replacement(x, x), ErrorCode::argument, "both are equal");
  EXPECT_STEER_ERROR(fit_prompt_replacement(x, at::randn({5, 3})), ErrorCode::shape, "same tokens twice");
}

}  // namespace
}  // namespace steer
