#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <steer/features/activations.hpp>
#include <steer/model/model.hpp>
#include <steer/steering/steering.hpp>

namespace steer {

/// How much a steering changes next-token distributions: KL(p unsteered || p steered), nats a token.
struct SteeringEffect {
  double quantile = 0;                  ///< of the tokens' KL: by default the 95th percentile
  double mean = 0;                      ///< of the tokens' KL
  std::int64_t tokens = 0;              ///< measured
  std::vector<std::string> warnings{};  ///< what a person should know of the steering
};

/// A few short exchanges of this project's own, on everyday subjects and in no particular style, as ids in the model's
/// chat format (texts alone for a model without one): the reply's tokens count. Where an edit of `steering` acts inside
/// a tag, the reply stands in that tag.
/// @throws Error(config) for a model without a tokenizer.
std::vector<TokenizedText> neutral_texts(const Model& model, const Steering& steering = {});

/// The effect of a steering on texts: their tokens that count are taken as generated, what precedes as prompt. The
/// quantile interpolates between order statistics (type 7 of Hyndman and Fan 1996, NumPy's default).
/// @throws Error(argument) for no texts, a quantile outside (0, 1], or a text or steering that `score_texts`
/// refuses, among them one so strong that logits are no numbers.
SteeringEffect steering_effect(const Model& model, const Steering& steering, std::span<const TokenizedText> texts,
                               double quantile = 0.95);

struct StrengthOptions {
  std::vector<TokenizedText> texts{};  ///< the model's own unsteered answers are best; empty: `neutral_texts`
  double quantile = 0.95;              ///< of the tokens' KL
  double tolerance = 0.05;             ///< relative, of the KL reached
  double max_factor = 4096;            ///< the strength given is multiplied by at most this much
  std::int64_t max_measured = 32;      ///< strengths measured, at most
};

/// A steering brought to a wanted effect.
struct CalibratedStrength {
  Steering steering;  ///< the one given, every strength multiplied by `factor`
  double factor = 0;
  double kl = 0;              ///< the quantile of its tokens' KL, nats
  bool reached = false;       ///< within the tolerance; if not, `steering` is the strongest one found below the target
  std::int64_t measured = 0;  ///< strengths tried
  std::string reason;         ///< one sentence: what was reached, or why the target is out of reach
};

/// Strength by effect, not by guess: multiplies a steering's strengths until the quantile of next-token KL on neutral
/// texts reaches `target` nats (0.03 is hardly noticed, 1 is a different text). Two steerings brought to one target
/// disturb the model equally, whatever their directions: what placebos and comparisons of methods need. Bracketed from
/// below by false position in log KL over log strength with bisection in between, so the target lies between two
/// strengths that were measured. Cost: a pass over the texts a strength, and one without steering (one a strength where
/// its logits take more than 512 MB).
/// @throws Error(argument) for a steering without edits, a target that is not positive, options out of range; as
/// `steering_effect`.
CalibratedStrength calibrate_strength(const Model& model, const Steering& steering, double target,
                                      const StrengthOptions& options = {});

/// The same for several targets: what was measured for one narrows the search for the next, so that a ladder of
/// strengths costs little more than one. One result a target, in their order. @throws as above.
std::vector<CalibratedStrength> calibrate_strengths(const Model& model, const Steering& steering,
                                                    std::span<const double> targets,
                                                    const StrengthOptions& options = {});

}  // namespace steer
