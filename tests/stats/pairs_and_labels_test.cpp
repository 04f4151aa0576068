#include <gtest/gtest.h>

#include <cmath>

#include <steer/core/random.hpp>
#include <steer/stats/bradley_terry.hpp>
#include <steer/stats/prediction_powered.hpp>

#include "support.hpp"

namespace steer {
namespace {

// The American League's eastern division of 1987 (Agresti, Categorical Data Analysis, table 10.10) with the strengths
// that the R package BradleyTerry2 (Turner and Firth 2012) gives in its vignette, Baltimore as reference.
TEST(BradleyTerry, BaseballOf1987) {
  const std::vector<std::vector<int>> wins{{0, 7, 9, 7, 7, 9, 11}, {6, 0, 7, 5, 11, 9, 9}, {4, 6, 0, 7, 7, 8, 12},
                                           {6, 8, 6, 0, 6, 7, 10}, {6, 2, 6, 7, 0, 7, 12}, {4, 4, 5, 6, 6, 0, 6},
                                           {2, 4, 1, 3, 1, 7, 0}};
  const double published[] = {1.5814, 1.4364, 1.2945, 1.2476, 1.1077, 0.6839, 0};
  std::vector<PairOutcome> games;
  for (std::int64_t i = 0; i < 7; ++i)
    for (std::int64_t k = 0; k < 7; ++k)
      for (int n = 0; n < wins[static_cast<std::size_t>(i)][static_cast<std::size_t>(k)]; ++n)
        games.push_back(n % 2 ? PairOutcome{i, k, 1} : PairOutcome{k, i, 0});
  const auto strengths = bradley_terry(7, games, {}, 6);
  for (std::size_t i = 0; i < 7; ++i) EXPECT_NEAR(strengths[i].log, published[i], 5e-5);
  EXPECT_EQ(strengths[6].log, 0);
}

TEST(BradleyTerry, TwoItemsAreALogitWithItsError) {
  // 30 of 40: log(3), se = sqrt(1/30 + 1/10) by the delta method, times sqrt(40/39).
  std::vector<PairOutcome> games(40, PairOutcome{0, 1, 0});
  for (int i = 0; i < 30; ++i) games[static_cast<std::size_t>(i)].share = 1;
  const auto strengths = bradley_terry(2, games, {}, 1);
  EXPECT_NEAR(strengths[0].log, std::log(3), 1e-10);
  EXPECT_NEAR(strengths[0].se, std::sqrt((1.0 / 30 + 1.0 / 10) * 40 / 39), 1e-9);
  // Each game twice in one cluster says no more than once.
  std::vector<PairOutcome> twice;
  std::vector<std::int64_t> clusters;
  for (std::size_t i = 0; i < games.size(); ++i)
    for (int n = 0; n < 2; ++n) twice.push_back(games[i]), clusters.push_back(static_cast<std::int64_t>(i));
  EXPECT_NEAR(bradley_terry(2, twice, clusters, 1)[0].se, strengths[0].se, 1e-9);
}

TEST(BradleyTerry, EndsWhereLikelihoodHasNone) {
  const std::vector<PairOutcome> sweep(10, PairOutcome{0, 1, 1});
  const auto strengths = bradley_terry(3, sweep, {}, 1);
  EXPECT_NEAR(strengths[0].log, std::log(10.5 / 0.5), 1e-6) << "half a win and half a loss beforehand";
  EXPECT_TRUE(std::isnan(strengths[2].log)) << "never compared";
  EXPECT_STEER_ERROR(bradley_terry(2, std::vector<PairOutcome>{{0, 0, 1}}), ErrorCode::argument, "two of 2 items");
  EXPECT_STEER_ERROR(bradley_terry(2, std::vector<PairOutcome>{{0, 1, 1.5}}), ErrorCode::argument, "[0, 1]");
  EXPECT_STEER_ERROR(bradley_terry(1, {}), ErrorCode::argument, "at least 2");
  const std::vector<std::int64_t> short_clusters(3, 0);
  EXPECT_STEER_ERROR(bradley_terry(2, sweep, short_clusters), ErrorCode::shape, "");
}

TEST(BradleyTerry, IntervalsCoverWhereQuestionsMatter) {
  // Questions shift all their matches; true strength 0.8 against the reference at the average question.
  int covered = 0;
  constexpr int kRuns = 400;
  for (int run = 0; run < kRuns; ++run) {
    Rng rng(derive_seed(11, "bt", static_cast<std::uint64_t>(run)));
    std::vector<PairOutcome> games;
    std::vector<std::int64_t> clusters;
    for (std::int64_t question = 0; question < 60; ++question) {
      const double p = rng.uniform() < 0.5 ? 0.9 : 0.5;  // mean .7 = logistic(.847)
      for (int n = 0; n < 5; ++n) {
        games.push_back({1, 0, rng.uniform() < p ? 1.0 : 0.0});
        clusters.push_back(question);
      }
    }
    const auto interval = bradley_terry(2, games, clusters)[1].interval;
    covered += interval.low <= std::log(0.7 / 0.3) && std::log(0.7 / 0.3) <= interval.high;
  }
  EXPECT_GE(covered, 366) << "of 400; 95 % less four standard errors";
  EXPECT_LE(covered, 396);
}

/// Labels for some rows of a population whose judge may be good, useless or wrong in its level.
struct Simulated {
  std::vector<double> judge, label;
  double truth = 0;
};

Simulated simulate(std::uint64_t seed, double knows, double offset) {
  Rng rng(seed);
  Simulated s;
  for (int i = 0; i < 600; ++i) {
    const double human = rng.normal() + 3;
    s.judge.push_back(offset + knows * human + (1 - knows) * rng.normal());
    s.label.push_back(i % 10 == 0 ? human : NAN);
  }
  s.truth = 3;
  return s;
}

TEST(PredictionPowered, IsValidWhateverTheJudge) {
  for (const auto& [knows, offset] : {std::pair{0.9, 0.0}, {0.9, 1.5}, {0.0, 0.0}, {-0.5, 0.0}}) {
    int covered = 0;
    double width = 0, label_width = 0;
    constexpr int kRuns = 400;
    for (int run = 0; run < kRuns; ++run) {
      const auto s = simulate(derive_seed(5, "ppi", static_cast<std::uint64_t>(run)), knows, offset);
      const auto estimate = prediction_powered(s.judge, s.label);
      covered += estimate.interval.low <= s.truth && s.truth <= estimate.interval.high;
      width += estimate.interval.high - estimate.interval.low;
      label_width += estimate.label_interval.high - estimate.label_interval.low;
      EXPECT_EQ(estimate.labelled, 60);
      EXPECT_EQ(estimate.rows, 600);
    }
    EXPECT_GE(covered, 366) << "knows " << knows << ", offset " << offset;
    if (knows > 0.5) {
      EXPECT_LT(width, 0.6 * label_width) << "a good judge saves labels";
    } else {
      EXPECT_LE(width, 1.0001 * label_width) << "a bad one costs none";
    }
  }
}

TEST(PredictionPowered, ByHandAndRefusals) {
  // A judge that is right but for a shift: all of it is trusted and the shift is taken out.
  const std::vector<double> judge{2, 3, 4, 5, 6, 7}, label{1, 2, NAN, NAN, 5, 6};
  const auto estimate = prediction_powered(judge, label);
  EXPECT_NEAR(estimate.label_only, 3.5, 1e-12);
  EXPECT_NEAR(estimate.mean, 3.5 + estimate.lambda * (4.5 - 4.5), 1e-12);
  EXPECT_STEER_ERROR(prediction_powered(judge, std::vector<double>{1}), ErrorCode::shape, "1 of 6");
  EXPECT_STEER_ERROR(prediction_powered(judge, std::vector<double>(6, NAN)), ErrorCode::argument, "2 labelled");
  EXPECT_STEER_ERROR(prediction_powered(std::vector<double>{1, NAN}, std::vector<double>{1, 2}), ErrorCode::argument,
                     "finite");
}

}  // namespace
}  // namespace steer
