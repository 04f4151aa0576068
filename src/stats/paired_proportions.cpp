#include <steer/stats/paired_proportions.hpp>

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <boost/math/distributions/normal.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <vector>

#include <steer/core/error.hpp>
#include <steer/stats/betting.hpp>

#include "stats/clusters.hpp"
#include "stats/level.hpp"

namespace steer {
namespace {

/// The likeliest probabilities of the discordant cells that differ by `difference`.
struct Restricted {
  double only_a = 0, only_b = 0;
};

Restricted restricted(double n, double only_a, double only_b, double difference) {
  const double a = 2 * n, b = -only_b - only_a + (2 * n - only_b + only_a) * difference;
  const double c = -only_a * difference * (1 - difference);
  const double lost = (std::sqrt(std::max(0.0, b * b - 4 * a * c)) - b) / (2 * a);
  const double least = std::max(0.0, -difference), most = (1 - difference) / 2;
  Restricted cells{.only_a = std::clamp(lost, least, std::max(least, most))};
  cells.only_b = std::max(0.0, cells.only_a + difference);
  return cells;
}

double statistic(double n, double only_a, double only_b, double difference) {
  const auto cells = restricted(n, only_a, only_b, difference);
  const double variance = n * (cells.only_a + cells.only_b - difference * difference);
  const double excess = only_b - only_a - n * difference;
  if (std::abs(excess) <= 1e-12 * n) return 0;
  return excess / std::sqrt(std::max(variance, 1e-300));
}

void check(const PairedCounts& counts, double difference, std::string_view where) {
  require(counts.n >= 1 && counts.only_a >= 0 && counts.only_b >= 0 && counts.only_a <= counts.n - counts.only_b,
          ErrorCode::argument, where, "expected counts of a part of the questions but got {} and {} of {}",
          counts.only_a, counts.only_b, counts.n);
  require(difference > -1 && difference < 1, ErrorCode::argument, where,
          "expected a difference between -1 and 1 but got {}", difference);
}

PairedCounts swapped(const PairedCounts& counts) { return {counts.n, counts.only_b, counts.only_a}; }

/// P(as high or higher) over all tables. Of a column of tables with one count of losses those from some count of gains
/// on belong to it, and that count rises with the losses: a staircase, walked once.
double p_above(const PairedCounts& counts, double difference) {
  const double n = static_cast<double>(counts.n);
  const double only_a = static_cast<double>(counts.only_a), only_b = static_cast<double>(counts.only_b);
  const auto cells = restricted(n, only_a, only_b, difference);
  const double seen = statistic(n, only_a, only_b, difference);
  const double reached = seen - 1e-9 * std::max(1.0, std::abs(seen));
  const double gain_share = cells.only_a < 1 ? std::min(1.0, cells.only_b / (1 - cells.only_a)) : 0.0;
  const boost::math::binomial losses(n, std::min(1.0, cells.only_a));
  double p = 0, first = 0;
  for (std::int64_t lost = 0; lost <= counts.n; ++lost) {
    const double at = static_cast<double>(lost), rest = n - at;
    while (first <= rest && statistic(n, at, first, difference) < reached) ++first;
    if (first > rest) break;
    const double mass = boost::math::pdf(losses, at);
    if (mass < 1e-14) {
      if (at > n * cells.only_a) break;
      continue;
    }
    if (first == 0)
      p += mass;
    else
      p += mass * boost::math::cdf(boost::math::complement(boost::math::binomial(rest, gain_share), first - 1));
  }
  return std::min(1.0, p);
}

/// The smallest difference that is not refuted from above at `alpha`.
double lower_end(const PairedCounts& counts, double alpha) {
  double low = -1 + 1e-12;
  double high = static_cast<double>(counts.only_b - counts.only_a) / static_cast<double>(counts.n);
  if (high <= low) return -1;
  high = std::min(high, 1 - 1e-12);
  for (int i = 0; i < 60 && high - low > 1e-8; ++i) {
    const double middle = (low + high) / 2;
    (p_above(counts, middle) < alpha ? low : high) = middle;
  }
  return low;
}

/// Rows of -1, 0 and 1, and what they make of their questions.
struct ByQuestion {
  ByQuestion(std::span<const double> differences, std::span<const std::int64_t> clusters, std::string_view where) {
    require(!differences.empty(), ErrorCode::argument, where, "expected differences but got none");
    const stats::detail::Clusters groups(clusters, differences.size(), where);
    constexpr double kUnseen = 2;
    std::vector<double> first(groups.count, kUnseen), rows(groups.count, 0.0);
    losses.assign(groups.count, 0.0);
    counts.n = static_cast<std::int64_t>(groups.count);
    for (std::size_t i = 0; i < differences.size(); ++i) {
      const double d = differences[i];
      require(d == -1 || d == 0 || d == 1, ErrorCode::argument, where, "expected -1, 0 or 1 but got {}", d);
      lost += d < 0;
      gained += d > 0;
      double& seen = first[groups.index[i]];
      if (seen == kUnseen) {
        seen = d;
        counts.only_a += d < 0;
        counts.only_b += d > 0;
      }
      agree = agree && seen == d;
      losses[groups.index[i]] -= d;
      ++rows[groups.index[i]];
    }
    for (std::size_t g = 0; g < losses.size(); ++g) losses[g] /= rows[g];
  }

