// Tango's statistic, proportions and bets against SciPy and statsmodels (references.py), and their size and coverage in
// simulated studies of known truth.

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include <steer/core/random.hpp>
#include <steer/stats/betting.hpp>
#include <steer/stats/paired_proportions.hpp>
#include <steer/stats/proportions.hpp>

#include "core/format_text.hpp"
#include "stats/references.hpp"
#include "stats/suite.hpp"

namespace steer {
namespace {

using Stats = test::StatsSuite;

TEST_F(Stats, UpperBoundsOfProportions) {
  for (const auto& row : test::kUpperBounds)
    near(proportion_upper_bound(row.hits, row.n, row.level), row.upper, 1e-9, format_text("{} of {}", row.hits, row.n));
  expect(proportion_upper_bound(3, 3) == 1 && proportion_upper_bound(0, 0) == 1, "nothing excludes 1");
}

TEST_F(Stats, McNemarsTestAndItsMidP) {
  for (const auto& row : test::kMcNemar) {
    const auto found = mcnemar(row.only_a, row.only_b);
    near(found.p_exact, row.p_exact, 1e-12, format_text("{} against {}", row.only_a, row.only_b));
    near(found.p_mid, row.p_mid, 1e-12, format_text("{} against {}, mid-p", row.only_a, row.only_b));
  }
}

TEST_F(Stats, ScoreStatisticAndItsDistribution) {
  for (const auto& row : test::kPaired) {
    const PairedCounts counts{row.n, row.only_a, row.only_b};
    const auto what = format_text("{} lost, {} gained of {} at {}", row.only_a, row.only_b, row.n, row.difference);
    near(tango_statistic(counts, row.difference), row.statistic, 1e-5, what);
    near(paired_p_above(counts, row.difference), row.p_above, 1e-5, what);
    near(paired_p_below({row.n, row.only_b, row.only_a}, -row.difference), row.p_above, 1e-5, "seen from b, " + what);
  }
}

TEST_F(Stats, NoDiscordantPairIsNoCertainty) {
  for (const int n : {64, 171})
    near(paired_p_above({n, 0, 0}, -0.02), std::pow(0.98, n), 1e-9, format_text("{} pairs alike", n));
  const auto same = paired_difference({64, 0, 0});
  near(same.interval.high, 1 - std::pow(0.025, 1.0 / 64), 1e-6, "upper end");
  near(same.interval.low, -same.interval.high, 1e-9, "symmetric");
  expect(same.p == 1, "no difference shown");
}

TEST_F(Stats, IntervalsAndTestsOfPairsAgree) {
  for (int a = 0; a <= 40; ++a)
    for (int b = 0; a + b <= 40; ++b) {
      const auto found = paired_difference({40, a, b});
      expect((found.interval.low > 0 || found.interval.high < 0) == (found.p < 0.05),
             format_text("{} lost, {} gained", a, b));
    }
}

/// The chance, over all tables of n questions, that what `claims` says yes to happens.
template <class Claims>
double chance(int n, double lost, double gained, const Claims& claims) {
  double sum = 0;
  for (int a = 0; a <= n; ++a)
    for (int b = 0; a + b <= n; ++b) {
      if ((gained == 0 && b > 0) || (lost == 0 && a > 0)) continue;
      const double log_mass = std::lgamma(n + 1) - std::lgamma(a + 1) - std::lgamma(b + 1) -
                              std::lgamma(n - a - b + 1) + (a ? a * std::log(lost) : 0) +
                              (b ? b * std::log(gained) : 0) + (n - a - b) * std::log(1 - lost - gained);
      if (log_mass > -25 && claims(PairedCounts{n, a, b})) sum += std::exp(log_mass);
    }
  return sum;
}

TEST_F(Stats, NonInferiorityKeepsItsSizeWhereLossesAreRare) {
  // True loss of exactly the margin. A Wald test has .276 at 64 questions and .142 at 171 with losses only.
  for (const int n : {64, 140, 171, 300})
    for (const double gained : {0.0, 0.01, 0.03, 0.1}) {
      const double size =
          chance(n, gained + 0.02, gained, [](const PairedCounts& c) { return paired_p_above(c, -0.02) < 0.05; });
      expect(size <= 0.0505, format_text("{} questions, {} gained: size {}", n, gained, size));
      if (n >= 171 && gained >= 0.03) expect(size > 0.04, "and is not idle");
    }
}

TEST_F(Stats, PairedIntervalsCover) {
  for (const int n : {30, 64})
    for (const auto& [lost, gained] : {std::pair{0.02, 0.0}, {0.02, 0.02}, {0.1, 0.05}, {0.3, 0.1}}) {
      const double truth = gained - lost;
      const double covered = chance(n, lost, gained, [&](const PairedCounts& c) {
        const auto interval = paired_difference(c).interval;
        return interval.low <= truth && truth <= interval.high;
      });
      expect(covered > 0.935, format_text("{} questions, {} lost, {} gained: {}", n, lost, gained, covered));
    }
}

/// How rows of one question go together.
enum class Alike { not_at_all, fully, half };

struct Study {
  std::vector<std::uint8_t> hits;
  std::vector<std::int64_t> questions;
};

/// Rows that hit with probability p in all; questions differ as `alike` says.
Study study(Rng& rng, int questions, int rows, double p, Alike alike) {
  Study made;
  for (int q = 0; q < questions; ++q) {
    double here = p;
    if (alike == Alike::fully) here = rng.uniform() < p;
    if (alike == Alike::half) here = rng.uniform() < 2 * (1 - p) ? 0.5 : 1;  // hard questions are coins
    for (int r = 0; r < rows; ++r) {
      made.hits.push_back(rng.uniform() < here);
      made.questions.push_back(q);
    }
  }
  return made;
}

TEST_F(Stats, EffectiveNumbersOfRows) {
  for (const auto& row : test::kEffective) {
    Study made;
    for (int q = 0; q < row.questions; ++q)
      for (int r = 0; r < row.rows; ++r) {
        made.hits.push_back(!(q % 5 == 0 && r % 3 == 0));
        made.questions.push_back(q);
      }
    const auto found = clustered_proportion(made.hits, made.questions);
    near(found.interval.low, row.low, 1e-9, format_text("{} x {}, low", row.questions, row.rows));
    near(found.interval.high, row.high, 1e-9, format_text("{} x {}, high", row.questions, row.rows));
  }
  // 168 of 171 questions right, each answer copied over 14 behaviours: statsmodels' Wilson of 168 of 171.
  Study copied;
  for (int q = 0; q < 171; ++q)
    for (int r = 0; r < 14; ++r) {
      copied.hits.push_back(q >= 3);
      copied.questions.push_back(q);
    }
  const auto wilson = clustered_proportion(copied.hits, copied.questions);
  near(wilson.interval.low, 0.9497, 5e-5, "Wilson low");
  near(wilson.interval.high, 0.9940, 5e-5, "Wilson high");
  near(wilson.design_effect, 14, 1e-9, "copies are copies");
}

TEST_F(Stats, PooledProportionsCover) {
  Rng rng(derive_seed(1, "proportions"));
  const int studies = 600;
  for (const int questions : {12, 40, 171})
    for (const double p : {0.5, 0.9, 0.98, 0.995})
      for (const Alike alike : {Alike::not_at_all, Alike::fully, Alike::half}) {
        int covered = 0;
        for (int s = 0; s < studies; ++s) {
          const Study made = study(rng, questions, 14, p, alike);
          const auto interval = clustered_proportion(made.hits, made.questions).interval;
          covered += interval.low <= p && p <= interval.high;
        }
        const auto what = format_text("{} questions, p {}, alike {}: {:.3f}", questions, p, static_cast<int>(alike),
                                      covered / double{studies});
        if (test::verbose()) fmt::print("coverage of pooled proportions, {}\n", what);
        expect(covered > 0.88 * studies, what);  // a few points below .95 where 12 questions hold one bad one
      }
}

TEST_F(Stats, PooledDifferencesCover) {
  // Losses and gains of whole questions, of single rows, and of both.
  Rng rng(derive_seed(2, "differences"));
  const int studies = 300;
  for (const int questions : {40, 171})
    for (const auto& [lost, gained] : {std::pair{0.02, 0.0}, {0.05, 0.02}, {0.2, 0.1}})
      for (const Alike alike : {Alike::not_at_all, Alike::fully}) {
        int covered = 0, empty = 0;
        for (int s = 0; s < studies; ++s) {
          std::vector<double> d;
          std::vector<std::int64_t> clusters;
          for (int q = 0; q < questions; ++q) {
            double whole = rng.uniform();
            for (int r = 0; r < 5; ++r) {
              const double u = alike == Alike::fully ? whole : rng.uniform();
              d.push_back(u < lost ? -1 : u < lost + gained ? 1 : 0);
              clusters.push_back(q);
            }
          }
          const auto found = clustered_paired_difference(d, clusters);
          covered += found.interval.low <= gained - lost && gained - lost <= found.interval.high;
          empty += found.interval.low == found.interval.high;
        }
        const auto what = format_text("{} questions, {} lost, {} gained, alike {}: {:.3f}", questions, lost, gained,
                                      static_cast<int>(alike), covered / double{studies});
        if (test::verbose()) fmt::print("coverage of pooled differences, {}\n", what);
        expect(covered > 0.925 * studies, what);
        expect(empty == 0, "no interval of no width, " + what);
      }
}

TEST_F(Stats, BetsAgainstAMeanLoss) {
  const std::vector<double> losses{0, 0, 1, 0, -1, .5, 0, 0, 0, 0}, none(171, 0.0);
  BettingTest test(0.3), of_none(0.02);
  for (double x : losses) test.add(x);
  for (double x : none) of_none.add(x);
  near(std::exp(test.log_wealth()), test::kWealth, 1e-9, "wealth");
  near(std::exp(of_none.log_wealth()), test::kWealthOfNone, 1e-7, "wealth of none lost");
  near(of_none.p(), 1 / test::kWealthOfNone, 1e-9, "p");
  expect(test.p() == 1 && test.p_anytime() <= 1, "wealth below 1 is no evidence");
  BettingTest half(0.02);
  for (int i = 0; i < 100; ++i) half.add(0);
  near(half.log_wealth_after_none(71), of_none.log_wealth(), 1e-9, "looking ahead");
  const double upper = betting_upper_bound(none);
  near(betting_p(none, upper), 0.05, 1e-6, "the bound is where p is .05");
  near(betting_upper_bound({}, 0.95, 4), 4, 0, "without losses nothing is known");
}

TEST_F(Stats, BetsHoldWhateverTheLosses) {
  // The mean loss is .02: all in few questions, a little in many, mixed with gains, and hidden: half of it in one
  // question of 200, which a test that trusts the observed spread misses.
  const auto draw = [](Rng& rng, int kind) {
    const double u = rng.uniform();
    if (kind == 0) return u < 0.02 ? 1.0 : 0.0;
    if (kind == 1) return u < 0.28 ? 1.0 / 14 : 0.0;
    if (kind == 2) return u < 0.12 ? 1.0 : u < 0.22 ? -1.0 : 0.0;
    return u < 0.01 ? 1.0 : u < 0.15 ? 1.0 / 14 : 0.0;
  };
  Rng rng(derive_seed(3, "bets"));
  const int studies = 1000;
  for (const int questions : {64, 171})
    for (int kind = 0; kind < 4; ++kind) {
      int refuted = 0, at_any_time = 0;
      for (int s = 0; s < studies; ++s) {
        BettingTest test(0.02);
        for (int q = 0; q < questions; ++q) test.add(draw(rng, kind));
        refuted += test.p() < 0.05;
        at_any_time += test.p_anytime() < 0.05;
      }
      const auto what = format_text("{} questions, kind {}: {} of {}, {} at any time", questions, kind, refuted,
                                    studies, at_any_time);
      if (test::verbose()) fmt::print("size of bets, {}\n", what);
      expect(at_any_time <= 0.05 * studies && refuted <= at_any_time, what);
    }
}

TEST(PairedProportions, BadInputIsAnError) {
  EXPECT_STEER_ERROR(tango_statistic({10, 8, 3}, 0), ErrorCode::argument, "8 and 3 of 10");
  EXPECT_STEER_ERROR(paired_p_above({10, 0, 0}, -1), ErrorCode::argument, "between -1 and 1");
  EXPECT_STEER_ERROR(paired_difference({0, 0, 0}), ErrorCode::argument, "counts");
  const std::vector<double> halves{0.5};
  EXPECT_STEER_ERROR(clustered_paired_difference(halves, {}), ErrorCode::argument, "-1, 0 or 1");
  EXPECT_STEER_ERROR(BettingTest(1, 1), ErrorCode::argument, "below the highest");
  EXPECT_STEER_ERROR(betting_p(std::vector<double>{2.0}, 0.1), ErrorCode::argument, "at most 1");
  EXPECT_STEER_ERROR(proportion_upper_bound(3, 2), ErrorCode::argument, "3 of 2");
}

}  // namespace
}  // namespace steer
