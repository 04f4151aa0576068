// The largest of several effects: adjusted for having been looked for, and measured on questions that did not choose
// it.

#include <gtest/gtest.h>

#include <boost/math/distributions/normal.hpp>
#include <cmath>
#include <vector>

#include <steer/core/random.hpp>
#include <steer/stats/cross_fit.hpp>
#include <steer/stats/draws.hpp>
#include <steer/stats/power.hpp>
#include <steer/stats/simultaneous.hpp>
#include <steer/stats/statistics.hpp>

#include "core/format_text.hpp"
#include "stats/references.hpp"
#include "stats/suite.hpp"

namespace steer {
namespace {

using Stats = test::StatsSuite;

/// [arms][questions]: arms share what the baseline answered, so their differences go together by `correlation`.
std::vector<std::vector<double>> effects(Rng& rng, int arms, int questions, double correlation) {
  std::vector<std::vector<double>> made(static_cast<std::size_t>(arms));
  for (int q = 0; q < questions; ++q) {
    const double shared = std::sqrt(correlation) * rng.normal();
    for (auto& arm : made) arm.push_back(shared + std::sqrt(1 - correlation) * rng.normal());
  }
  return made;
}

std::vector<ComparedRows> rows_of(const std::vector<std::vector<double>>& effects) {
  std::vector<ComparedRows> rows;
  for (const auto& arm : effects) {
    rows.push_back({arm, {}});
    for (std::size_t q = 0; q < arm.size(); ++q) rows.back().clusters.push_back(static_cast<std::int64_t>(q));
  }
  return rows;
}

TEST_F(Stats, SimultaneousLevelsAreThoseOfTheJointDistribution) {
  for (const auto& row : test::kMaxT) {
    Rng rng(derive_seed(4, "max t"));
    const Simultaneous all(rows_of(effects(rng, 3, 2000, row.correlation)), {.draws = 20000, .seed = 3});
    const double level = all.adjusted_level(0.95);
    near(boost::math::quantile(boost::math::normal(), 0.5 + level / 2), row.critical, 0.03,
         format_text("correlation {}", row.correlation));
    for (const double p : {0.001, 0.01, 0.015, 0.02, 0.03, 0.2})
      expect((all.adjusted_p(p) <= 0.05) == (p < 1 - level), format_text("p {} and interval agree", p));
    expect(all.adjusted_p(0.04) >= 0.04 && all.adjusted_p(1) == 1, "never below p");
  }
  Rng rng(5);
  const Simultaneous alone(rows_of(effects(rng, 1, 200, 0)), {.draws = 4000});
  near(alone.adjusted_level(0.95), 0.95, 0.01, "one comparison pays nothing");
  for (std::uint64_t seed = 0; seed < 20; ++seed) {  // one draw cannot tell 5 %, and must not lower the level
    const Simultaneous few(rows_of(effects(rng, 1, 200, 0)), {.draws = 1, .seed = seed});
    expect(few.adjusted_level(0.95) >= 0.95, "never below the level");
  }
}

TEST_F(Stats, NothingWorksAndNothingIsFound) {
  constexpr int kStudies = 400, kArms = 9, kQuestions = 64;
  int unadjusted = 0, simultaneous = 0, naive = 0, cross_fitted = 0;
  for (int s = 0; s < kStudies; ++s) {
    Rng rng(derive_seed(6, "nothing works", static_cast<std::uint64_t>(s)));
    const auto made = effects(rng, kArms, kQuestions, 0.3);
    const Simultaneous all(rows_of(made), {.draws = 500, .seed = static_cast<std::uint64_t>(s)});
    const double level = all.adjusted_level(0.95);
    bool plain = false, adjusted = false;
    double best = -1e9, best_low = 0;
    for (const auto& arm : made) {
      const auto at = clustered_mean(arm, {}), wide = clustered_mean(arm, {}, level);
      plain = plain || at.interval.low > 0;
      adjusted = adjusted || wide.interval.low > 0;
      if (at.mean > best) {
        best = at.mean;
        best_low = at.interval.low;
      }
    }
    unadjusted += plain;
    simultaneous += adjusted;
    naive += best_low > 0;
    cross_fitted += cross_fit(made, static_cast<std::uint64_t>(s)).interval.low > 0;
  }
  const auto what =
      format_text("{} of {} studies of nothing: unadjusted {}, simultaneous {}, best arm {}, cross-fitted {}",
                  simultaneous, kStudies, unadjusted, simultaneous, naive, cross_fitted);
  if (test::verbose()) fmt::print("{}\n", what);
  expect(unadjusted > 0.08 * kStudies && naive > 0.08 * kStudies, "choosing pays, " + what);
  expect(simultaneous <= 0.045 * kStudies, what);  // .025 above zero, and chance
  expect(cross_fitted <= 0.045 * kStudies, what);
}

TEST_F(Stats, CrossFittingFindsWhatWorks) {
  constexpr int kStudies = 300;
  int covered = 0, chosen = 0;
  for (int s = 0; s < kStudies; ++s) {
    Rng rng(derive_seed(7, "one works", static_cast<std::uint64_t>(s)));
    auto made = effects(rng, 5, 80, 0.3);
    for (double& x : made[2]) x += 0.8;
    const auto fit = cross_fit(made, static_cast<std::uint64_t>(s));
    chosen += fit.chosen == 2 && fit.by_half[0] == 2 && fit.by_half[1] == 2;
    covered += fit.interval.low <= 0.8 && 0.8 <= fit.interval.high;
  }
  expect(chosen > 0.98 * kStudies, format_text("{} of {} chose it", chosen, kStudies));
  expect(covered > 0.92 * kStudies && covered < 0.98 * kStudies, format_text("{} of {} covered", covered, kStudies));
  const std::vector<std::vector<double>> harm{{-1, -2, -1, -3}};
  const auto none = cross_fit(harm, 1);
  expect(none.chosen == -1 && none.estimate == 0, "what harms is not chosen");
}

TEST_F(Stats, SpreadBetweenDrawsIsNoLuckOfQuestions) {
  // By hand: two draws of two questions, no interaction.
  const std::vector<std::vector<double>> small{{1, 3}, {5, 7}};
  const auto found = draw_spread(small);
  near(found.mean, 4, 1e-12, "mean");
  near(found.between_sd, std::sqrt(8.0), 1e-12, "draws are 4 apart: variance 8, residual 0");
  // Five draws that differ by a standard deviation of .5, 100 questions of 1, noise of 1.
  constexpr int kStudies = 500;
  int covered = 0, by_questions_alone = 0;
  double spread = 0;
  for (int s = 0; s < kStudies; ++s) {
    Rng rng(derive_seed(8, "draws", static_cast<std::uint64_t>(s)));
    std::vector<double> question(100);
    for (double& x : question) x = rng.normal();
    std::vector<std::vector<double>> made;
    std::vector<double> mean(100, 0.0);
    for (int d = 0; d < 5; ++d) {
      const double draw = 0.5 * rng.normal();
      made.emplace_back();
      for (std::size_t q = 0; q < question.size(); ++q) {
        made.back().push_back(2 + draw + question[q] + rng.normal());
        mean[q] += made.back().back() / 5;
      }
    }
    const auto both = draw_spread(made);
    covered += both.interval.low <= 2 && 2 <= both.interval.high;
    const auto alone = clustered_mean(mean, {}).interval;
    by_questions_alone += alone.low <= 2 && 2 <= alone.high;
    spread += both.between_sd / kStudies;
  }
  const auto what = format_text("coverage over draws and questions: {} of {}; by questions alone: {}", covered,
                                kStudies, by_questions_alone);
  if (test::verbose()) fmt::print("{}\n", what);
  expect(covered > 0.9 * kStudies, what);  // Satterthwaite with five draws: a little below .95
  expect(by_questions_alone < 0.8 * kStudies, "one interval by question misses the draws, " + what);
  near(spread, 0.47, 0.05, "spread of draws");  // E of a standard deviation of five: .94 of .5
}

// statsmodels.stats.power.TTestPower: power(effect, n, alpha) and solve_power(nobs, power, alpha).
TEST_F(Stats, PowerIsThatOfTheNoncentralT) {
  const struct {
    std::int64_t n;
    double effect, level, power;
  } powers[] = {{10, 0.5, 0.95, 0.293175606514},  {40, 0.2, 0.95, 0.234596494028}, {171, 0.2, 0.95, 0.73910311788},
                {300, 0.1, 0.99, 0.196734433838}, {12, 1.5, 0.95, 0.996965340292}, {171, 0.01, 0.95, 0.0519390725001}};
  for (const auto& row : powers) near(paired_t_power(row.n, row.effect, row.level), row.power, 1e-8, "power");
  const struct {
    std::int64_t n;
    double power, level, effect;
  } effects[] = {{40, 0.8, 0.95, 0.454257112325},
                 {171, 0.8, 0.95, 0.21546071204},
                 {300, 0.9, 0.95, 0.187752252634},
                 {300, 0.8, 0.99, 0.198408504909},
                 {8, 0.8, 0.95, 1.15603527196}};
  for (const auto& row : effects)
    near(detectable_effect(row.n, row.power, row.level), row.effect, 1e-5,
         "effect that is found");  // solve_power stops within 1e-5
  near(paired_t_power(50, 0, 0.95), 0.05, 1e-12, "nothing is found as often as chance allows");
  EXPECT_STEER_ERROR(paired_t_power(1, 1), ErrorCode::argument, "at least 2");
  EXPECT_STEER_ERROR(detectable_effect(40, 0.01), ErrorCode::argument, "power");
}

TEST(Choosing, BadInputIsAnError) {
  const std::vector<ComparedRows> uneven{{{1, 2}, {1}}};
  EXPECT_STEER_ERROR(Simultaneous({}, {}), ErrorCode::argument, "comparisons");
  EXPECT_STEER_ERROR(Simultaneous(uneven, {}), ErrorCode::shape, "a cluster a row");
  const std::vector<std::vector<double>> ragged{{1, 2}, {1}};
  EXPECT_STEER_ERROR(cross_fit(ragged, 1), ErrorCode::shape, "2 effects");
  EXPECT_STEER_ERROR(draw_spread(ragged), ErrorCode::shape, "2 effects");
  EXPECT_STEER_ERROR(draw_spread({}), ErrorCode::argument, "at least 2 draws");
}

}  // namespace
}  // namespace steer
