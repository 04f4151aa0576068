#pragma once
// `divergence_from_unsteered` in two halves, for those who compare many steerings on the same texts: the unsteered half
// is then computed once.

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include <steer/generate/score.hpp>

namespace steer::generation::detail {

/// Logits that predict each token of the texts' tails, of each text [tail, vocab] f32.
using TailLogits = std::vector<at::Tensor>;

TailLogits unsteered_logits(const Model& model, std::span<const ScoreRequest> requests);
std::vector<TextDivergence> divergence_from(const TailLogits& unsteered, const Model& model,
                                            std::span<const ScoreRequest> requests);

}  // namespace steer::generation::detail
