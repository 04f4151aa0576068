#include <steer/stats/cross_fit.hpp>

#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <numeric>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>

#include "stats/level.hpp"

namespace steer {
namespace {

/// The candidate with the largest mean above 0 over the questions of a half; -1 for none.
std::int64_t best_on(std::span<const std::vector<double>> effects, std::span<const std::size_t> questions) {
  std::int64_t best = -1;
  double most = 0;
  for (std::size_t c = 0; c < effects.size(); ++c) {
    double sum = 0;
    for (auto q : questions) sum += effects[c][q];
    if (sum > most) {
      most = sum;
      best = static_cast<std::int64_t>(c);
    }
  }
  return best;
}

}  // namespace

CrossFit cross_fit(std::span<const std::vector<double>> effects, std::uint64_t seed, double level) {
  stats::detail::require_level(level, "cross_fit");
  CrossFit result{.interval = {std::nan(""), std::nan("")}};
  if (effects.empty()) return result;
  const std::size_t n = effects.front().size();
  for (const auto& candidate : effects) {
    require(candidate.size() == n, ErrorCode::shape, "cross_fit", "expected {} effects a candidate but got {}", n,
            candidate.size());
    for (double x : candidate)
      require(std::isfinite(x), ErrorCode::argument, "cross_fit", "expected finite effects but got {}", x);
  }
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  Rng rng(derive_seed(seed, "cross_fit"));
  rng.shuffle(order);
  const std::span<const std::size_t> all(order);
  const std::array halves{all.first(n / 2), all.subspan(n / 2)};
  result.chosen = best_on(effects, all);
  double variance = 0;
  for (std::size_t h = 0; h < 2; ++h) {
    result.by_half[h] = best_on(effects, halves[h]);
    std::vector<double> values;  // of the other half
    for (auto q : halves[1 - h])
      values.push_back(result.by_half[h] < 0 ? 0 : effects[static_cast<std::size_t>(result.by_half[h])][q]);
    if (values.empty()) continue;
    const Summary summary = summarize(values);
    const double size = static_cast<double>(summary.n), share = size / static_cast<double>(n);
    result.estimate += share * summary.mean;
    variance += share * share * summary.sd * summary.sd / size;
  }
  if (n >= 4) {
    const boost::math::students_t student(static_cast<double>(n - 2));
    const double half = boost::math::quantile(student, 0.5 + level / 2) * std::sqrt(variance);
    result.interval = {result.estimate - half, result.estimate + half};
  }
  return result;
}

}  // namespace steer
