#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <steer/core/progress.hpp>
#include <steer/model/session.hpp>
#include <steer/steering/steering.hpp>

namespace steer {

/// A text whose tail is scored: the tokens before `begin` are its prompt.
struct ScoreRequest {
  std::vector<std::int64_t> ids{};
  std::int64_t begin = 1;              ///< first token scored, at least 1: something must precede it
  std::optional<Steering> steering{};  ///< scored under it; the tail counts as generated
  std::int64_t end = -1;               ///< one past the last token scored; -1: to the end
};

/// How likely a model finds a text's tail.
struct TextScore {
  double log_probability = 0;                        ///< natural, summed over the tail
  std::int64_t tokens = 0;                           ///< of the tail
  std::vector<double> token_log_probabilities = {};  ///< of each token of the tail
  std::vector<std::string> warnings;                 ///< what a person should know of this text's steering
  /// Mean negative log-likelihood a token, in nats.
  double nll() const { return tokens == 0 ? 0 : -log_probability / static_cast<double>(tokens); }
};

struct ScoreOptions {
  OnWarning on_warning = OnWarning::keep;  ///< what a steering that warns is (see SessionOptions)
  Progress progress{};                     ///< advances by each text
};

/// log p(tail | prompt) of each text, in the order given. Deterministic; one thread.
/// @throws Error(argument) for a text without a tail, with ids outside the vocabulary, or whose logits are not finite
///         (naming text and token); whatever `Session::open` throws.
std::vector<TextScore> score_texts(const Model& model, std::span<const ScoreRequest> requests,
                                   const ScoreOptions& options = {});

/// How far a steering moves a model's next-token distributions over a text's tail.
struct TextDivergence {
  double mean = 0;                    ///< KL(p unsteered || p steered), in nats, over the tail's tokens
  std::vector<double> values;         ///< of the distribution that predicts each token of the tail
  std::vector<std::string> warnings;  ///< what a person should know of this text's steering
};

/// What a steering changes, for each request. @throws as `score_texts`.
std::vector<TextDivergence> divergence_from_unsteered(const Model& model, std::span<const ScoreRequest> requests,
                                                      const ScoreOptions& options = {});

}  // namespace steer
