#include <steer/stats/bradley_terry.hpp>

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <limits>
#include <numeric>

#include <steer/core/error.hpp>

#include "stats/clusters.hpp"

namespace steer {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
using Matrix = std::vector<std::vector<double>>;

/// The inverse of a positive definite matrix by Gauss and Jordan; empty when it has none.
Matrix inverse(Matrix a) {
  const std::size_t n = a.size();
  Matrix b(n, std::vector<double>(n, 0.0));
  for (std::size_t i = 0; i < n; ++i) b[i][i] = 1;
  for (std::size_t c = 0; c < n; ++c) {
    std::size_t pivot = c;
    for (std::size_t r = c; r < n; ++r)
      if (std::abs(a[r][c]) > std::abs(a[pivot][c])) pivot = r;
    if (std::abs(a[pivot][c]) < 1e-300) return {};
    std::swap(a[pivot], a[c]);
    std::swap(b[pivot], b[c]);
    const double scale = 1 / a[c][c];
    for (std::size_t k = 0; k < n; ++k) a[c][k] *= scale, b[c][k] *= scale;
    for (std::size_t r = 0; r < n; ++r) {
      const double factor = a[r][c];
      if (r == c || factor == 0) continue;
      for (std::size_t k = 0; k < n; ++k) a[r][k] -= factor * a[c][k], b[r][k] -= factor * b[c][k];
    }
  }
  return b;
}

/// The items that matches join to the reference, directly or through others.
std::vector<bool> joined_to(std::int64_t reference, std::int64_t items, std::span<const PairOutcome> matches) {
  std::vector<std::int64_t> parent(static_cast<std::size_t>(items));
  std::iota(parent.begin(), parent.end(), 0);
  const auto root = [&](std::int64_t i) {
    while (parent[static_cast<std::size_t>(i)] != i) i = parent[static_cast<std::size_t>(i)];
    return i;
  };
  for (const auto& match : matches) parent[static_cast<std::size_t>(root(match.first))] = root(match.second);
  std::vector<bool> joined;
  for (std::int64_t i = 0; i < items; ++i) joined.push_back(root(i) == root(reference));
  return joined;
}

/// The likelihood's pieces at given strengths; `place` is an item's coordinate, -1 for the reference and the unjoined.
struct Derivatives {
  std::vector<double> gradient;
  Matrix information;
};

double expected(const std::vector<double>& log, const PairOutcome& match) {
  return 1 / (1 + std::exp(log[static_cast<std::size_t>(match.second)] - log[static_cast<std::size_t>(match.first)]));
}

void add(Derivatives& d, const std::vector<std::int64_t>& place, const PairOutcome& match, double p, double weight) {
  const auto a = place[static_cast<std::size_t>(match.first)], b = place[static_cast<std::size_t>(match.second)];
  const double slope = weight * (match.share - p), curve = weight * p * (1 - p);
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  if (a >= 0) d.gradient[at(a)] += slope, d.information[at(a)][at(a)] += curve;
  if (b >= 0) d.gradient[at(b)] -= slope, d.information[at(b)][at(b)] += curve;
  if (a >= 0 && b >= 0) d.information[at(a)][at(b)] -= curve, d.information[at(b)][at(a)] -= curve;
}

}  // namespace

