#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <steer/core/progress.hpp>
#include <steer/model/model.hpp>
#include <steer/sae/sae.hpp>

#include "corpus.hpp"

namespace steer::demo {

struct AutoencoderOptions {
  std::int64_t layer = 1;  ///< of resid_post: where style is a state already and the letter is not chosen yet
  std::int64_t d_sae = 768, k = 24;
  std::int64_t conversations = 2500;  ///< whose activations it is trained on, again and again
  std::int64_t steps = 3000, batch_tokens = 2048;
  std::uint64_t seed = 42;
};

/// Trains the demo's SAE on the model's residual stream over texts of the corpus.
Sae train_autoencoder(const Model& model, const Corpus& corpus, const AutoencoderOptions& options, Progress progress);

/// How good an SAE is, on conversations it was not trained on.
struct AutoencoderQuality {
  double explained_variance = 0;
  double l0 = 0;                                           ///< mean active features a token
  double alive = 0;                                        ///< share of features that are active on some token
  double loss_clean = 0, loss_spliced = 0, loss_zero = 0;  ///< nats a token, as is, through the SAE, with zeros instead
  double loss_recovered() const { return (loss_zero - loss_spliced) / (loss_zero - loss_clean); }
};
AutoencoderQuality measure(const Model& model, const Sae& sae, const Corpus& corpus, std::uint64_t seed);

/// What one feature responds to.
struct FeatureNote {
  std::string description;
  std::vector<std::string> tokens;  ///< those with most of its activation, most first
  double max_activation = 0;
  double active = 0;      ///< share of tokens
  std::string behaviour;  ///< that its mean over an answer tells best from the other 13; empty if none well
  double separation = 0;  ///< how well: difference of means over the pooled standard deviation (Cohen's d)
};
/// One note a feature, from texts of every behaviour in equal numbers.
std::vector<FeatureNote> describe_features(const Model& model, const Sae& sae, const World& world, const Corpus& corpus,
                                           const Vocabulary& vocabulary, std::uint64_t seed);

}  // namespace steer::demo
