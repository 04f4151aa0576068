#pragma once

#include <cstdint>
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

/// Area of [0, accuracy] x [1, behaviour] that the points dominate together, as a share of the largest possible: 0 when
/// nothing is ever right or shown, 1 for all right at score 5 (Zitzler and Thiele 1998).
double hypervolume(std::span<const TradeoffPoint> points);

struct TradeoffOptions {
  double accuracy_loss = 0.02;  ///< what may be lost against the baseline, as a share: 2 points
  double coherence = 4;         ///< what must be kept
  BootstrapOptions bootstrap{.draws = 2000};
};

/// The most behaviour that can be had under a limit.
struct BestGain {
  std::string arm;    ///< empty when only the baseline keeps the limit
  double gain = 0;    ///< behaviour over the baseline's
  Interval interval;  ///< bootstrap over questions; the choice of the arm is part of every draw
};

/// One behaviour's trade-off, or that over all of them.
struct Tradeoff {
  std::string behaviour;  ///< empty: all
  std::vector<TradeoffPoint> points;
  std::vector<std::size_t> front;
  double hypervolume = 0;
  Interval hypervolume_interval;
  BestGain within_accuracy;                ///< losing at most `accuracy_loss`
  BestGain within_accuracy_and_coherence;  ///< and at coherence of at least `coherence`
};

/// The trade-off of every behaviour found in the results, then (last) of all together. Arms without behaviour scores
/// are left out, and so are arms that answered fewer than 80 % of the baseline's questions. Intervals come from one
/// bootstrap over questions, so that all arms see the same draws.
/// @param baseline  the arm gains and losses are measured against. @throws Error(argument) if the results have none.
std::vector<Tradeoff> tradeoffs(std::span<const Result> results, const std::string& baseline,
                                const TradeoffOptions& options = {});

}  // namespace steer
