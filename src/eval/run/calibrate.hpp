#pragma once

#include <cstdint>

#include <steer/io/tensor_reader.hpp>
#include <steer/model/model.hpp>

namespace steer::eval::detail {

/// Seconds of one token's products.
struct TokenCost {
  double prompt_token = 0;  ///< all layers, among many tokens of prompts
  double new_token = 0;     ///< all layers and the unembedding, in steps of a batch
  double logits = 0;        ///< the unembedding among many tokens
};

/// Times products of the model's shapes and storage types (at most 16 million random weights of each) on its device,
/// and scales them to all its weights. Reads no weights. Takes one or two seconds.
TokenCost calibrate(const ModelConfig& config, const TensorReader& tensors, const LoadOptions& load,
                    std::int64_t batch);

}  // namespace steer::eval::detail
