#include <steer/stats/simultaneous.hpp>

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <map>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>

#include "stats/level.hpp"

namespace steer {
namespace {

/// A comparison's deviations from its mean, summed by question.
struct Deviations {
  std::vector<std::pair<std::size_t, double>> questions;  // number, sum
  double squares = 0;
};

Deviations deviations_of(const ComparedRows& rows, std::map<std::int64_t, std::size_t>& numbers) {
  require(rows.differences.size() == rows.clusters.size(), ErrorCode::shape, "Simultaneous",
          "expected a cluster a row but got {} clusters for {} rows", rows.clusters.size(), rows.differences.size());
  double mean = 0;
  for (double d : rows.differences) {
    require(std::isfinite(d), ErrorCode::argument, "Simultaneous", "expected finite differences but got {}", d);
    mean += d / static_cast<double>(rows.differences.size());
  }
  std::map<std::size_t, double> sums;
  for (std::size_t i = 0; i < rows.differences.size(); ++i)
    sums[numbers.try_emplace(rows.clusters[i], numbers.size()).first->second] += rows.differences[i] - mean;
  Deviations result;
  for (const auto& entry : sums) {
    result.questions.push_back(entry);
    result.squares += entry.second * entry.second;
  }
  return result;
}

/// |t| of a draw's sum, studentised by the draw's own deviations.
double studentised(double sum, double squares, double groups) {
  const double rest = squares - sum * sum / groups;
  return rest > 0 ? std::abs(sum) * std::sqrt((groups - 1) / (groups * rest)) : INFINITY;
}

}  // namespace

Simultaneous::Simultaneous(std::span<const ComparedRows> comparisons, const SimultaneousOptions& options) {
  require(!comparisons.empty() && options.draws >= 1, ErrorCode::argument, "Simultaneous",
          "expected comparisons and at least one draw but got {} and {}", comparisons.size(), options.draws);
  std::map<std::int64_t, std::size_t> numbers;
  std::vector<Deviations> all;
  for (const auto& rows : comparisons) all.push_back(deviations_of(rows, numbers));
  Rng rng(derive_seed(options.seed, "simultaneous"));
  std::vector<double> signs(numbers.size());
  for (std::int64_t draw = 0; draw < options.draws; ++draw) {
    for (auto& sign : signs) sign = (rng() >> 63) ? 1 : -1;
    std::map<std::size_t, double> largest;  // |t| by number of questions: one p for each
    for (const auto& deviations : all) {
      if (deviations.questions.size() < 2 || deviations.squares == 0) continue;
      double sum = 0;
      for (const auto& [question, deviation] : deviations.questions) sum += signs[question] * deviation;
      double& most = largest[deviations.questions.size()];
      most = std::max(most, studentised(sum, deviations.squares, static_cast<double>(deviations.questions.size())));
    }
    double smallest = 1;
    for (const auto& [groups, t] : largest) {
      const boost::math::students_t student(static_cast<double>(groups - 1));
      smallest = std::min(smallest, std::isfinite(t) ? 2 * boost::math::cdf(boost::math::complement(student, t)) : 0.0);
    }
    smallest_.push_back(smallest);
  }
  std::sort(smallest_.begin(), smallest_.end());
}

double Simultaneous::adjusted_p(double p) const {
  const auto as_small = std::upper_bound(smallest_.begin(), smallest_.end(), p * (1 + 1e-9)) - smallest_.begin();
  return std::max(p, (1 + static_cast<double>(as_small)) / (1 + static_cast<double>(smallest_.size())));
}

double Simultaneous::adjusted_level(double level) const {
  stats::detail::require_level(level, "Simultaneous::adjusted_level");
  // The largest p whose adjusted p is 1 - level or less.
  const double allowed = (1 - level) * (1 + static_cast<double>(smallest_.size())) - 1;
  if (allowed < 0) return 1 - std::min(1 - level, smallest_.front() / 2);
  const auto index = std::min(static_cast<std::size_t>(allowed), smallest_.size() - 1);
  return std::max(level, 1 - std::min(smallest_[index], 1 - level));
}

}  // namespace steer
