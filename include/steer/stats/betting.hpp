#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace steer {

// Bounds of a mean that hold at every sample size, for values that are only known to be bounded: losses of questions,
// averaged over the rows of each, where few questions lose much and no normal approximation can be trusted.

/// Bets against the claim "the mean loss is `margin` or more" (Waudby-Smith and Ramdas 2024, arXiv 2010.09686): were it
/// true, no way of betting would make money on average, so wealth that reached w refutes it with p = 1 / w, whenever
/// one looks (Ville's inequality). A loss x multiplies the wealth of a bet b by 1 + b (margin - x) / (highest -
/// margin); the wealth is an average over bets: half of it in b = 1, which nothing beats while nothing is lost and
/// which one whole loss ends, the rest spread over (0, 1) by the arcsine law. The order of the losses does not change
/// the final wealth. Losses must be draws of one population, whole questions each. One thread at a time.
class BettingTest {
 public:
  /// @param highest  no loss can exceed it: 1 for shares. @throws Error(argument) unless margin < highest.
  explicit BettingTest(double margin, double highest = 1);
  /// @throws Error(argument) for a loss that is not finite or above `highest`.
  void add(double loss);
  std::int64_t count() const { return count_; }
  /// Natural logarithm of the wealth now, of 0 at the start.
  double log_wealth() const;
  /// 1 over the wealth now, at most 1: for a sample size fixed beforehand.
  double p() const;
  /// The same after `more` losses of 0: where that is too little, asking on is of no use unless something is gained.
  double log_wealth_after_none(std::int64_t more) const;
  /// 1 over the largest wealth so far: for whoever looked after every loss and may stop at any.
  double p_anytime() const;

 private:
  double margin_, highest_;
  std::vector<double> log_wealth_;  // [bets]
  double largest_ = 0;
  std::int64_t count_ = 0;
};

/// p of "the mean loss is `margin` or more" after all losses. @throws as BettingTest.
double betting_p(std::span<const double> losses, double margin, double highest = 1);

/// The smallest margin that these losses refute at 1 - level: the mean loss is below it with that confidence. `highest`
/// without losses. @throws Error(argument) for a level outside (0, 1), and as BettingTest.
double betting_upper_bound(std::span<const double> losses, double level = 0.95, double highest = 1);

}  // namespace steer
