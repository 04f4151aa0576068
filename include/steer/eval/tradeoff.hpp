#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <steer/eval/results.hpp>
#include <steer/stats/statistics.hpp>

namespace steer {

/// Where one arm lies between what steering is for and what it costs.
struct TradeoffPoint {
  std::string arm;
  double accuracy = 0;   ///< share of right answers, strict rule, 0 to 1
  double behaviour = 0;  ///< mean score, 1 to 5
  double coherence = 0;  ///< mean score, 1 to 5; NaN when it was not judged
};

/// Indices of the points no other point beats or equals in both accuracy and behaviour while beating it in one, by
/// falling accuracy. Points with a NaN are never on it.
std::vector<std::size_t> pareto_front(std::span<const TradeoffPoint> points);

/// Area of [reference, accuracy] x [1, behaviour] that the points dominate together, as a share of the largest
/// possible: 0 when no arm is above the reference or shows anything, 1 for all right at score 5 (Zitzler and Thiele
/// 1998). A reference of 0 would count answers by chance as something gained. @throws Error(argument) unless 0 <=
/// reference < 1.
double hypervolume(std::span<const TradeoffPoint> points, double reference);

struct TradeoffOptions {
  double accuracy_loss = 0.02;           ///< what may be lost against the baseline, as a share: 2 points
  double coherence = 4;                  ///< what must be kept
  double level = 0.95;                   ///< of bounds and intervals
  std::optional<double> reference = {};  ///< accuracy hypervolume begins at, e.g. chance; none: the baseline's - 0.1
  BootstrapOptions bootstrap{.draws = 2000};  ///< of hypervolume; its seed also halves the questions
};

/// The most behaviour that can be had under a limit, by an arm chosen on one half of the questions and measured on the
/// other, both ways: the largest of several gains is too large on the questions it was chosen by.
struct BestGain {
  std::string arm;                          ///< chosen by all questions; empty when no arm keeps the limit and gains
  std::array<std::string, 2> by_half = {};  ///< chosen by either half
  double gain = 0;                          ///< behaviour over the baseline's, on the questions that did not choose
  Interval interval;                        ///< Student, by question
};

/// One behaviour's trade-off, or that over all of them, on the questions that every arm in it answered.
struct Tradeoff {
  std::string behaviour;  ///< empty: all
  std::int64_t questions = 0;
  std::vector<TradeoffPoint> points;
  std::vector<std::size_t> front;
  double reference = 0;  ///< of hypervolume
  double hypervolume = 0;
  Interval hypervolume_interval;  ///< bootstrap over questions
  std::vector<std::string>
      within_limit;          ///< arms whose loss is bounded by `accuracy_loss`: loss_test, Holm over the arms
  std::string safest;        ///< the arm with the smallest bound of its loss
  double safest_bound = 1;   ///< that bound, by itself
  BestGain within_accuracy;  ///< among the arms of `within_limit`
  BestGain within_accuracy_and_coherence;  ///< and whose coherence is `coherence` or more by its lower bound
};

/// The trade-off of every behaviour found in the results, then (last) of all together. Arms without behaviour scores
/// are left out, and so are arms that answered fewer than 80 % of the baseline's questions.
/// @param baseline  the arm gains and losses are measured against. @throws Error(argument) if the results have none.
std::vector<Tradeoff> tradeoffs(std::span<const ResultRow> results, const std::string& baseline,
                                const TradeoffOptions& options = {});

}  // namespace steer
