#pragma once
// One step of training: the forward pass, the hand-written backward pass and Adam, over parameters stored a feature a
// row.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include <steer/sae/trainer.hpp>

#include "sae/kernels.hpp"

namespace steer::sae::detail {

/// A parameter with Adam's moments; all contiguous f32.
struct Trained {
  at::Tensor value, m, v;
  Trained() = default;
  explicit Trained(at::Tensor initial);
};

struct TrainState {
  Trained encoder;              ///< [d_sae, d_in]: W_enc transposed
  Trained b_enc;                ///< [d_sae]
  Trained decoder;              ///< [d_sae, d_in], unit rows
  Trained b_dec;                ///< [d_in]
  Trained log_threshold;        ///< [d_sae]; jumprelu
  at::Tensor idle;              ///< [d_sae], i64: tokens since the feature was active
  double batch_threshold = -1;  ///< batchtopk: running mean of the smallest activation kept; -1: none yet
  std::int64_t steps = 0;
};

/// Random unit decoder rows, encoder rows equal to them, b_dec the mean of some (scaled) activations.
TrainState initial_state(const SaeTrainingOptions& options, const at::Tensor& mean);

/// The step's own memory, kept from one step to the next.
struct TrainScratch {
  struct Entry {
    std::int32_t feature;
    float z;
  };
  at::Tensor z;
  std::vector<std::vector<Entry>> rows;  ///< a token's features that take part
  std::vector<TopKScratch> top_k;
  std::vector<std::int64_t> begin;  ///< [d_sae + 1]: a feature's entries in the next two
  std::vector<std::int32_t> token;
  std::vector<float> activation, gradient;  ///< of the loss by z
};

/// @param x  [tokens, d_in], f32, contiguous, in scaled units. Changes `state`.
SaeTrainingMetrics train_step(const SaeTrainingOptions& options, TrainState& state, const at::Tensor& x,
                              TrainScratch& scratch);

}  // namespace steer::sae::detail
