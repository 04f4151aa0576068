#include <steer/features/contrast.hpp>

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>

namespace steer {
namespace {

/// Mann-Whitney by merging two sorted samples: ties count half.
double auroc_of(std::vector<float> positive, std::vector<float> negative) {
  std::ranges::sort(positive);
  std::ranges::sort(negative);
  double wins = 0;
  std::size_t below = 0, not_above = 0;
  for (float value : positive) {
    while (below < negative.size() && negative[below] < value) ++below;
    not_above = std::max(not_above, below);
    while (not_above < negative.size() && negative[not_above] <= value) ++not_above;
    wins += static_cast<double>(below) + 0.5 * static_cast<double>(not_above - below);
  }
  return wins / (static_cast<double>(positive.size()) * static_cast<double>(negative.size()));
}

std::vector<float> column(const at::Tensor& rows, std::int64_t feature) {
  const at::Tensor values = rows.select(1, feature).contiguous();
  return {values.data_ptr<float>(), values.data_ptr<float>() + values.numel()};
}

std::vector<float> resample(const std::vector<float>& values, Rng& rng) {
  std::vector<float> drawn(values.size());
  for (float& value : drawn) value = values[rng.below(values.size())];
  return drawn;
}

void bootstrap(FeatureContrast& result, const std::vector<float>& positive, const std::vector<float>& negative,
               const ContrastOptions& options) {
  Rng rng(derive_seed(options.seed, "contrast", static_cast<std::uint64_t>(result.feature)));
  std::vector<double> values(static_cast<std::size_t>(options.bootstrap));
  for (double& value : values) value = auroc_of(resample(positive, rng), resample(negative, rng));
  std::ranges::sort(values);
  const auto quantile = [&](double q) {
    return values[static_cast<std::size_t>(std::lround(q * static_cast<double>(values.size() - 1)))];
  };
  result.auroc_low = quantile((1 - options.confidence) / 2);
  result.auroc_high = quantile((1 + options.confidence) / 2);
}

}  // namespace

std::vector<FeatureContrast> contrast_features(const at::Tensor& positive_rows, const at::Tensor& negative_rows,
                                               const ContrastOptions& options) {
  constexpr auto where = "contrast";
  require(positive_rows.dim() == 2 && negative_rows.dim() == 2 && positive_rows.size(1) == negative_rows.size(1),
          ErrorCode::shape, where,
          "expected two tensors [texts, features] of equal width but got {} and {} dimensions, {} and {} features",
          positive_rows.dim(), negative_rows.dim(), positive_rows.size(-1), negative_rows.size(-1));
  require(positive_rows.size(0) >= 2 && negative_rows.size(0) >= 2, ErrorCode::argument, where,
          "expected at least two texts in each set but got {} and {}", positive_rows.size(0), negative_rows.size(0));
  require(options.bootstrap >= 0 && options.limit >= 0 && options.confidence > 0 && options.confidence < 1,
          ErrorCode::argument, where,
          "expected a bootstrap and limit of 0 or more and a confidence in (0, 1) but got {}, {}, {}",
          options.bootstrap, options.limit, options.confidence);
  const at::Tensor positive = positive_rows.to(at::kCPU, at::kFloat), negative = negative_rows.to(at::kCPU, at::kFloat);
  require(!at::equal(positive, negative), ErrorCode::argument, where,
          "expected two sets that differ but both have the same activations; did both come from the same texts?");

  const auto n1 = static_cast<double>(positive.size(0)), n2 = static_cast<double>(negative.size(0));
  const at::Tensor mean1 = positive.mean(0), mean2 = negative.mean(0);
  const at::Tensor pooled = ((positive.var(0) * (n1 - 1) + negative.var(0) * (n2 - 1)) / (n1 + n2 - 2)).sqrt();
  const at::Tensor difference = mean1 - mean2;
  // A feature constant within both sets has no spread to standardise by: it ranks by the difference alone, scaled so
  // that a perfect separator beats any other.
  const at::Tensor standardised =
      at::where(pooled > 1e-8, difference / pooled.clamp_min(1e-8), difference.sign() * 1e3).contiguous();
  const at::Tensor active1 = positive.ne(0).to(at::kFloat).mean(0).contiguous();
  const at::Tensor active2 = negative.ne(0).to(at::kFloat).mean(0).contiguous();

  const float* d = standardised.data_ptr<float>();
  const float *a1 = active1.data_ptr<float>(), *a2 = active2.data_ptr<float>();
  const auto always_on = [&](std::int64_t f) { return a1[f] >= options.always_on && a2[f] >= options.always_on; };
  std::vector<std::int64_t> order;
  for (std::int64_t f = 0; f < positive.size(1); ++f)
    if (a1[f] > 0 || a2[f] > 0) order.push_back(f);
  std::ranges::stable_sort(order, [&](std::int64_t a, std::int64_t b) {
    if (always_on(a) != always_on(b)) return always_on(b);
    return std::abs(d[a]) > std::abs(d[b]);
  });
  if (options.limit > 0 && static_cast<std::int64_t>(order.size()) > options.limit)
    order.resize(static_cast<std::size_t>(options.limit));

  const at::Tensor m1 = mean1.contiguous(), m2 = mean2.contiguous();
  std::vector<FeatureContrast> results;
  for (std::int64_t f : order) {
    const auto p = column(positive, f), n = column(negative, f);
    FeatureContrast result{.feature = f,
                           .mean_positive = m1.data_ptr<float>()[f],
                           .mean_negative = m2.data_ptr<float>()[f],
                           .standardised = d[f],
                           .auroc = auroc_of(p, n),
                           .active_positive = a1[f],
                           .active_negative = a2[f],
                           .always_on = always_on(f)};
    if (options.bootstrap > 0) bootstrap(result, p, n, options);
    results.push_back(result);
  }
  return results;
}

}  // namespace steer
