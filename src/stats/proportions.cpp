#include <steer/stats/proportions.hpp>

#include <algorithm>
#include <boost/math/distributions/beta.hpp>
#include <boost/math/distributions/normal.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <vector>

#include <steer/core/error.hpp>

#include "stats/clusters.hpp"
#include "stats/level.hpp"

namespace steer {
namespace {

using stats::detail::require_level;

/// Wilson 1927, for a number of rows that need not be whole.
Interval wilson(double p, double n, double level) {
  const double z = boost::math::quantile(boost::math::normal(), 0.5 + level / 2), shrink = 1 + z * z / n;
  const double centre = (p + z * z / (2 * n)) / shrink;
  const double half = z / shrink * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return {std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

/// Whether the rows of every question are alike: then there are as many independent ones as questions.
bool rows_agree(std::span<const std::uint8_t> hits, const stats::detail::Clusters& groups) {
  std::vector<int> seen(groups.count, -1);
  for (std::size_t i = 0; i < hits.size(); ++i) {
    int& first = seen[groups.index[i]];
    if (first < 0) first = hits[i] != 0;
    if (first != (hits[i] != 0)) return false;
  }
  return true;
}

}  // namespace

double proportion_upper_bound(std::int64_t hits, std::int64_t n, double level) {
  require_level(level, "proportion_upper_bound");
  require(hits >= 0 && hits <= n, ErrorCode::argument, "proportion_upper_bound",
          "expected 0 <= hits <= n but got {} of {}", hits, n);
  if (hits == n) return 1;
  return boost::math::quantile(
      boost::math::beta_distribution<>(static_cast<double>(hits + 1), static_cast<double>(n - hits)), level);
}

ClusteredProportion clustered_proportion(std::span<const std::uint8_t> hits, std::span<const std::int64_t> clusters,
                                         double level) {
  require_level(level, "clustered_proportion");
  std::vector<double> values;
  ClusteredProportion result{.n = static_cast<std::int64_t>(hits.size()), .interval = {}};
  for (auto hit : hits) {
    values.push_back(hit != 0);
    result.hits += hit != 0;
  }
  const auto mean = clustered_mean(values, clusters);
  result.clusters = mean.clusters;
  result.value = mean.mean;
  if (hits.empty()) {
    result.interval = {std::nan(""), std::nan("")};
    return result;
  }
  const double n = static_cast<double>(result.n), groups = static_cast<double>(result.clusters);
  result.effective_n = groups;
  if (groups > 1 && !rows_agree(hits, stats::detail::Clusters(clusters, hits.size(), "clustered_proportion"))) {
    const double upper = 0.5 + level / 2;
    const double student = boost::math::quantile(boost::math::students_t(groups - 1), upper);
    const double normal = boost::math::quantile(boost::math::normal(), upper);
    const double error = mean.se_cr1 * student / normal;
    result.effective_n = error > 0 ? std::min(n, result.value * (1 - result.value) / (error * error)) : n;
  }
  result.design_effect = n / result.effective_n;
  result.interval = wilson(result.value, result.effective_n, level);
  return result;
}

}  // namespace steer
