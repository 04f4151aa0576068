#pragma once
// `steering_effect` and `calibrate_strengths` for who measures many steerings on the same texts.

#include <span>
#include <vector>

#include <steer/features/strength.hpp>

#include "generate/divergence.hpp"

namespace steer::features::detail {

class EffectMeter {
 public:
  /// @throws as `steering_effect`.
  EffectMeter(const Model& model, std::span<const TokenizedText> texts, double quantile);
  SteeringEffect of(const Steering& steering);

 private:
  double quantile_;
  generation::detail::DivergenceMeter meter_;
};

/// On the meter's texts and at its quantile, not those of `options`.
std::vector<CalibratedStrength> calibrate_strengths(EffectMeter& meter, const Steering& steering,
                                                    std::span<const double> targets, const StrengthOptions& options);

}  // namespace steer::features::detail
