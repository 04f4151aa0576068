#include <steer/eval/tradeoff.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include <steer/core/error.hpp>
#include <steer/stats/betting.hpp>
#include <steer/stats/cross_fit.hpp>
#include <steer/stats/paired_proportions.hpp>

namespace steer {
namespace {

constexpr double kLowestScore = 1, kHighestScore = 5;
constexpr double kCoverage = 0.8;       // share of the baseline's questions an arm must have answered
constexpr double kBelowBaseline = 0.1;  // where hypervolume begins, unless told
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

/// Only questions that every arm answered, so that all points are of equal questions.
void keep_common(std::vector<ArmSums>& arms, std::size_t questions) {
  std::vector<std::size_t> kept;
  for (std::size_t q = 0; q < questions; ++q)
    if (std::all_of(arms.begin(), arms.end(), [&](const ArmSums& arm) { return arm.questions[q].judged > 0; }))
      kept.push_back(q);
  for (auto& arm : arms) {
    std::vector<Sums> some;
    for (auto q : kept) some.push_back(arm.questions[q]);
    arm.questions = std::move(some);
  }
}

/// The loss of an arm against the baseline, by question; exact where each has one row.
LossTest loss_of(const ArmSums& base, const ArmSums& arm, const TradeoffOptions& options) {
  std::vector<double> rows, losses;
  bool single = true;
  for (std::size_t q = 0; q < base.questions.size(); ++q) {
    const Sums &a = base.questions[q], &b = arm.questions[q];
    if (a.rows == 0 || b.rows == 0) continue;
    single = single && a.rows == 1 && b.rows == 1;
    losses.push_back(a.hits / a.rows - b.hits / b.rows);
  }
  if (losses.empty()) return {};
  if (single) {
    for (double loss : losses) rows.push_back(-loss);
    return loss_test(rows, {}, options.accuracy_loss, options.level);
  }
  return {betting_p(losses, options.accuracy_loss), betting_upper_bound(losses, options.level)};
}

/// The lower bound of an arm's mean coherence is the limit or more.
bool coherent(const ArmSums& arm, const TradeoffOptions& options) {
  std::vector<double> means;
  for (const auto& q : arm.questions)
    if (q.cohered > 0) means.push_back(q.coherence / q.cohered);
  if (means.size() < 2) return false;
  return clustered_mean(means, {}, 2 * options.level - 1).interval.low >= options.coherence;
}

BestGain best_gain(const std::vector<ArmSums>& arms, std::size_t baseline, const std::vector<std::size_t>& allowed,
                   const TradeoffOptions& options) {
  std::vector<std::vector<double>> effects;
  for (auto i : allowed) {
    std::vector<double> gains;
    for (std::size_t q = 0; q < arms[i].questions.size(); ++q) {
      const Sums &a = arms[baseline].questions[q], &b = arms[i].questions[q];
      gains.push_back(b.behaviour / b.judged - a.behaviour / a.judged);
    }
    effects.push_back(std::move(gains));
  }
  const CrossFit fit = cross_fit(effects, options.bootstrap.seed, options.level);
  const auto name = [&](std::int64_t chosen) {
    return chosen < 0 ? std::string() : arms[allowed[static_cast<std::size_t>(chosen)]].arm;
  };
  return {name(fit.chosen), {name(fit.by_half[0]), name(fit.by_half[1])}, fit.estimate, fit.interval};
}

/// Which arms keep the limits, and what the best of them gains.
void add_gains(Tradeoff& tradeoff, const std::vector<ArmSums>& arms, std::size_t baseline,
               const TradeoffOptions& options) {
  std::vector<std::size_t> others;
  std::vector<double> p;
  for (std::size_t i = 0; i < arms.size(); ++i) {
    if (i == baseline) continue;
    const LossTest loss = loss_of(arms[baseline], arms[i], options);
    others.push_back(i);
    p.push_back(loss.p);
    if (tradeoff.safest.empty() || loss.upper < tradeoff.safest_bound) {
      tradeoff.safest = arms[i].arm;
      tradeoff.safest_bound = loss.upper;
    }
  }
  const auto adjusted = holm(p);
  std::vector<std::size_t> safe, safe_and_coherent;
  for (std::size_t i = 0; i < others.size(); ++i) {
    if (adjusted[i] > 1 - options.level) continue;
    safe.push_back(others[i]);
    tradeoff.within_limit.push_back(arms[others[i]].arm);
    if (coherent(arms[others[i]], options)) safe_and_coherent.push_back(others[i]);
  }
  tradeoff.within_accuracy = best_gain(arms, baseline, safe, options);
  tradeoff.within_accuracy_and_coherence = best_gain(arms, baseline, safe_and_coherent, options);
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

double hypervolume(std::span<const TradeoffPoint> points, double reference) {
  require(reference >= 0 && reference < 1, ErrorCode::argument, "hypervolume",
          "expected a reference accuracy from 0 to below 1 but got {}", reference);
  // The front by falling accuracy and rising behaviour: each point adds the strip above the one before.
  double area = 0, below = kLowestScore;
  for (auto i : pareto_front(points)) {
    const double behaviour = std::clamp(points[i].behaviour, kLowestScore, kHighestScore);
    area += std::max(0.0, points[i].accuracy - reference) * std::max(0.0, behaviour - below);
    below = std::max(below, behaviour);
  }
  return area / (kHighestScore - kLowestScore) / (1 - reference);
}

std::vector<Tradeoff> tradeoffs(std::span<const ResultRow> results, const std::string& baseline,
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
    keep_common(sums, questions.size());
    Tradeoff tradeoff;
    tradeoff.behaviour = behaviour;
    tradeoff.questions = sums.empty() ? 0 : static_cast<std::int64_t>(sums.front().questions.size());
    if (tradeoff.questions == 0) sums.clear();
    tradeoff.points = points_of(sums, {});
    tradeoff.front = pareto_front(tradeoff.points);
    const auto base = std::find_if(sums.begin(), sums.end(), [&](const ArmSums& s) { return s.arm == baseline; });
    if (base == sums.end()) {  // nothing was judged under it
      all.push_back(std::move(tradeoff));
      continue;
    }
    const auto baseline_index = static_cast<std::size_t>(base - sums.begin());
    const double accuracy = tradeoff.points[baseline_index].accuracy;
    tradeoff.reference =
        options.reference.value_or(std::isnan(accuracy) ? 0 : std::max(0.0, accuracy - kBelowBaseline));
    tradeoff.hypervolume = hypervolume(tradeoff.points, tradeoff.reference);
    auto areas = bootstrap_draws(
        tradeoff.questions,
        [&](std::span<const std::int32_t> weights) {
          return hypervolume(points_of(sums, weights), tradeoff.reference);
        },
        options.bootstrap);
    tradeoff.hypervolume_interval = percentile_interval(std::move(areas), options.level);
    add_gains(tradeoff, sums, baseline_index, options);
    all.push_back(std::move(tradeoff));
  }
  return all;
}

}  // namespace steer
