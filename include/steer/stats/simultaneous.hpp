#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace steer {

/// One of several comparisons on the same questions: the differences of its rows and the question of each.
struct ComparedRows {
  std::vector<double> differences;
  std::vector<std::int64_t> clusters;  ///< questions, numbered alike in all comparisons
};

struct SimultaneousOptions {
  std::int64_t draws = 10000;
  std::uint64_t seed = 42;
};

/// How small the smallest p-value of several comparisons gets when none of them differs: what whoever reads the largest
/// of several effects must allow for (max-t, Westfall and Young 1993). The signs of whole questions' deviations are
/// drawn anew, the same in all comparisons, so that what they have in common is kept; every draw is studentised and its
/// smallest clustered p taken. It adjusts p-values, and the level at which intervals must be made, by one rule,
/// whatever test made them.
class Simultaneous {
 public:
  /// @throws Error(argument) for no comparisons, draws < 1 or values that are not finite, Error(shape) where rows and
  ///         clusters differ in number.
  explicit Simultaneous(std::span<const ComparedRows> comparisons, const SimultaneousOptions& options = {});
  /// The chance of a p as small anywhere in the family; never below p.
  double adjusted_p(double p) const;
  /// Intervals made at this level cover all together at `level`; never below it. @throws Error(argument) for a level
  /// outside (0, 1).
  double adjusted_level(double level) const;

 private:
  std::vector<double> smallest_;  // p of each draw, rising
};

}  // namespace steer
