#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <steer/stats/statistics.hpp>

namespace steer {

/// Several draws of one method (searches with other seeds), each measured on the same questions: the spread between
/// draws is no luck of the questions, and an interval of what the *method* does must hold both. Two-way analysis of
/// variance with both ways random (crossed), one value a cell. Behaviours crossed with questions are the same case:
/// each behaviour is then a draw from those one might ask for.
struct DrawSpread {
  std::int64_t draws = 0, questions = 0;
  double mean = 0;
  std::vector<double> by_draw;  ///< mean of each draw
  double between_sd = 0;        ///< of draws, beyond what questions and the rest explain; 0 where the estimate is below
  Interval interval;  ///< of the mean over draws and questions: Student's, degrees of freedom by Satterthwaite
};

/// @param effects  [draws][questions]. @throws Error(shape) for draws of different lengths, Error(argument) for fewer
///                 than 2 draws or 2 questions, values not finite or a level outside (0, 1).
DrawSpread draw_spread(std::span<const std::vector<double>> effects, double level = 0.95);

}  // namespace steer