  double lost = 0, gained = 0;  // rows
  bool agree = true;            // the rows of every question do
  PairedCounts counts;          // of questions, where they agree
  std::vector<double> losses;   // mean loss of each question
};

/// The smallest difference whose statistic is at most z, of a number of rows that need not be whole.
double score_end(double n, double only_a, double only_b, double z) {
  double low = -1 + 1e-12, high = std::min((only_b - only_a) / n, 1 - 1e-12);
  for (int i = 0; i < 60 && high - low > 1e-12; ++i) {
    const double middle = (low + high) / 2;
    (statistic(n, only_a, only_b, middle) > z ? low : high) = middle;
  }
  return low;
}

}  // namespace

double tango_statistic(const PairedCounts& counts, double difference) {
  check(counts, difference, "tango_statistic");
  return statistic(static_cast<double>(counts.n), static_cast<double>(counts.only_a),
                   static_cast<double>(counts.only_b), difference);
}

double paired_p_above(const PairedCounts& counts, double difference) {
  check(counts, difference, "paired_p_above");
  return p_above(counts, difference);
}

double paired_p_below(const PairedCounts& counts, double difference) {
  check(counts, difference, "paired_p_below");
  return p_above(swapped(counts), -difference);
}

PairedDifference paired_difference(const PairedCounts& counts, double level) {
  check(counts, 0, "paired_difference");
  stats::detail::require_level(level, "paired_difference");
  PairedDifference result;
  result.difference = static_cast<double>(counts.only_b - counts.only_a) / static_cast<double>(counts.n);
  result.interval = {lower_end(counts, (1 - level) / 2), -lower_end(swapped(counts), (1 - level) / 2)};
  result.p = std::min(1.0, 2 * std::min(p_above(counts, 0), p_above(swapped(counts), 0)));
  return result;
}

PairedDifference clustered_paired_difference(std::span<const double> differences,
                                             std::span<const std::int64_t> clusters, double level) {
  constexpr const char* kWhere = "clustered_paired_difference";
  stats::detail::require_level(level, kWhere);
  const ByQuestion found(differences, clusters, kWhere);
  if (found.agree) return paired_difference(found.counts, level);
  if (found.counts.n == 1) return {(found.gained - found.lost) / static_cast<double>(differences.size()), {-1, 1}, 1};

  const auto mean = clustered_mean(differences, clusters);
  const double rows = static_cast<double>(differences.size()), upper = 0.5 + level / 2;
  const double z = boost::math::quantile(boost::math::normal(), upper);
  const double groups = static_cast<double>(found.counts.n);
  const double student = boost::math::quantile(boost::math::students_t(groups - 1), upper);
  double lost = found.lost, gained = found.gained;
  const double spread = (lost + gained) / rows - mean.mean * mean.mean, error = mean.se_cr1 * student / z;
  const double effective = error > 0 ? std::min(rows, spread / (error * error)) : groups;
  lost *= effective / rows;
  gained *= effective / rows;
  PairedDifference result{.difference = mean.mean, .interval = {}};
  result.interval = {score_end(effective, lost, gained, z), -score_end(effective, gained, lost, z)};
  result.p = std::erfc(std::abs(statistic(effective, lost, gained, 0)) / std::sqrt(2.0));
  return result;
}

LossTest loss_test(std::span<const double> differences, std::span<const std::int64_t> clusters, double margin,
                   double level) {
  require(margin > 0 && margin < 1 && level > 0 && level < 1, ErrorCode::argument, "loss_test",
          "expected a margin and a level between 0 and 1 but got {} and {}", margin, level);
  const ByQuestion found(differences, clusters, "loss_test");
  if (found.agree) return {paired_p_above(found.counts, -margin), -lower_end(found.counts, 1 - level)};
  return {betting_p(found.losses, margin), betting_upper_bound(found.losses, level)};
}

}  // namespace steer
