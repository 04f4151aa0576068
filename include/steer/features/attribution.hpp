#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <steer/features/inspect.hpp>
#include <steer/model/session.hpp>
#include <steer/sae/sae.hpp>

namespace steer {

/// A scalar (0-d tensor) of the logits [tokens, vocab] of a text; differentiable for `attribute_features`.
using LogitMetric = std::function<at::Tensor(const at::Tensor& logits)>;

/// logit[a] - logit[b] after the last token.
LogitMetric logit_difference(std::int64_t a, std::int64_t b);
/// log p(ids[begin..end) | what precedes), of a text whose tokens are `ids`.
/// @throws Error(argument) for a range that is empty or starts at 0, where nothing precedes.
LogitMetric sequence_log_probability(std::vector<std::int64_t> ids, std::int64_t begin, std::int64_t end);

/// What each feature contributes to a metric, to first order.
struct Attribution {
  double metric = 0;    ///< of the unedited run
  at::Tensor effect;    ///< [d_sae], f32: gradient x activation, summed over tokens
  at::Tensor gradient;  ///< [tokens, d_in], f32: of the metric to the activation at the hook point
};

/// Gradient x activation: effect_i = sum over tokens of f_i (g . d_i), with f_i the feature's activation, d_i its
/// decoder row and g the metric's gradient: how much the metric would fall, to first order, if the feature were
/// ablated. (Attribution patching, Nanda 2023; for SAE features Marks et al. 2024, arXiv:2403.19647.) Position 0 is
/// left out.
/// @param ids  the text; the metric sees the logits of all its tokens, [tokens, vocab].
/// @throws Error(argument) for an empty text or a metric that is no finite scalar; as `sae_point`.
Attribution attribute_features(Session& session, const Sae& sae, std::span<const std::int64_t> ids,
                               const LogitMetric& metric);

/// The true effect: metric(unedited) - metric(feature ablated at every token but the first), for each feature
/// [features], f32. One forward pass above the hook point each. @throws as `attribute_features`.
at::Tensor ablation_effects(Session& session, const Sae& sae, std::span<const std::int64_t> features,
                            std::span<const std::int64_t> ids, const LogitMetric& metric);

/// A token and what a feature does to it.
struct TokenEffect {
  std::int64_t token = 0;
  double effect = 0;
};

/// What a feature's direction says through the unembedding, ignoring the layers between (the logit lens).
struct LogitEffects {
  std::vector<TokenEffect> promoted, suppressed;  ///< by size; effect in logits per unit of activation, mean removed
};

/// Through final-norm gain and unembedding: W_U (gain * d_i). The final norm's scale is unknown without an activation,
/// so only the order and the ratios mean something. @throws Error(argument) for a feature outside the SAE or `top` < 1.
LogitEffects logit_effects(const Model& model, const Sae& sae, std::int64_t feature, std::int64_t top = 10);

/// By intervention: how much more likely the feature's `top` promoted tokens become after the prompts when the feature
/// is nudged by `strength` (raw) on all their tokens: mean change of the logarithm of their probabilities' sum, nats.
/// High for features that act on the output, low for ones that only read the input (idea: Arad et al. 2025,
/// arXiv:2505.20063). @throws Error(argument) for no prompts; as `logit_effects`.
double output_score(Session& session, const Sae& sae, std::int64_t feature, double strength,
                    std::span<const std::vector<std::int64_t>> prompts, std::int64_t top = 10);

/// Of candidate features those that act on the output: the `keep` of highest `output_score` above 0, best first. What
/// tells two kinds of text apart often only reads the input; steering with such features costs as much and moves
/// little (Arad et al. 2025, arXiv:2505.20063).
/// @param candidates  features, and how hard each is nudged to find out (raw; e.g. a multiple of its maximum
///                    activation).
/// @throws Error(argument) for no prompts or `keep` < 1; as `output_score`.
std::vector<FeatureValue> filter_by_output_score(Session& session, const Sae& sae,
                                                 std::span<const FeatureValue> candidates,
                                                 std::span<const std::vector<std::int64_t>> prompts,
                                                 std::int64_t keep = 3);

}  // namespace steer
