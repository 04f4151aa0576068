#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <steer/core/progress.hpp>
#include <steer/model/model.hpp>
#include <steer/steering/steering.hpp>

namespace steer {

/// A text whose tail is scored: the tokens before `begin` are its prompt.
struct ScoreRequest {
  std::vector<std::int64_t> ids;
  std::int64_t begin = 1;            ///< first token scored, at least 1: something must precede it
  std::optional<Steering> steering;  ///< scored under it; the tail counts as generated
};

/// How likely a model finds a text's tail.
struct TextScore {
  double log_probability = 0;  ///< natural, summed over the tail
  std::int64_t tokens = 0;     ///< of the tail
  std::vector<double> token_log_probabilities = {};  ///< of each token of the tail
  /// Mean negative log-likelihood a token, in nats.
  double nll() const { return tokens == 0 ? 0 : -log_probability / static_cast<double>(tokens); }
};

/// log p(tail | prompt) of each text, in the order given. Deterministic; one thread.
/// @throws Error(argument) for a text without a tail or with ids outside the vocabulary; Error(unsupported) for a
/// steering
///         whose conditions read the next-token entropy, which a text scored in one pass does not have; whatever
///         SteeringPlan::compile throws.
std::vector<TextScore> score(const Model& model, std::span<const ScoreRequest> requests, const Progress& progress = {});

/// What a steering changes: mean over the tail's tokens of KL(p unsteered || p steered) of the next-token
/// distributions, in nats, for each request. @throws as `score`.
std::vector<double> kl_from_unsteered(const Model& model, std::span<const ScoreRequest> requests,
                                      const Progress& progress = {});

}  // namespace steer
