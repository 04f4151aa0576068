#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include <steer/stats/statistics.hpp>

namespace steer {

/// The best of several candidates, without the luck of having been chosen: chosen by the mean on one half of the
/// questions, measured on the other, both ways.
struct CrossFit {
  std::int64_t chosen = -1;                     ///< by all questions; -1: no candidate has a mean above 0
  std::array<std::int64_t, 2> by_half{-1, -1};  ///< what either half of the questions chose
  double estimate = 0;  ///< mean over all questions of the effect of what the other half chose, 0 where it chose none
  Interval interval;    ///< Student's; NaN for fewer than 4 questions
};

/// @param effects  [candidates][questions]: what each candidate gains at each question.
/// @param seed     draws the halves. @throws Error(shape) for candidates of different lengths, Error(argument) for
///                 values not finite or a level outside (0, 1).
CrossFit cross_fit(std::span<const std::vector<double>> effects, std::uint64_t seed, double level = 0.95);

}  // namespace steer
