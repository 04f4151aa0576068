#include <steer/eval/tradeoff.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include <steer/core/error.hpp>

namespace steer {
namespace {

constexpr double kLowestScore = 1, kHighestScore = 5;
constexpr double kCoverage = 0.8;  // share of the baseline's questions an arm must have answered
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// Sums over the rows of one arm and question.
struct Sums {
  double hits = 0, rows = 0, behaviour = 0, judged = 0, coherence = 0, cohered = 0;
};

/// One arm's sums by question.
struct ArmSums {
  std::string arm;
  std::vector<Sums> questions;
};

/// Arms that answered a part of the questions (sweeps) have means over other questions than the baseline's.
void leave_out_partial(std::vector<ArmSums>& arms, const std::string& baseline) {
  const auto answered = [](const ArmSums& arm) {
    return std::count_if(arm.questions.begin(), arm.questions.end(), [](const Sums& s) { return s.judged > 0; });
  };
  const auto base = std::find_if(arms.begin(), arms.end(), [&](const ArmSums& arm) { return arm.arm == baseline; });
  if (base == arms.end()) return;
  const double least = kCoverage * static_cast<double>(answered(*base));
  std::erase_if(arms, [&](const ArmSums& arm) { return static_cast<double>(answered(arm)) < least; });
}

TradeoffPoint point_of(const ArmSums& arm, std::span<const std::int32_t> weights) {
  Sums total;
  for (std::size_t q = 0; q < arm.questions.size(); ++q) {
    const double w = weights.empty() ? 1 : weights[q];
    const Sums& sums = arm.questions[q];
    total.hits += w * sums.hits;
    total.rows += w * sums.rows;
    total.behaviour += w * sums.behaviour;
    total.judged += w * sums.judged;
    total.coherence += w * sums.coherence;
    total.cohered += w * sums.cohered;
  }
  const auto mean = [](double sum, double n) { return n > 0 ? sum / n : kNaN; };
  return {arm.arm, mean(total.hits, total.rows), mean(total.behaviour, total.judged),
          mean(total.coherence, total.cohered)};
}

std::vector<TradeoffPoint> points_of(const std::vector<ArmSums>& arms, std::span<const std::int32_t> weights) {
  std::vector<TradeoffPoint> points;
  for (const auto& arm : arms) points.push_back(point_of(arm, weights));
  return points;
}

/// The baseline itself keeps every limit at gain 0.
std::pair<double, std::size_t> best_gain(std::span<const TradeoffPoint> points, std::size_t baseline,
                                         const TradeoffOptions& options, bool coherent) {
  const TradeoffPoint& base = points[baseline];
  std::pair<double, std::size_t> best{0, baseline};
  for (std::size_t i = 0; i < points.size(); ++i) {
    const TradeoffPoint& p = points[i];
    if (!(base.accuracy - p.accuracy <= options.accuracy_loss + 1e-12)) continue;
    if (coherent && !(p.coherence >= options.coherence)) continue;
    if (p.behaviour - base.behaviour > best.first) best = {p.behaviour - base.behaviour, i};
  }
  return best;
}

}  // namespace

std::vector<std::size_t> pareto_front(std::span<const TradeoffPoint> points) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < points.size(); ++i)
    if (!std::isnan(points[i].accuracy) && !std::isnan(points[i].behaviour)) order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
    if (points[a].accuracy != points[b].accuracy) return points[a].accuracy > points[b].accuracy;
    return points[a].behaviour > points[b].behaviour;
  });
  std::vector<std::size_t> front;
  for (auto i : order)
    if (front.empty() || points[i].behaviour > points[front.back()].behaviour) front.push_back(i);
  return front;
}

double hypervolume(std::span<const TradeoffPoint> points) {
  // The front by falling accuracy and rising behaviour: each point adds the strip above the one before.
  double area = 0, below = kLowestScore;
  for (auto i : pareto_front(points)) {
    const double behaviour = std::clamp(points[i].behaviour, kLowestScore, kHighestScore);
    area += std::max(0.0, points[i].accuracy) * std::max(0.0, behaviour - below);
    below = std::max(below, behaviour);
  }
  return area / (kHighestScore - kLowestScore);
}

std::vector<Tradeoff> tradeoffs(std::span<const Result> results, const std::string& baseline,
                                const TradeoffOptions& options) {
  std::vector<std::string> arms, behaviours;
  std::map<std::string, std::size_t> questions;
  for (const auto& result : results) {
    if (std::find(arms.begin(), arms.end(), result.arm) == arms.end()) arms.push_back(result.arm);
    if (std::find(behaviours.begin(), behaviours.end(), result.behaviour) == behaviours.end())
      behaviours.push_back(result.behaviour);
    questions.try_emplace(result.question, questions.size());
  }
  require(std::find(arms.begin(), arms.end(), baseline) != arms.end(), ErrorCode::argument, "tradeoffs",
          "expected rows of the baseline arm \"{}\" but got none among {} rows", baseline, results.size());
  behaviours.emplace_back();  // all

  std::vector<Tradeoff> all;
  for (const auto& behaviour : behaviours) {
    std::vector<ArmSums> sums;
    for (const auto& arm : arms) {
      ArmSums of{arm, std::vector<Sums>(questions.size())};
      double judged = 0;
      for (const auto& result : results) {
        if (result.arm != arm || (!behaviour.empty() && result.behaviour != behaviour)) continue;
        Sums& s = of.questions[questions.at(result.question)];
        if (!result.gold.empty()) {
          s.hits += result.correct();
          s.rows += 1;
        }
        if (const auto score = result.scores.find("behaviour"); score != result.scores.end()) {
          s.behaviour += score->second;
          s.judged += 1;
          ++judged;
        }
        if (const auto score = result.scores.find("coherence"); score != result.scores.end()) {
          s.coherence += score->second;
          s.cohered += 1;
        }
      }
      if (judged > 0) sums.push_back(std::move(of));
    }
    leave_out_partial(sums, baseline);
    Tradeoff tradeoff;
    tradeoff.behaviour = behaviour;
    tradeoff.points = points_of(sums, {});
    tradeoff.front = pareto_front(tradeoff.points);
    tradeoff.hypervolume = hypervolume(tradeoff.points);
    const auto base = std::find_if(sums.begin(), sums.end(), [&](const ArmSums& s) { return s.arm == baseline; });
    if (base == sums.end()) {  // nothing was judged under it
      all.push_back(std::move(tradeoff));
      continue;
    }
    const auto baseline_index = static_cast<std::size_t>(base - sums.begin());
    std::vector<double> gains, coherent_gains;
    auto areas = bootstrap_draws(
        static_cast<std::int64_t>(questions.size()),
        [&](std::span<const std::int32_t> weights) {
          const auto points = points_of(sums, weights);
          gains.push_back(best_gain(points, baseline_index, options, false).first);
          coherent_gains.push_back(best_gain(points, baseline_index, options, true).first);
          return hypervolume(points);
        },
        options.bootstrap);
    tradeoff.hypervolume_interval = percentile_interval(std::move(areas), options.bootstrap.level);
    const auto summarise = [&](bool coherent, std::vector<double> draws) {
      const auto [gain, index] = best_gain(tradeoff.points, baseline_index, options, coherent);
      return BestGain{index == baseline_index ? "" : tradeoff.points[index].arm, gain,
                      percentile_interval(std::move(draws), options.bootstrap.level)};
    };
    tradeoff.within_accuracy = summarise(false, std::move(gains));
    tradeoff.within_accuracy_and_coherence = summarise(true, std::move(coherent_gains));
    all.push_back(std::move(tradeoff));
  }
  return all;
}

}  // namespace steer
