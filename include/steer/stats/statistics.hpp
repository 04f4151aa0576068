#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include <steer/core/enum.hpp>

namespace steer {

// Statistics of steering experiments. All functions are pure, take plain values, are safe to call from several threads
// and throw Error(argument) for values that are not finite. Distributions are Boost.Math's. `diff` is always b - a:
// what b adds. An estimate that does not exist (a standard deviation of one value) is NaN, a p-value that cannot be
// computed is 1.

struct Interval {
  double low = 0, high = 0;
  friend bool operator==(const Interval&, const Interval&) = default;
};

/// Number of values, mean, and the sample standard deviation (n - 1 in the denominator).
struct Summary {
  std::int64_t n = 0;
  double mean = 0;
  double sd = 0;
};

/// NaN for the mean of no values and the deviation of one; a value that is not finite shows in the result.
Summary summarize(std::span<const double> values);
/// Of `hits` ones and `n - hits` zeros. @throws Error(argument) unless 0 <= hits <= n.
Summary summarize_hits(std::int64_t hits, std::int64_t n);
/// Student's interval of a mean. @throws Error(argument) for a level outside (0, 1).
Interval mean_interval(const Summary& summary, double level = 0.95);
/// Wilson's score interval of a proportion (Wilson 1927): honest near 0 and 1 and for small n.
Interval proportion_interval(std::int64_t hits, std::int64_t n, double level = 0.95);

// Two unrelated samples -----------------------------------------------------------------------------------------------

enum class Variances {
  pooled,  ///< Student: equal variances, the test of arXiv 2602.04903
  welch,   ///< Welch-Satterthwaite degrees of freedom
};

template <>
struct EnumTable<Variances> {
  static constexpr std::string_view name = "variances";
  static constexpr EnumEntry<Variances> entries[] = {{Variances::pooled, "pooled"}, {Variances::welch, "welch"}};
};

struct TTest {
  double t = 0;
  double df = 0;
  double p = 1;         ///< two-sided; 0 where it underflows
  double log10_p = 0;   ///< the same where p underflows (as far as long double reaches)
  double cohens_d = 0;  ///< difference of means over the pooled standard deviation
};

/// Unpaired t-test of two summaries; t and d have the sign of mean(a) - mean(b), as that study prints them. It treats
/// rows that share a question as independent: for comparison with published numbers, not for conclusions.
TTest t_test(const Summary& a, const Summary& b, Variances variances = Variances::welch);
/// Fisher's exact two-sided p of hits_a of n_a against hits_b of n_b: the sum over tables at most as likely.
double fisher_exact(std::int64_t hits_a, std::int64_t n_a, std::int64_t hits_b, std::int64_t n_b);

// The same items under two arms ---------------------------------------------------------------------------------------

/// Counts of right and wrong under both arms, and McNemar's exact test of them.
struct McNemar {
  std::int64_t both = 0, only_a = 0, only_b = 0, neither = 0;
  double p_exact = 1;  ///< min(1, 2 P[X <= min(only_a, only_b)]), X binomial of the discordant pairs at 1/2
  double p_mid = 1;    ///< mid-p variant (Fagerland et al. 2013); 1 - P[X = only_a] / 2 where both are equal
};

/// From the numbers of pairs in which only a, and only b, is right.
McNemar mcnemar(std::int64_t only_a, std::int64_t only_b);
/// @param a, b  0 or 1 an item, the same items in the same order. @throws Error(shape) if the lengths differ.
McNemar mcnemar(std::span<const std::uint8_t> a, std::span<const std::uint8_t> b);

/// Wilcoxon's signed-rank test: zeros dropped, mid-ranks, normal approximation with tie correction, no continuity
/// correction. Sizes that differ by rounding only (1e-12 of the largest) count as ties.
struct Wilcoxon {
  std::int64_t n_nonzero = 0;
  double w_plus = 0, w_minus = 0;  ///< rank sums of positive and negative differences
  double p = 1;                    ///< two-sided; 1 when every difference is 0
};

/// @param differences  b - a, one a pair. @throws Error(argument) for values not finite.
Wilcoxon wilcoxon_signed_rank(std::span<const double> differences);

/// Counts of signs and the exact binomial test of them.
struct SignTest {
  std::int64_t positive = 0, negative = 0;
  double p = 1;  ///< exact, two-sided, zeros dropped
};

/// @param differences  b - a, one a pair. @throws Error(argument) for values not finite.
SignTest sign_test(std::span<const double> differences);

/// Two-sided p of mean difference 0 under random signs. One sign a cluster, so that rows of one question stay together.
/// All 2^G sign patterns are walked when there are at most `draws` of them; else `draws` random ones, and
/// p = (1 + as extreme) / (1 + draws).
/// @param clusters  the cluster of each difference, any numbering; empty: each row its own.
/// @throws Error(shape) if the lengths differ, Error(argument) if draws < 1.
double permutation_test(std::span<const double> differences, std::span<const std::int64_t> clusters, std::int64_t draws,
                        std::uint64_t seed);

/// A mean with standard errors that allow for rows of one cluster (question) being alike.
struct ClusteredMean {
  std::int64_t n = 0, clusters = 0;
  double mean = 0;
  double se_iid = 0;    ///< sd / sqrt(n), as if all rows were independent
  double se_cr0 = 0;    ///< sqrt(sum_g (S_g - n_g mean)^2) / n
  double se_cr1 = 0;    ///< cr0 * sqrt(G / (G - 1))
  double p_normal = 1;  ///< two-sided normal p of mean / cr0
  double p = 1;  ///< two-sided Student p of mean / cr1, G - 1 degrees of freedom; a one-sample t-test when every row
                 ///< is its own cluster
  Interval interval = {};  ///< at `level`, Student with G - 1 degrees of freedom, by cr1
};

/// Standard errors by Liang and Zeger 1986, whole clusters summed before squaring.
/// @param clusters  the cluster of each value, any numbering; empty: each row its own.
/// @throws Error(shape) if the lengths differ, Error(argument) for values not finite or a level outside (0, 1).
ClusteredMean clustered_mean(std::span<const double> values, std::span<const std::int64_t> clusters,
                             double level = 0.95);

struct Bootstrap {
  double estimate = 0;
  double se = 0;
  Interval interval;  ///< percentile
};

struct BootstrapOptions {
  std::int64_t draws = 10000;
  double level = 0.95;
  std::uint64_t seed = 42;
};

/// Bootstrap of a mean, clusters drawn with replacement: statistic = sum of values / number of rows drawn.
/// @throws Error(shape | argument).
Bootstrap cluster_bootstrap(std::span<const double> values, std::span<const std::int64_t> clusters,
                            const BootstrapOptions& options = {});

/// The same for statistics that are not means: calls `statistic` once a draw with how often each cluster was drawn
/// (`weights` [clusters]) and returns its values [draws].
std::vector<double> bootstrap_draws(std::int64_t clusters,
                                    const std::function<double(std::span<const std::int32_t> weights)>& statistic,
                                    const BootstrapOptions& options = {});
/// The percentile interval of draws (linear interpolation between order statistics). NaN for no draws.
Interval percentile_interval(std::vector<double> draws, double level);

/// Two one-sided tests (Schuirmann 1987) of |true difference| < margin, by the clustered standard error.
struct Equivalence {
  double p_lower = 1;  ///< against difference <= -margin: this one alone tests non-inferiority
  double p_upper = 1;  ///< against difference >= +margin
  double p = 1;        ///< the larger: equivalence
};

/// @throws Error(argument) unless margin > 0.
Equivalence equivalence_test(const ClusteredMean& difference, double margin);

// Several tests, effect sizes, agreement ------------------------------------------------------------------------------

/// Holm's step-down adjustment, in the order given: p <= alpha after it controls the family-wise error.
std::vector<double> holm(std::span<const double> p);
std::vector<double> bonferroni(std::span<const double> p);

/// Mean difference over the standard deviation of differences (d_z). 0 when all differences are 0.
double paired_effect_size(std::span<const double> differences);
/// P(b > a) - P(b < a) over pairs: Cliff's delta for paired rows.
double paired_dominance(std::span<const double> differences);

/// Cohen's kappa with quadratic weights, for two judges' scores on one scale of whole numbers. 1 when both always give
/// the same single score.
/// @param lowest, highest  the scale's ends. @throws Error(shape | argument) for scores off the scale.
double weighted_kappa(std::span<const int> a, std::span<const int> b, int lowest, int highest);
/// Rank correlation with mid-ranks; NaN when either side is constant.
double spearman(std::span<const double> x, std::span<const double> y);
double pearson(std::span<const double> x, std::span<const double> y);
/// Area under the ROC curve: P(score of a positive > score of a negative), ties half. NaN without both classes.
double auroc(std::span<const double> scores, std::span<const std::uint8_t> positive);
/// Ranks from 1, ties sharing their mean rank.
std::vector<double> mid_ranks(std::span<const double> values);

}  // namespace steer
