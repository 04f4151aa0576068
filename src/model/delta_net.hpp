#pragma once
// Gated DeltaNet (arXiv:2412.06464), as Qwen 3.5 has it: what a layer remembers is one matrix a value head, which
// decays and takes in, for each token, what its key does not recall yet.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>

#include <steer/model/config.hpp>
#include <steer/model/hooks.hpp>

#include "model/kv_cache.hpp"
#include "model/transformer.hpp"

namespace steer::model::detail {

/// The tokens of one run. `before` is null at the start of a sequence.
struct DeltaNetRun {
  std::int64_t begin, end;
  std::shared_ptr<const RecurrentState> before;
  std::int64_t follows = -1;  ///< or else the run of the same pass that it goes on from
};

/// Outputs [rows, value_heads * d_value] of all rows, and the state after each run. All inputs f32 on the CPU,
/// contiguous. A row's bits depend on its own sequence alone.
/// @param qkv  [rows, channels]. @param beta, alpha  [rows, value_heads].
at::Tensor delta_net_on_cpu(const DeltaNetConfig& config, const DeltaNetWeights& weights, const at::Tensor& qkv,
                            const at::Tensor& beta, const at::Tensor& alpha, std::span<const DeltaNetRun> runs,
                            std::span<RecurrentState> after);
/// The same by libtorch's operators, on any device and under gradients.
at::Tensor delta_net_by_operators(const DeltaNetConfig& config, const DeltaNetWeights& weights, const at::Tensor& qkv,
                                  const at::Tensor& beta, const at::Tensor& alpha, std::span<const DeltaNetRun> runs,
                                  std::span<RecurrentState> after);

}  // namespace steer::model::detail
