#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include <nlohmann/json_fwd.hpp>

#include <steer/io/tensor_reader.hpp>
#include <steer/model/model.hpp>

namespace steer::model::detail {

/// What a model's files say before any weight is read: the beginning of loading a model and of planning a run with it.
struct ModelFiles {
  std::shared_ptr<const TensorReader> tensors;
  ModelConfig config;  ///< with the caller's context and the end-of-turn ids of generation_config.json
  std::optional<Tokenizer> tokenizer;
};

/// @param path  a Hugging Face folder, a weight file, shard or index with config.json beside it, a GGUF file or part of
///              one, or a folder that holds one GGUF model. @throws as Model::load.
ModelFiles open_model_files(const std::filesystem::path& path, const LoadOptions& options);
/// @throws Error(argument | unsupported) for options out of range or a device that is not there.
void check_options(const LoadOptions& options);
/// The configuration with the caller's shorter context. @throws Error(argument) for a longer one.
ModelConfig limited(ModelConfig config, const LoadOptions& options);
/// What to say about a tokenizer that knows more ids than the embedding has rows, if it does.
std::optional<std::string> tokenizer_warning(const ModelConfig& config, const std::optional<Tokenizer>& tokenizer);

}  // namespace steer::model::detail
