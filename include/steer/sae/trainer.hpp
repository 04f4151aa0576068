#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <steer/core/progress.hpp>
#include <steer/sae/sae.hpp>

namespace steer {

/// Where training activations come from. `read` gives the next ones [n, d_in], any floating dtype, CPU; n is the number
/// asked for or somewhat more or fewer; no rows mean that the data has ended. `skip`, where given, passes over `tokens`
/// rows as `read` would have given them: a resumed run goes on where it stopped. `stream_activations` makes one from a
/// model and texts.
struct ActivationSource {
  std::function<at::Tensor(std::int64_t tokens)> read{};
  std::function<void(std::int64_t tokens)> skip{};
};

/// What one step of training saw.
struct SaeTrainingMetrics {
  std::int64_t step = 0;          ///< steps done, this one included
  std::int64_t tokens = 0;        ///< activations used so far
  double loss = 0;                ///< what was minimised: squared error a token plus penalties
  double squared_error = 0;       ///< mean over tokens of |x - x^|^2, in units in which |x|^2 is d_in on average
  double explained_variance = 0;  ///< 1 - sum |x - x^|^2 / sum |x - mean x|^2 over the batch
  double l0 = 0;                  ///< mean active features a token
  double dead_share = 0;          ///< share of features that have not been active for `dead_after_tokens`
  double learning_rate = 0;
};

/// How to train. The defaults suit residual streams; sizes and steps must be given.
struct SaeTrainingOptions {
  std::int64_t d_in = 0, d_sae = 0;
  SaeActivation activation = SaeActivation::topk;  ///< relu, topk, batchtopk or jumprelu
  std::int64_t k = 32;                     ///< topk: active features a token; batchtopk: on average over a batch
  double l1 = 1.0;                         ///< relu: weight of the sum of activations
  double l0 = 1.0;                         ///< jumprelu: weight of the number of active features
  double bandwidth = 0.05;                 ///< jumprelu: width of the window in which thresholds learn
  double initial_threshold = 0.01;         ///< jumprelu
  std::int64_t sparsity_warmup_steps = 0;  ///< relu, jumprelu: the penalty grows linearly to its weight over these

  std::int64_t steps = 0;                ///< in total
  std::int64_t batch_tokens = 4096;      ///< activations a step
  std::int64_t buffer_tokens = 1 << 16;  ///< activations held and shuffled; refilled when half are used
  double learning_rate = 3e-4;
  double beta1 = 0.9, beta2 = 0.999;  ///< Adam
  std::int64_t warmup_steps = 0;      ///< the learning rate grows linearly from 0 over the first
  std::int64_t decay_steps = 0;       ///< and falls linearly to 0 over the last
  bool subtract_b_dec = true;         ///< encode x - b_dec

  std::int64_t dead_after_tokens = 1'000'000;  ///< a feature not active for so many is dead and is revived:
                                               ///< topk kinds by an auxiliary loss, relu and jumprelu by resampling
  std::int64_t aux_k = 0;                      ///< dead features a token the auxiliary loss may use; 0: d_in / 2
  double aux_weight = 1.0 / 32;                ///< of the auxiliary loss; 0 leaves the dead alone
  std::uint64_t seed = 0;

  std::filesystem::path checkpoint{};    ///< file to resume from, if it exists, and to save to; empty: none
  std::int64_t checkpoint_every = 1000;  ///< steps
  std::function<void(const SaeTrainingMetrics&)> on_step{};  ///< called after each step
  Progress progress{};

  std::optional<HookPoint> hook{};  ///< these two only go into the configuration of the result
  std::string model_name{};
};

/// Trains a sparse autoencoder on activations that are produced while it goes: no activations on disk. On the CPU in
/// f32, with hand-written gradients that follow only the active features where that pays.
///
/// Inputs are scaled by s = sqrt(d_in) / mean |x| (measured on the first buffer) and the result has s folded in, so it
/// takes raw activations. Decoder rows have unit norm in the scaled units throughout; the part of their gradient along
/// the row is removed (Bricken et al. 2023). TopK and the auxiliary loss: Gao et al. 2024. BatchTopK: Bussmann et al.
/// 2024; its inference threshold is a running mean of the smallest activation kept. JumpReLU: Rajamanoharan et al.
/// 2024, with their straight-through estimator. Resampling: Bricken et al. 2023.
///
/// The same options and the same activations give the same result, also across a stop and a resume, for a given number
/// of threads. Not to be used by two threads at once.
class SaeTrainer {
 public:
  /// Resumes from `options.checkpoint` when that file exists.
  /// @throws Error(argument) for options out of range; Error(config) when the checkpoint was made with other options;
  ///         Error(format) when it is damaged.
  SaeTrainer(const SaeTrainingOptions& options, ActivationSource source);
  ~SaeTrainer();
  SaeTrainer(SaeTrainer&&) noexcept;
  SaeTrainer& operator=(SaeTrainer&&) noexcept;

  /// Runs all remaining steps, saving the checkpoint on the way and at the end, and returns the result.
  /// @throws Error(argument) when the source ends early or gives rows of another width, Error(argument) naming the step
  ///         when activations or the loss are not finite; whatever the source throws.
  Sae train();
  /// Runs one step. @throws as `train`.
  SaeTrainingMetrics step();
  std::int64_t steps_done() const;

  /// The autoencoder as it is now, for raw activations.
  Sae sae() const;
  /// Writes everything a later run needs to go on exactly here: weights, optimiser state, buffer. The file is replaced
  /// in one step, so a process killed at any time leaves the old or the new one. @throws Error(io).
  void save_checkpoint(const std::filesystem::path& path) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace steer
