#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include <steer/core/progress.hpp>
#include <steer/features/activations.hpp>
#include <steer/model/session.hpp>

namespace steer {

struct VectorTraining {
  double max_kl = 0.1;            ///< bound on the mean KL(p unsteered || p steered) of the neutral texts, nats a token
  std::int64_t steps = 150;       ///< of Adam
  std::int64_t texts_a_step = 4;  ///< of each kind
  double learning_rate = 0.01;    ///< length of a step as a share of the activations' mean norm
  double multiplier_rate = 0.1;   ///< how fast the bound's multiplier rises while it is broken
  at::Tensor start = {};          ///< [width], where to start; undefined: at 0
  std::uint64_t seed = 0;         ///< draws the texts of a step
  Progress progress{};            ///< counts steps
};

/// A vector that was trained, and what it does on all texts it was trained on.
struct TrainedVector {
  at::Tensor vector;      ///< [width], f32 on the CPU: `Steering::add(vector, point, 1, {.scope = {Where::generated}})`
  double nll_before = 0;  ///< of the wanted answers without it, nats a token
  double nll_after = 0;   ///< with it
  double kl = 0;          ///< mean over the neutral texts' tokens; at most max_kl
  double multiplier = 0;  ///< of the bound at the end: how much the NLL would fall for a bound looser by 100 %
};

/// A steering vector by gradient: min over v of -E log p_v(answer | prompt) under the bound E KL <= max_kl on neutral
/// texts, by Adam on v and dual ascent on the bound's multiplier; at the end v is shortened until the bound holds on
/// all neutral texts. v is added to every generated token's activation; gradients run through the layers above the
/// point only. (Steering vectors by optimisation: Subramani et al. 2022, arXiv:2205.05124; Dunefsky and Cohan 2025,
/// arXiv:2502.18862. The bound and its dual are this project's.)
/// @param answers  wanted answers after plain prompts: [begin, end) is the answer. Answers that the model gave when it
///                 was asked for the behaviour, set after prompts that do not ask for it.
/// @param neutral  texts that must keep their next-token distributions: [begin, end) is what was generated.
/// @throws Error(argument) for no texts, a range that is empty, starts at 0 or leaves its text, options out of range;
/// Error(shape) for a start of another width; as Session::hook.
TrainedVector train_vector(Session& session, const HookPoint& point, std::span<const TokenizedText> answers,
                           std::span<const TokenizedText> neutral, const VectorTraining& options = {});

}  // namespace steer
