#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <steer/stats/statistics.hpp>

namespace steer {

/// One comparison of two items.
struct PairOutcome {
  std::int64_t first = 0, second = 0;  ///< items, from 0
  double share = 0.5;                  ///< of the win that goes to `first`: 1, 0, or between for a judge that doubts
};

/// How strong one item is, in logits above the reference: it beats the reference with probability 1 / (1 + exp(-log)).
struct BradleyTerryStrength {
  double log = 0;
  double se = 0;      ///< clustered; NaN where it cannot be had
  Interval interval;  ///< Student with (clusters - 1) degrees of freedom
  std::int64_t matches = 0;
};

/// Strengths of items that were compared in pairs (Bradley and Terry 1952), by maximum likelihood with shares as
/// fractional wins. Standard errors are clustered (sandwich, G / (G - 1)): matches on one question are alike. Each item
/// gets half a win and half a loss against the reference's strength beforehand where it won, or lost, everything: its
/// maximum would lie at infinity. Items that no chain of matches joins to the reference have NaN.
/// @param clusters  of each match, any numbering; empty: each its own.
/// @throws Error(argument) for fewer than two items, an index out of range, an item against itself, a share outside
///         [0, 1] or a level outside (0, 1); Error(shape) if the lengths differ.
std::vector<BradleyTerryStrength> bradley_terry(std::int64_t items, std::span<const PairOutcome> matches,
                                                std::span<const std::int64_t> clusters = {}, std::int64_t reference = 0,
                                                double level = 0.95);

}  // namespace steer
