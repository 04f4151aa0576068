#pragma once

#include <cstdint>
#include <span>

#include <steer/stats/statistics.hpp>

namespace steer {

/// The exact one-sided upper bound of a proportion (Clopper and Pearson 1934): the largest that would show `hits` or
/// fewer of n with probability 1 - level. 1 - (1 - level)^(1/n) for no hits; 1 for n = 0 or hits = n.
/// @throws Error(argument) unless 0 <= hits <= n and 0 < level < 1.
double proportion_upper_bound(std::int64_t hits, std::int64_t n, double level = 0.95);

/// A share of rows of which several belong to one question.
struct ClusteredProportion {
  std::int64_t hits = 0, n = 0, clusters = 0;
  double value = 0;          ///< hits / n; NaN without rows
  double design_effect = 1;  ///< variance over that of n independent rows; rows of one question being alike, above 1
  double effective_n = 0;    ///< n / design_effect: independent rows that would say as much
  Interval interval;
};

/// Wilson's interval with the effective number of rows (Korn and Graubard 1998): of n rows, what the clustered error
/// leaves of them, adjusted for Student's distribution. Where the rows of every question agree (one row each; copies;
/// all hit; none does) the questions are counted: Wilson's own interval of them.
/// @param clusters  the question of each row, any numbering; empty: each row its own.
/// @throws Error(shape) if the lengths differ, Error(argument) for a level outside (0, 1).
ClusteredProportion clustered_proportion(std::span<const std::uint8_t> hits, std::span<const std::int64_t> clusters,
                                         double level = 0.95);

}  // namespace steer
