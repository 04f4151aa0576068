// Reference values: SciPy 1.17.1, scikit-learn and statsmodels on the same numbers, or counts small enough to do by
// hand.

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include <steer/core/random.hpp>
#include <steer/stats/statistics.hpp>

#include "support.hpp"

namespace steer {
namespace {

const std::vector<double> kA{2.1, 3.4, 1.9, 5.0, 4.4, 3.3, 2.8, 4.1};
const std::vector<double> kB{1.8, 2.9, 2.4, 3.1, 2.2, 3.0};

TEST(Statistics, WelchAndPooledTTests) {
  // scipy.stats.ttest_ind(a, b, equal_var=...)
  const auto a = summarize(kA), b = summarize(kB);
  const auto pooled = t_test(a, b, Variances::pooled), welch = t_test(a, b);
  EXPECT_NEAR(pooled.t, 1.6657628639015623, 1e-12);
  EXPECT_NEAR(pooled.p, 0.12162976878593812, 1e-12);
  EXPECT_NEAR(welch.t, 1.8369273154348509, 1e-12);
  EXPECT_NEAR(welch.p, 0.09468944182175551, 1e-12);
  EXPECT_NEAR(welch.df, 10.488609263470524, 1e-9);
}

TEST(Statistics, HitsAreZerosAndOnes) {
  const auto hits = summarize_hits(3, 8);
  EXPECT_EQ(hits.n, 8);
  EXPECT_EQ(hits.mean, 0.375);
  EXPECT_NEAR(hits.sd, 0.5175491695067657, 1e-15);  // numpy.std([1] * 3 + [0] * 5, ddof=1)
  EXPECT_TRUE(std::isnan(summarize_hits(1, 1).sd));
  EXPECT_TRUE(std::isnan(summarize_hits(0, 0).mean));
}

TEST(Statistics, TTestKeepsTinyTails) {
  // 2 * t.sf(74, 4784): mpmath, log10 = -794.4057214886417
  const auto t = t_test({2393, 74.0 / std::sqrt(2393 / 2.0), 1}, {2393, 0, 1}, Variances::pooled);
  EXPECT_EQ(t.p, 0);
  EXPECT_NEAR(t.log10_p, -794.4057214886417, 1e-6);
}

TEST(Statistics, Intervals) {
  const auto t = mean_interval(summarize(kA));  // scipy.stats.t.interval
  EXPECT_NEAR(t.low, 2.4616413355392517, 1e-12);
  EXPECT_NEAR(t.high, 4.288358664460748, 1e-12);
  const auto w = proportion_interval(3, 20);  // statsmodels proportion_confint(3, 20, method="wilson")
  EXPECT_NEAR(w.low, 0.052368745896216595, 1e-12);
  EXPECT_NEAR(w.high, 0.36041886474075696, 1e-12);
  EXPECT_EQ(proportion_interval(0, 10).low, 0);
  EXPECT_TRUE(std::isnan(mean_interval(summarize(std::vector<double>{1.0})).low));
}

TEST(Statistics, ExactTables) {
  EXPECT_NEAR(fisher_exact(8, 10, 1, 6), 0.034965034965034975, 1e-12);  // scipy.stats.fisher_exact
  EXPECT_DOUBLE_EQ(mcnemar(5, 0).p_exact, 2.0 / 32);
  EXPECT_DOUBLE_EQ(mcnemar(0, 0).p_exact, 1.0);
  EXPECT_NEAR(mcnemar(3, 9).p_exact, 0.14599609375, 1e-12);  // 2 * binom.cdf(3, 12, 0.5)
  const std::vector<std::uint8_t> a{1, 1, 0, 0, 1}, b{1, 0, 1, 0, 0};
  const auto m = mcnemar(a, b);
  EXPECT_EQ(m.both, 1);
  EXPECT_EQ(m.only_a, 2);
  EXPECT_EQ(m.only_b, 1);
  EXPECT_EQ(m.neither, 1);
}

TEST(Statistics, WilcoxonWithTiesMadeByRounding) {
  // scipy.stats.wilcoxon(d, zero_method="wilcox", correction=False, method="approx") on whole numbers
  const std::vector<double> whole{1, 1, -2, 3, 0, 2, 2, -1, 4};
  std::vector<double> decimals;
  for (double d : whole) decimals.push_back((0.7 + d / 10) - 0.7);  // ties no longer exact
  for (const auto& d : {whole, decimals}) {
    const auto w = wilcoxon_signed_rank(d);
    EXPECT_NEAR(w.p, 0.11979493042591832, 1e-12);
    EXPECT_EQ(w.n_nonzero, 8);
    EXPECT_EQ(w.w_minus, 7.0);
  }
}

TEST(Statistics, PermutationWalksAllSignsOfFewClusters) {
  // 5 clusters, all positive: 2 of 32 sign patterns are as extreme.
  const std::vector<double> d{1, 2, 3, 4, 5};
  EXPECT_DOUBLE_EQ(permutation_test(d, {}, 1000, 1), 2.0 / 32);
  // Two rows a cluster: as many patterns as clusters allow.
  const std::vector<double> rows{1, 1, 2, 2, 3, 3};
  const std::vector<std::int64_t> clusters{7, 7, 8, 8, 9, 9};
  EXPECT_DOUBLE_EQ(permutation_test(rows, clusters, 1000, 1), 2.0 / 8);
  EXPECT_DOUBLE_EQ(permutation_test(std::vector<double>{0, 0}, {}, 10, 1), 1.0);
}

TEST(Statistics, RandomPermutationNearsTheExactOne) {
  Rng rng(3);
  std::vector<double> d;
  for (int i = 0; i < 18; ++i) d.push_back(rng.normal() + 0.3);
  const double exact = permutation_test(d, {}, 1 << 18, 1), sampled = permutation_test(d, {}, 100000, 1);
  EXPECT_NEAR(sampled, exact, 4 * std::sqrt(exact * (1 - exact) / 1e5));
}

TEST(Statistics, ClusteredErrorOfDuplicatedRowsIsThatOfTheQuestions) {
  // Every row three times: the clustered error must not shrink, the naive one does.
  std::vector<double> once{0.5, -1, 2, 0, 1.5, -0.5, 1}, thrice;
  std::vector<std::int64_t> clusters;
  for (std::size_t i = 0; i < once.size(); ++i)
    for (int k = 0; k < 3; ++k) {
      thrice.push_back(once[i]);
      clusters.push_back(static_cast<std::int64_t>(i));
    }
  const auto single = clustered_mean(once, {}), triple = clustered_mean(thrice, clusters);
  EXPECT_NEAR(triple.se_cr1, single.se_cr1, 1e-12);
  EXPECT_LT(triple.se_iid, 0.7 * single.se_iid);
  EXPECT_NEAR(single.se_cr1, single.se_iid, 1e-12);
  const auto boot = cluster_bootstrap(thrice, clusters);
  EXPECT_NEAR(boot.se, triple.se_cr0, 0.03 * triple.se_cr0);
  EXPECT_EQ(cluster_bootstrap(thrice, clusters).interval, boot.interval) << "equal seeds, equal draws";
}

TEST(Statistics, ClusteredIntervalsCoverAtTheirLevel) {
  // 400 studies of 40 questions x 5 rows with a shared question effect: 95 % intervals cover within binomial noise,
  // which the naive ones miss by far.
  Rng rng(11);
  int covered = 0, naive = 0;
  for (int study = 0; study < 400; ++study) {
    std::vector<double> values;
    std::vector<std::int64_t> clusters;
    for (int q = 0; q < 40; ++q) {
      const double effect = rng.normal();
      for (int r = 0; r < 5; ++r) {
        values.push_back(0.25 + effect + 0.3 * rng.normal());
        clusters.push_back(q);
      }
    }
    const auto m = clustered_mean(values, clusters);
    covered += m.interval.low < 0.25 && 0.25 < m.interval.high;
    naive += std::abs(m.mean - 0.25) < 1.96 * m.se_iid;
  }
  EXPECT_NEAR(covered / 400.0, 0.95, 0.035);
  EXPECT_LT(naive / 400.0, 0.75);
}

TEST(Statistics, EquivalenceAndNonInferiority) {
  const ClusteredMean even{.n = 100, .clusters = 100, .mean = 0, .se_iid = 0.5, .se_cr0 = 0.5, .se_cr1 = 0.5};
  EXPECT_LT(equivalence_test(even, 2).p, 0.001);
  EXPECT_GT(equivalence_test(even, 0.5).p, 0.05);
  const ClusteredMean better{.n = 100, .clusters = 100, .mean = 3, .se_iid = 0.5, .se_cr0 = 0.5, .se_cr1 = 0.5};
  EXPECT_LT(equivalence_test(better, 2).p_lower, 1e-6) << "not inferior";
  EXPECT_GT(equivalence_test(better, 2).p, 0.5) << "but not equivalent";
}

TEST(Statistics, HolmAndBonferroni) {
  const std::vector<double> p{0.01, 0.04, 0.03, 0.005};  // statsmodels multipletests(method="holm")
  const std::vector<double> expected{0.03, 0.06, 0.06, 0.02};
  const auto adjusted = holm(p);
  for (std::size_t i = 0; i < p.size(); ++i) EXPECT_NEAR(adjusted[i], expected[i], 1e-15);
  EXPECT_NEAR(bonferroni(p)[1], 0.16, 1e-15);
}

TEST(Statistics, AgreementAndRanks) {
  const std::vector<int> a{1, 2, 3, 4, 5, 3, 2, 5, 4, 1}, b{1, 3, 3, 5, 5, 2, 2, 4, 4, 2};
  EXPECT_NEAR(weighted_kappa(a, b, 1, 5), 0.8648648648648649, 1e-12);  // sklearn cohen_kappa_score(weights="quadratic")
  const std::vector<double> x{1, 2, 2, 3, 5, 4}, y{2, 1, 3, 3, 6, 6};
  EXPECT_NEAR(spearman(x, y), 0.8508410434878082, 1e-12);  // scipy.stats.spearmanr
  const std::vector<double> scores{0.1, 0.4, 0.35, 0.8, 0.4};
  const std::vector<std::uint8_t> labels{0, 0, 1, 1, 1};
  EXPECT_NEAR(auroc(scores, labels), 0.75, 1e-12);  // sklearn roc_auc_score
  EXPECT_TRUE(std::isnan(spearman(x, std::vector<double>(6, 1.0))));
}

TEST(Statistics, BadInputIsAnError) {
  const std::vector<double> two{1, 2}, missing{1, std::nan("")};
  const std::vector<std::int64_t> one{1};
  EXPECT_STEER_ERROR(clustered_mean(two, one), ErrorCode::shape, "one cluster a row");
  EXPECT_STEER_ERROR(wilcoxon_signed_rank(missing), ErrorCode::argument, "finite");
  EXPECT_STEER_ERROR(t_test({1, 0, 0}, {5, 0, 1}), ErrorCode::argument, "at least 2");
  EXPECT_STEER_ERROR(summarize_hits(3, 2), ErrorCode::argument, "hits <= n");
  EXPECT_STEER_ERROR(mean_interval({5, 0, 1}, 1.5), ErrorCode::argument, "level");
  const std::vector<int> off{9}, fine{1};
  EXPECT_STEER_ERROR(weighted_kappa(off, fine, 1, 5), ErrorCode::argument, "scores from 1 to 5");
}

}  // namespace
}  // namespace steer
