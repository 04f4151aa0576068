#pragma once

#include <string_view>

#include <steer/io/tensor_reader.hpp>

#include "model/weight_source.hpp"

namespace steer::model::detail {

/// Fills the weights of `model` (whose `config` is set) from tensors named as Hugging Face names them.
void assemble_hugging_face(Transformer& model, WeightSource& source);
/// Tensors that Hugging Face files of this family may carry and that steer does not need: buffers computed anew, and
/// the unembedding of tied models.
bool ignored_hugging_face(const ModelConfig& config, std::string_view name);

/// The same for GGUF names.
void assemble_gguf(Transformer& model, WeightSource& source);
bool ignored_gguf(const ModelConfig& config, std::string_view name);

/// Builds the model from a reader: checks all tensors, then reads them. @throws as Model::load.
std::shared_ptr<Transformer> build(const ModelConfig& config, const TensorReader& reader, const LoadOptions& options);

/// What loading would say, from the reader's headers alone.
struct WeightCheck {
  std::int64_t bytes = 0;  ///< that the weights will take
  std::vector<std::string> warnings;
};
/// @throws as Model::load for tensors that are missing, mis-shaped or too many.
WeightCheck check_weights(const ModelConfig& config, const TensorReader& reader, const LoadOptions& options);

}  // namespace steer::model::detail
