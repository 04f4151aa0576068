#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include <steer/model/hooks.hpp>

#include "model/transformer.hpp"

namespace steer::model::detail {

/// Cosines and sines of the positions met so far, one table for each rope of the model.
class RopeTables {
 public:
  explicit RopeTables(const Transformer& model) : model_(&model), tables_(model.inv_freq.size()) {}
  struct Rows {
    at::Tensor cos, sin;  ///< [tokens, rotary_dims / 2], f32, on the model's device
  };
  /// The rows of the runs' positions, one entry for each rope.
  std::vector<Rows> rows(std::span<const TokenRun> runs);

 private:
  struct Table {
    std::vector<float> cos, sin;
    std::int64_t positions = 0;
  };
  void grow(std::size_t rope, std::int64_t positions);

  const Transformer* model_;
  std::vector<Table> tables_;
};

}  // namespace steer::model::detail
