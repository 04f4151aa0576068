#include <steer/stats/prediction_powered.hpp>

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>

#include <steer/core/error.hpp>

#include "stats/clusters.hpp"

namespace steer {
namespace {

/// Sums over clusters of a value's deviation from its mean, for rows that count.
struct ClusteredSums {
  std::vector<double> sums;
  double mean = 0, rows = 0;
};

template <class Value, class Counts>
ClusteredSums sum_up(const stats::detail::Clusters& groups, std::size_t rows, const Value& value,
                     const Counts& counts) {
  ClusteredSums result{std::vector<double>(groups.count, 0.0)};
  for (std::size_t i = 0; i < rows; ++i)
    if (counts(i)) result.mean += value(i), ++result.rows;
  result.mean /= std::max(result.rows, 1.0);
  for (std::size_t i = 0; i < rows; ++i)
    if (counts(i)) result.sums[groups.index[i]] += (value(i) - result.mean) / result.rows;
  return result;
}

double product(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

PredictionPowered prediction_powered(std::span<const double> judge, std::span<const double> label,
                                     std::span<const std::int64_t> clusters, double level) {
  constexpr auto where = "prediction_powered";
  require(judge.size() == label.size(), ErrorCode::shape, where, "expected a label (or NaN) a row but got {} of {}",
          label.size(), judge.size());
  require(level > 0 && level < 1, ErrorCode::argument, where, "expected a level in (0, 1) but got {}", level);
  require(std::all_of(judge.begin(), judge.end(), [](double v) { return std::isfinite(v); }), ErrorCode::argument,
          where, "expected finite scores of the judge for all {} rows; leave rows out that it did not score",
          judge.size());
  const stats::detail::Clusters groups(clusters, judge.size(), where);
  const auto labelled = [&](std::size_t i) { return std::isfinite(label[i]); };
  const auto everywhere = [](std::size_t) { return true; };
  const auto people = sum_up(
      groups, label.size(), [&](std::size_t i) { return label[i]; }, labelled);
  const auto seen = sum_up(
      groups, judge.size(), [&](std::size_t i) { return judge[i]; }, labelled);
  const auto all = sum_up(
      groups, judge.size(), [&](std::size_t i) { return judge[i]; }, everywhere);
  std::vector<bool> has(groups.count, false);
  for (std::size_t i = 0; i < label.size(); ++i)
    if (labelled(i)) has[groups.index[i]] = true;
  const auto g = static_cast<double>(std::count(has.begin(), has.end(), true));
  require(people.rows >= 2 && g >= 2, ErrorCode::argument, where,
          "expected at least 2 labelled rows of 2 clusters but got {} of {}", people.rows, g);

  // mean = people + lambda (all - seen), lambda where its clustered variance is least.
  std::vector<double> gap(groups.count);
  for (std::size_t c = 0; c < gap.size(); ++c) gap[c] = all.sums[c] - seen.sums[c];
  const double spread = product(gap, gap);
  PredictionPowered result{.labelled = static_cast<std::int64_t>(people.rows),
                           .rows = static_cast<std::int64_t>(judge.size()),
                           .lambda = spread > 0 ? std::clamp(-product(people.sums, gap) / spread, 0.0, 1.0) : 0.0,
                           .label_only = people.mean};
  std::vector<double> influence(groups.count);
  for (std::size_t c = 0; c < gap.size(); ++c) influence[c] = people.sums[c] + result.lambda * gap[c];
  const double t = boost::math::quantile(boost::math::students_t(g - 1), 0.5 + level / 2), correction = g / (g - 1);
  result.mean = people.mean + result.lambda * (all.mean - seen.mean);
  result.se = std::sqrt(product(influence, influence) * correction);
  result.interval = {result.mean - t * result.se, result.mean + t * result.se};
  const double alone = std::sqrt(product(people.sums, people.sums) * correction);
  result.label_interval = {people.mean - t * alone, people.mean + t * alone};
  return result;
}

}  // namespace steer
