#include <steer/stats/statistics.hpp>

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <boost/math/distributions/hypergeometric.hpp>
#include <boost/math/distributions/normal.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>

#include "stats/clusters.hpp"
#include "stats/level.hpp"

namespace steer {
namespace {

using stats::detail::require_level;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

void require_same_length(std::size_t a, std::size_t b, std::string_view where) {
  require(a == b, ErrorCode::shape, where, "expected two lists of one length but got {} and {}", a, b);
}

void require_finite(std::span<const double> values, std::string_view where) {
  for (double value : values)
    require(std::isfinite(value), ErrorCode::argument, where,
            "expected finite values but got {}; leave missing rows out before the call", value);
}

/// Makes values equal that differ by rounding only: 0.7 - 0.6 and 0.4 - 0.3 are one tie.
void merge_near_ties(std::vector<double>& values) {
  std::vector<double*> order;
  for (double& value : values) order.push_back(&value);
  std::sort(order.begin(), order.end(), [](const double* a, const double* b) { return *a < *b; });
  const double near = 1e-12 * *order.back();
  for (std::size_t i = 1; i < order.size(); ++i)
    if (*order[i] - *order[i - 1] <= near) *order[i] = *order[i - 1];
}

/// Two-sided normal p of a z score, without loss in the tail.
double normal_p(double z) { return std::isnan(z) ? 1.0 : std::erfc(std::abs(z) / std::sqrt(2.0)); }

double normal_quantile(double probability) { return boost::math::quantile(boost::math::normal(), probability); }

/// Upper-tail probability of t.
template <class T>
T t_tail(T t, T df) {
  return boost::math::cdf(boost::math::complement(boost::math::students_t_distribution<T>(df), t));
}

double t_quantile(double probability, double df) {
  return boost::math::quantile(boost::math::students_t(df), probability);
}

}  // namespace

namespace stats::detail {

Clusters::Clusters(std::span<const std::int64_t> labels, std::size_t rows, std::string_view where) {
  require(labels.empty() || labels.size() == rows, ErrorCode::shape, where,
          "expected one cluster a row but got {} clusters for {} rows", labels.size(), rows);
  index.resize(rows);
  if (labels.empty()) {
    std::iota(index.begin(), index.end(), std::size_t{0});
    count = rows;
    return;
  }
  std::map<std::int64_t, std::size_t> seen;
  for (std::size_t i = 0; i < rows; ++i) index[i] = seen.try_emplace(labels[i], seen.size()).first->second;
  count = seen.size();
}

}  // namespace stats::detail

Summary summarize(std::span<const double> values) {
  Summary summary{.n = static_cast<std::int64_t>(values.size()), .mean = kNaN, .sd = kNaN};
  if (values.empty()) return summary;
  summary.mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  if (values.size() < 2) return summary;
  double squares = 0;
  for (double value : values) squares += (value - summary.mean) * (value - summary.mean);
  summary.sd = std::sqrt(squares / static_cast<double>(values.size() - 1));
  return summary;
}

Summary summarize_hits(std::int64_t hits, std::int64_t n) {
  require(hits >= 0 && hits <= n, ErrorCode::argument, "summarize_hits", "expected 0 <= hits <= n but got {} of {}",
          hits, n);
  if (n == 0) return {.n = 0, .mean = kNaN, .sd = kNaN};
  const double count = static_cast<double>(n), mean = static_cast<double>(hits) / count;
  return {.n = n, .mean = mean, .sd = n > 1 ? std::sqrt(mean * (1 - mean) * count / (count - 1)) : kNaN};
}

Interval mean_interval(const Summary& summary, double level) {
  require_level(level, "mean_interval");
  if (summary.n < 2) return {kNaN, kNaN};
  const double half = t_quantile(0.5 + level / 2, static_cast<double>(summary.n - 1)) * summary.sd /
                      std::sqrt(static_cast<double>(summary.n));
  return {summary.mean - half, summary.mean + half};
}

Interval proportion_interval(std::int64_t hits, std::int64_t n, double level) {
  require_level(level, "proportion_interval");
  require(hits >= 0 && hits <= n, ErrorCode::argument, "proportion_interval",
          "expected 0 <= hits <= n but got {} of {}", hits, n);
  if (n == 0) return {kNaN, kNaN};
  const double z = normal_quantile(0.5 + level / 2), count = static_cast<double>(n);
  const double p = static_cast<double>(hits) / count, shrink = 1 + z * z / count;
  const double centre = (p + z * z / (2 * count)) / shrink;
  const double half = z / shrink * std::sqrt(p * (1 - p) / count + z * z / (4 * count * count));
  return {std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

TTest t_test(const Summary& a, const Summary& b, Variances variances) {
  require(a.n >= 2 && b.n >= 2, ErrorCode::argument, "t_test", "expected at least 2 values a side but got {} and {}",
          a.n, b.n);
  const double given[] = {a.mean, a.sd, b.mean, b.sd};
  require_finite(given, "t_test");
  const double n_a = static_cast<double>(a.n), n_b = static_cast<double>(b.n), diff = a.mean - b.mean;
  const double var_a = a.sd * a.sd, var_b = b.sd * b.sd;
  const double pooled = ((n_a - 1) * var_a + (n_b - 1) * var_b) / (n_a + n_b - 2);
  TTest test;
  double se = 0;
  if (variances == Variances::pooled) {
    test.df = n_a + n_b - 2;
    se = std::sqrt(pooled * (1 / n_a + 1 / n_b));
  } else {
    const double e_a = var_a / n_a, e_b = var_b / n_b;
    se = std::sqrt(e_a + e_b);
    test.df =
        e_a + e_b > 0 ? (e_a + e_b) * (e_a + e_b) / (e_a * e_a / (n_a - 1) + e_b * e_b / (n_b - 1)) : n_a + n_b - 2;
  }
  if (diff == 0) return test;
  test.t = diff / se;  // infinite when both sides are constant and differ: p = 0 then
  test.cohens_d = diff / std::sqrt(pooled);
  if (std::isinf(test.t)) {
    test.p = 0;
    test.log10_p = -std::numeric_limits<double>::infinity();
    return test;
  }
  const long double p = 2 * t_tail<long double>(std::abs(test.t), test.df);
  test.p = static_cast<double>(p);
  test.log10_p = static_cast<double>(std::log10(p));
  return test;
}

double fisher_exact(std::int64_t hits_a, std::int64_t n_a, std::int64_t hits_b, std::int64_t n_b) {
  require(hits_a >= 0 && hits_a <= n_a && hits_b >= 0 && hits_b <= n_b, ErrorCode::argument, "fisher_exact",
          "expected 0 <= hits <= n but got {} of {} and {} of {}", hits_a, n_a, hits_b, n_b);
  const std::int64_t hits = hits_a + hits_b, n = n_a + n_b;
  if (hits == 0 || hits == n || n_a == 0 || n_b == 0) return 1;
  const boost::math::hypergeometric table(static_cast<unsigned>(hits), static_cast<unsigned>(n_a),
                                          static_cast<unsigned>(n));
  const auto mass = [&](std::int64_t k) { return boost::math::pdf(table, static_cast<unsigned>(k)); };
  const double seen = mass(hits_a) * (1 + 1e-7);  // tables equally likely up to rounding count as such
  double p = 0;
  for (std::int64_t k = std::max<std::int64_t>(0, hits - n_b); k <= std::min(hits, n_a); ++k)
    if (const double m = mass(k); m <= seen) p += m;
  return std::min(1.0, p);
}

McNemar mcnemar(std::int64_t only_a, std::int64_t only_b) {
  require(only_a >= 0 && only_b >= 0, ErrorCode::argument, "mcnemar", "expected counts >= 0 but got {} and {}", only_a,
          only_b);
  McNemar result{.only_a = only_a, .only_b = only_b};
  const std::int64_t discordant = only_a + only_b, least = std::min(only_a, only_b);
  if (discordant == 0) return result;
  const boost::math::binomial binomial(static_cast<double>(discordant), 0.5);
  const double at_least = boost::math::pdf(binomial, static_cast<double>(least));
  result.p_exact = std::min(1.0, 2 * boost::math::cdf(binomial, static_cast<double>(least)));
  result.p_mid = only_a == only_b ? 1 - at_least / 2 : result.p_exact - at_least;
  return result;
}

McNemar mcnemar(std::span<const std::uint8_t> a, std::span<const std::uint8_t> b) {
  require_same_length(a.size(), b.size(), "mcnemar");
  std::int64_t counts[2][2] = {};
  for (std::size_t i = 0; i < a.size(); ++i) ++counts[a[i] != 0][b[i] != 0];
  McNemar result = mcnemar(counts[1][0], counts[0][1]);
  result.both = counts[1][1];
  result.neither = counts[0][0];
  return result;
}

Wilcoxon wilcoxon_signed_rank(std::span<const double> differences) {
  require_finite(differences, "wilcoxon_signed_rank");
  std::vector<double> sizes;
  std::vector<bool> positive;
  for (double d : differences)
    if (d != 0) {
      sizes.push_back(std::abs(d));
      positive.push_back(d > 0);
    }
  Wilcoxon result{.n_nonzero = static_cast<std::int64_t>(sizes.size())};
  if (sizes.empty()) return result;
  merge_near_ties(sizes);
  const auto ranks = mid_ranks(sizes);
  for (std::size_t i = 0; i < ranks.size(); ++i) (positive[i] ? result.w_plus : result.w_minus) += ranks[i];
  std::sort(sizes.begin(), sizes.end());
  double ties = 0;  // sum of t^3 - t over groups of equal sizes
  for (std::size_t i = 0, j = 0; i < sizes.size(); i = j) {
    while (j < sizes.size() && sizes[j] == sizes[i]) ++j;
    const double t = static_cast<double>(j - i);
    ties += t * t * t - t;
  }
  const double n = static_cast<double>(sizes.size());
  const double variance = n * (n + 1) * (2 * n + 1) / 24 - ties / 48;
  result.p = normal_p((result.w_plus - n * (n + 1) / 4) / std::sqrt(variance));
  return result;
}

SignTest sign_test(std::span<const double> differences) {
  require_finite(differences, "sign_test");
  SignTest result;
  for (double d : differences) {
    result.positive += d > 0;
    result.negative += d < 0;
  }
  result.p = mcnemar(result.negative, result.positive).p_exact;
  return result;
}

double permutation_test(std::span<const double> differences, std::span<const std::int64_t> clusters, std::int64_t draws,
                        std::uint64_t seed) {
  require(draws >= 1, ErrorCode::argument, "permutation_test", "expected draws >= 1 but got {}", draws);
  require_finite(differences, "permutation_test");
  const stats::detail::Clusters groups(clusters, differences.size(), "permutation_test");
  std::vector<double> sums(groups.count, 0.0);
  for (std::size_t i = 0; i < differences.size(); ++i) sums[groups.index[i]] += differences[i];
  std::erase(sums, 0.0);  // their sign changes nothing
  if (sums.empty()) return 1;
  const double size =
      std::accumulate(sums.begin(), sums.end(), 0.0, [](double s, double x) { return s + std::abs(x); });
  const double seen = std::abs(std::accumulate(sums.begin(), sums.end(), 0.0)) - 1e-12 * size;
  if (sums.size() < 62 && (std::int64_t{1} << sums.size()) <= draws) {
    std::int64_t extreme = 0;
    const std::int64_t patterns = std::int64_t{1} << sums.size();
    for (std::int64_t pattern = 0; pattern < patterns; ++pattern) {
      double sum = 0;
      for (std::size_t g = 0; g < sums.size(); ++g) sum += (pattern >> g & 1) ? sums[g] : -sums[g];
      extreme += std::abs(sum) >= seen;
    }
    return static_cast<double>(extreme) / static_cast<double>(patterns);
  }
  Rng rng(derive_seed(seed, "permutation"));
  std::int64_t extreme = 0;
  for (std::int64_t draw = 0; draw < draws; ++draw) {
    double sum = 0;
    std::uint64_t bits = 0;
    for (std::size_t g = 0; g < sums.size(); ++g, bits >>= 1) {
      if (g % 64 == 0) bits = rng();
      sum += (bits & 1) ? sums[g] : -sums[g];
    }
    extreme += std::abs(sum) >= seen;
  }
  return static_cast<double>(1 + extreme) / static_cast<double>(1 + draws);
}

ClusteredMean clustered_mean(std::span<const double> values, std::span<const std::int64_t> clusters, double level) {
  require_level(level, "clustered_mean");
  const stats::detail::Clusters groups(clusters, values.size(), "clustered_mean");
  require_finite(values, "clustered_mean");
  const Summary summary = summarize(values);
  ClusteredMean result{.n = summary.n, .clusters = static_cast<std::int64_t>(groups.count), .mean = summary.mean};
  if (values.empty()) return result;
  const double n = static_cast<double>(summary.n), g = static_cast<double>(groups.count);
  std::vector<double> residuals(groups.count, 0.0);
  for (std::size_t i = 0; i < values.size(); ++i) residuals[groups.index[i]] += values[i] - summary.mean;
  double squares = 0;
  for (double r : residuals) squares += r * r;
  result.se_iid = summary.sd / std::sqrt(n);
  result.se_cr0 = std::sqrt(squares) / n;
  result.se_cr1 = g > 1 ? result.se_cr0 * std::sqrt(g / (g - 1)) : kNaN;
  result.interval = {kNaN, kNaN};
  if (g > 1) {
    const double half = t_quantile(0.5 + level / 2, g - 1) * result.se_cr1;
    result.interval = {summary.mean - half, summary.mean + half};
    if (summary.mean != 0) {
      result.p_normal = normal_p(summary.mean / result.se_cr0);
      result.p = result.se_cr1 > 0 ? 2 * t_tail(std::abs(summary.mean) / result.se_cr1, g - 1) : 0;
    }
  }
  return result;
}

std::vector<double> bootstrap_draws(std::int64_t clusters,
                                    const std::function<double(std::span<const std::int32_t> weights)>& statistic,
                                    const BootstrapOptions& options) {
  require(options.draws >= 1 && clusters >= 1, ErrorCode::argument, "bootstrap_draws",
          "expected draws >= 1 and clusters >= 1 but got {} and {}", options.draws, clusters);
  Rng rng(derive_seed(options.seed, "bootstrap"));
  std::vector<std::int32_t> weights(static_cast<std::size_t>(clusters));
  std::vector<double> draws;
  draws.reserve(static_cast<std::size_t>(options.draws));
  for (std::int64_t draw = 0; draw < options.draws; ++draw) {
    std::fill(weights.begin(), weights.end(), 0);
    for (std::int64_t i = 0; i < clusters; ++i) ++weights[rng.below(static_cast<std::uint64_t>(clusters))];
    draws.push_back(statistic(weights));
  }
  return draws;
}

Interval percentile_interval(std::vector<double> draws, double level) {
  require_level(level, "percentile_interval");
  std::erase_if(draws, [](double x) { return std::isnan(x); });
  if (draws.empty()) return {kNaN, kNaN};
  std::sort(draws.begin(), draws.end());
  const auto at = [&](double probability) {
    const double place = probability * static_cast<double>(draws.size() - 1);
    const auto below = static_cast<std::size_t>(place);
    const auto above = std::min(below + 1, draws.size() - 1);
    return draws[below] + (place - static_cast<double>(below)) * (draws[above] - draws[below]);
  };
  return {at((1 - level) / 2), at((1 + level) / 2)};
}

Bootstrap cluster_bootstrap(std::span<const double> values, std::span<const std::int64_t> clusters,
                            const BootstrapOptions& options) {
  const stats::detail::Clusters groups(clusters, values.size(), "cluster_bootstrap");
  require_finite(values, "cluster_bootstrap");
  if (values.empty()) return {kNaN, kNaN, {kNaN, kNaN}};
  std::vector<double> sums(groups.count, 0.0), rows(groups.count, 0.0);
  for (std::size_t i = 0; i < values.size(); ++i) {
    sums[groups.index[i]] += values[i];
    rows[groups.index[i]] += 1;
  }
  const auto mean = [&](std::span<const std::int32_t> weights) {
    double sum = 0, n = 0;
    for (std::size_t g = 0; g < weights.size(); ++g) {
      sum += weights[g] * sums[g];
      n += weights[g] * rows[g];
    }
    return sum / n;
  };
  auto draws = bootstrap_draws(static_cast<std::int64_t>(groups.count), mean, options);
  return {summarize(values).mean, summarize(draws).sd, percentile_interval(std::move(draws), options.level)};
}

Equivalence equivalence_test(const ClusteredMean& difference, double margin) {
  require(margin > 0, ErrorCode::argument, "equivalence_test", "expected margin > 0 but got {}", margin);
  if (difference.clusters < 2) return {};
  Equivalence result;
  if (difference.se_cr1 == 0) {  // all clusters alike: the data leave no doubt
    result.p_lower = difference.mean > -margin ? 0 : 1;
    result.p_upper = difference.mean < margin ? 0 : 1;
  } else {
    const double df = static_cast<double>(difference.clusters - 1);
    result.p_lower = t_tail((difference.mean + margin) / difference.se_cr1, df);
    result.p_upper = t_tail((margin - difference.mean) / difference.se_cr1, df);
  }
  result.p = std::max(result.p_lower, result.p_upper);
  return result;
}

std::vector<double> holm(std::span<const double> p) {
  require_finite(p, "holm");
  std::vector<std::size_t> order(p.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return p[a] < p[b]; });
  std::vector<double> adjusted(p.size());
  double largest = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    largest = std::max(largest, std::min(1.0, static_cast<double>(p.size() - i) * p[order[i]]));
    adjusted[order[i]] = largest;
  }
  return adjusted;
}

std::vector<double> bonferroni(std::span<const double> p) {
  std::vector<double> adjusted;
  for (double x : p) adjusted.push_back(std::min(1.0, x * static_cast<double>(p.size())));
  return adjusted;
}

double paired_effect_size(std::span<const double> differences) {
  const Summary summary = summarize(differences);
  return summary.mean == 0 ? 0 : summary.mean / summary.sd;
}

double paired_dominance(std::span<const double> differences) {
  if (differences.empty()) return kNaN;
  double sum = 0;
  for (double d : differences) sum += (d > 0) - (d < 0);
  return sum / static_cast<double>(differences.size());
}

double weighted_kappa(std::span<const int> a, std::span<const int> b, int lowest, int highest) {
  require_same_length(a.size(), b.size(), "weighted_kappa");
  require(lowest < highest, ErrorCode::argument, "weighted_kappa", "expected lowest < highest but got {} and {}",
          lowest, highest);
  if (a.empty()) return kNaN;
  const auto k = static_cast<std::size_t>(highest - lowest + 1);
  std::vector<double> count_a(k, 0.0), count_b(k, 0.0);
  double observed = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    for (int score : {a[i], b[i]})
      require(score >= lowest && score <= highest, ErrorCode::argument, "weighted_kappa",
              "expected scores from {} to {} but got {} (pair {})", lowest, highest, score, i);
    observed += static_cast<double>(a[i] - b[i]) * (a[i] - b[i]);
    ++count_a[static_cast<std::size_t>(a[i] - lowest)];
    ++count_b[static_cast<std::size_t>(b[i] - lowest)];
  }
  double expected = 0;
  for (std::size_t i = 0; i < k; ++i)
    for (std::size_t j = 0; j < k; ++j) {
      const double distance = static_cast<double>(i) - static_cast<double>(j);
      expected += distance * distance * count_a[i] * count_b[j];
    }
  expected /= static_cast<double>(a.size());
  return expected == 0 ? 1 : 1 - observed / expected;
}

