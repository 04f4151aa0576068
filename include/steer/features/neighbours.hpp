#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <steer/features/activations.hpp>
#include <steer/sae/sae.hpp>

namespace steer {

/// A feature near another one.
struct FeatureNeighbour {
  std::int64_t feature = 0;
  double similarity = 0;  ///< in [-1, 1]
};

/// Features whose decoder rows point most nearly the same way: what writes the same direction. Cosine, the feature
/// itself left out, best first; reads every decoder row once. @throws Error(argument) for a feature outside the SAE or
/// `top` < 1.
std::vector<FeatureNeighbour> neighbours_by_decoder(const Sae& sae, std::int64_t feature, std::int64_t top = 10);

/// Features active on the same tokens of some texts: the phi coefficient of "active" over all tokens that count.
/// @throws Error(argument) as above, or when the feature is active on none or all of the tokens; as
/// `visit_activations`.
std::vector<FeatureNeighbour> neighbours_by_coactivation(Session& session, const Sae& sae, std::int64_t feature,
                                                         std::span<const TokenizedText> texts, std::int64_t top = 10);

}  // namespace steer
