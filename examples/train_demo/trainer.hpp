#pragma once

#include <cstdint>
#include <filesystem>

#include <steer/core/progress.hpp>

#include "corpus.hpp"
#include "tiny_llama.hpp"

namespace steer::demo {

struct TrainOptions {
  std::int64_t steps = 3800;
  std::int64_t conversations = 32, drills = 112;  ///< sequences a batch of either kind
  double learning_rate = 1.5e-3;                  ///< constant after `warmup`, falling to nothing over the last 30%
  std::int64_t warmup = 100;
  double drills_first = 0.7, drills_later = 0.2;  ///< share of batches, before and after letters are learned
  std::int64_t measure_every = 100;
  double checkpoint_seconds = 60;
  std::uint64_t seed = 42;
};

/// What the model can do, by teacher forcing on the held-out dev questions.
struct Skill {
  double recall = 0;  ///< share of facts whose value is the likeliest token after "The capital of X is"
  double match = 0;   ///< share of right letters straight after one of four options' values: the drill
  double letter = 0;  ///< share of right letters after a right thinking text
};
Skill measure(const TinyLlama& model, const World& world, const Corpus& corpus, const Vocabulary& vocabulary);

/// Trains with AdamW, writing `checkpoint` now and then; continues from it if it exists. Each batch depends only on
/// seed and step, so an interrupted run continues with the batches it would have had.
/// @throws Error(format) for a checkpoint of another configuration.
void train(TinyLlama& model, const World& world, const Corpus& corpus, const Vocabulary& vocabulary,
           const TrainOptions& options, const std::filesystem::path& checkpoint, Progress progress);

}  // namespace steer::demo