std::vector<BradleyTerryStrength> bradley_terry(std::int64_t items, std::span<const PairOutcome> matches,
                                                std::span<const std::int64_t> clusters, std::int64_t reference,
                                                double level) {
  constexpr auto where = "bradley_terry";
  require(items >= 2 && reference >= 0 && reference < items, ErrorCode::argument, where,
          "expected at least 2 items and a reference among them but got {} and {}", items, reference);
  require(level > 0 && level < 1, ErrorCode::argument, where, "expected a level in (0, 1) but got {}", level);
  for (const auto& match : matches)
    require(match.first >= 0 && match.first < items && match.second >= 0 && match.second < items &&
                match.first != match.second && match.share >= 0 && match.share <= 1,
            ErrorCode::argument, where, "expected two of {} items and a share in [0, 1] but got {} against {}: {}",
            items, match.first, match.second, match.share);
  const stats::detail::Clusters groups(clusters, matches.size(), where);
  const std::vector<bool> joined = joined_to(reference, items, matches);
  const auto count = static_cast<std::size_t>(items);

  std::vector<double> wins(count, 0.0), losses(count, 0.0), log(count, 0.0);
  for (const auto& match : matches) {
    const auto a = static_cast<std::size_t>(match.first), b = static_cast<std::size_t>(match.second);
    wins[a] += match.share, losses[a] += 1 - match.share;
    wins[b] += 1 - match.share, losses[b] += match.share;
  }
  std::vector<std::int64_t> place(count, -1);
  std::int64_t free = 0;
  std::vector<PairOutcome> extra;
  for (std::int64_t i = 0; i < items; ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (i == reference || !joined[at]) continue;
    place[at] = free++;
    if (wins[at] == 0 || losses[at] == 0) extra.push_back({i, reference, 0.5});
  }
  if ((wins[static_cast<std::size_t>(reference)] == 0 || losses[static_cast<std::size_t>(reference)] == 0) &&
      extra.empty())
    for (std::int64_t i = 0; i < items; ++i)
      if (place[static_cast<std::size_t>(i)] >= 0) extra.push_back({i, reference, 0.5});

  const auto size = static_cast<std::size_t>(free);
  Matrix covariance;
  for (int step = 0; step < 200 && free > 0; ++step) {  // Newton, with short steps: the likelihood is concave
    Derivatives d{std::vector<double>(size, 0.0), Matrix(size, std::vector<double>(size, 0.0))};
    for (const auto& match : matches)
      if (joined[static_cast<std::size_t>(match.first)]) add(d, place, match, expected(log, match), 1);
    for (const auto& match : extra) add(d, place, match, expected(log, match), 1);
    covariance = inverse(d.information);
    if (covariance.empty()) break;
    double largest = 0;
    std::vector<double> change(size, 0.0);
    for (std::size_t i = 0; i < size; ++i) {
      for (std::size_t k = 0; k < size; ++k) change[i] += covariance[i][k] * d.gradient[k];
      largest = std::max(largest, std::abs(change[i]));
    }
    const double shorten = largest > 1 ? 1 / largest : 1;
    for (std::size_t i = 0; i < count; ++i)
      if (place[i] >= 0) log[i] += shorten * change[static_cast<std::size_t>(place[i])];
    if (largest < 1e-12) break;
  }

  // Sandwich: each cluster's sum of scores, squared.
  Matrix sums(groups.count, std::vector<double>(size, 0.0));
  for (std::size_t m = 0; m < matches.size(); ++m) {
    if (!joined[static_cast<std::size_t>(matches[m].first)]) continue;
    const double slope = matches[m].share - expected(log, matches[m]);
    const auto a = place[static_cast<std::size_t>(matches[m].first)],
               b = place[static_cast<std::size_t>(matches[m].second)];
    if (a >= 0) sums[groups.index[m]][static_cast<std::size_t>(a)] += slope;
    if (b >= 0) sums[groups.index[m]][static_cast<std::size_t>(b)] -= slope;
  }
  const double g = static_cast<double>(groups.count);
  std::vector<BradleyTerryStrength> strengths(count);
  for (std::size_t i = 0; i < count; ++i) {
    BradleyTerryStrength& strength = strengths[i];
    for (const auto& match : matches)
      strength.matches += match.first == static_cast<std::int64_t>(i) || match.second == static_cast<std::int64_t>(i);
    strength.interval = {0, 0};
    if (static_cast<std::int64_t>(i) == reference) continue;
    strength = {kNaN, kNaN, {kNaN, kNaN}, strength.matches};
    if (!joined[i] || covariance.empty()) continue;
    strength.log = log[i];
    if (g < 2) continue;
    double variance = 0;
    for (const auto& sum : sums) {
      double influence = 0;
      for (std::size_t k = 0; k < size; ++k) influence += covariance[static_cast<std::size_t>(place[i])][k] * sum[k];
      variance += influence * influence;
    }
    strength.se = std::sqrt(variance * g / (g - 1));
    const double half = boost::math::quantile(boost::math::students_t(g - 1), 0.5 + level / 2) * strength.se;
    strength.interval = {strength.log - half, strength.log + half};
  }
  return strengths;
}

}  // namespace steer
