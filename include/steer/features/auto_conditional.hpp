#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <vector>

#include <steer/features/activations.hpp>
#include <steer/features/contrast.hpp>
#include <steer/steering/condition.hpp>

namespace steer {

/// One threshold of a detector on text it was not fitted to.
struct RocPoint {
  double threshold = 0;
  double true_positive = 0, false_positive = 0;  ///< rates
};

struct AutoConditionalOptions {
  std::int64_t candidates = 20;      ///< features tried, the best by contrast on the fitting half
  double max_false_positive = 0.05;  ///< the threshold is the lowest that keeps to this on the fitting half
  std::uint64_t seed = 0;            ///< draws the halves
};

/// A condition "the text is about X", and how well it holds.
struct AutoConditional {
  Condition condition;      ///< feature > threshold, sticky: once seen it holds for the rest of the text
  FeatureContrast feature;  ///< on the fitting half
  double threshold = 0;
  double auroc = 0.5;                            ///< on the held-out half, of the feature's maximum over a text
  double true_positive = 0, false_positive = 0;  ///< rates at the threshold on the held-out half
  std::vector<RocPoint> roc;                     ///< held-out half, from the strictest threshold down
  std::int64_t held_out_positive = 0, held_out_negative = 0;
  nlohmann::json to_json() const;
};

/// Finds the feature whose appearance in a text best tells texts about a subject ("when the user asks about X") from
/// others, sets its threshold on one half of the texts and measures it on the other.
/// @param about, other  at least 4 texts each; the tokens that count are those a running model would have seen.
/// @throws Error(argument) for too few texts, or when no feature does better than chance on the fitting half (the
///         message gives the best one's AUROC); as `visit_activations`.
AutoConditional auto_conditional(Session& session, const Sae& sae, std::span<const TokenizedText> about,
                                 std::span<const TokenizedText> other, const AutoConditionalOptions& options = {});

}  // namespace steer
