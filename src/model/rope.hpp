#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include <steer/model/config.hpp>
#include <steer/model/hooks.hpp>

namespace steer::model::detail {

struct Transformer;

/// Rotary frequencies of one kind of layer, [rotary_dims / 2], f32.
/// @param length  of the sequence; counts for ropes that depend on it (`RopeConfig::by_length`).
at::Tensor rope_frequencies(const RopeConfig& rope, std::int64_t rotary_dims, std::int64_t length = 0);

/// The longest sequence whose ropes do not depend on its length.
std::int64_t length_free_tokens(const ModelConfig& config);

/// Cosines and sines of the positions met so far, one table for each rope of the model.
///
/// A rope that depends on the length takes, for a prompt's tokens, the length of the prompt, and for a generated token
/// the length up to it, as transformers does where it keeps a cache. So a prompt given in several steps turns by the
/// lengths it had at each.
class RopeTables {
 public:
  explicit RopeTables(const Transformer& model);
  struct Rows {
    at::Tensor cos, sin;  ///< [tokens, rotary_dims / 2], f32, on the model's device
  };
  /// The rows of the runs' positions, one entry for each rope.
  std::vector<Rows> rows(std::span<const TokenRun> runs);
  /// Those of one rope, into memory of the host, [tokens, rotary_dims / 2] each.
  void fill(std::size_t rope, std::span<const TokenRun> runs, float* cos, float* sin);
  std::size_t size() const { return tables_.size(); }
  std::int64_t pairs(std::size_t rope) const;

 private:
  struct Table {
    std::vector<float> cos, sin;
    std::int64_t positions = 0;
  };
  void grow(std::size_t rope, std::int64_t positions);
  void by_length(std::size_t rope, const TokenRun& run, float* cos, float* sin) const;

  const Transformer* model_;
  std::vector<Table> tables_;
};

}  // namespace steer::model::detail