std::vector<double> mid_ranks(std::span<const double> values) {
  require_finite(values, "mid_ranks");
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](auto a, auto b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (std::size_t i = 0, j = 0; i < order.size(); i = j) {
    while (j < order.size() && values[order[j]] == values[order[i]]) ++j;
    for (std::size_t k = i; k < j; ++k) ranks[order[k]] = static_cast<double>(i + j + 1) / 2;
  }
  return ranks;
}

double pearson(std::span<const double> x, std::span<const double> y) {
  require_same_length(x.size(), y.size(), "pearson");
  const double mean_x = summarize(x).mean, mean_y = summarize(y).mean;
  double xy = 0, xx = 0, yy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - mean_x) * (y[i] - mean_y);
    xx += (x[i] - mean_x) * (x[i] - mean_x);
    yy += (y[i] - mean_y) * (y[i] - mean_y);
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : kNaN;
}

double spearman(std::span<const double> x, std::span<const double> y) {
  require_same_length(x.size(), y.size(), "spearman");
  return pearson(mid_ranks(x), mid_ranks(y));
}

double auroc(std::span<const double> scores, std::span<const std::uint8_t> positive) {
  require_same_length(scores.size(), positive.size(), "auroc");
  const auto ranks = mid_ranks(scores);
  double sum = 0, n = 0;
  for (std::size_t i = 0; i < ranks.size(); ++i)
    if (positive[i]) {
      sum += ranks[i];
      ++n;
    }
  const double others = static_cast<double>(ranks.size()) - n;
  return n > 0 && others > 0 ? (sum - n * (n + 1) / 2) / (n * others) : kNaN;
}

}  // namespace steer
