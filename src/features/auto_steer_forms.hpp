#pragma once
// Steerings made of what a search found.

#include <span>
#include <vector>

#include <steer/features/auto_steer.hpp>

namespace steer::features::detail {

/// The nudge of several features whose strengths, in units of maximum activation, sum to `sum`, in proportion to how
/// much each moves the behaviour alone.
inline Steering nudge_all(const Sae& sae, std::span<const AutoSteerCandidate> features, double sum,
                          const Scope& scope) {
  double total = 0;
  for (const auto& feature : features) total += feature.output_score;
  Steering steering;
  for (const auto& feature : features)
    steering.nudge(sae, feature.feature, sum * feature.output_score / total,
                   {.scope = scope, .unit = StrengthUnit::max_activation, .max_activation = feature.max_activation});
  return steering;
}

inline std::vector<std::int64_t> indices(std::span<const AutoSteerCandidate> features) {
  std::vector<std::int64_t> all;
  for (const auto& feature : features) all.push_back(feature.feature);
  return all;
}

}  // namespace steer::features::detail
