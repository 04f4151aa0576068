#pragma once

#include <memory>

#include <steer/eval/judge.hpp>
#include <steer/model/model.hpp>

namespace steer {

/// A judge that is a local language model: it is asked for one digit, and the score is the expected digit over the
/// probabilities of 1 to 5, so ties and sampling noise do not arise. Wants an instruct model of some size.
/// @throws Error(config) for a model without a tokenizer, or whose tokenizer has no single tokens for the digits.
std::shared_ptr<Judge> logit_judge(Model model);

/// A judge for models too small to follow a rubric, by their own likelihoods.
///
/// Behaviour: 1 + 4 P(asked), P = 1 / (1 + exp(-llr)) with llr = log p(response | request, prompt) - log p(response |
/// prompt): how sure the unsteered model is that the response was written on request. Coherence: 1 + 4 / (1 + (nll /
/// 2)^2) with nll the lower of both prompts' mean negative log-likelihood a token: at 1.15 nats it is 4, at 2 nats 3.
/// Both are the model's opinion of itself: they rank arms on one model and are not comparable with scores of people or
/// of other judges.
/// @throws Error(config) for a model without a tokenizer.
std::shared_ptr<Judge> likelihood_judge(Model model);

}  // namespace steer
