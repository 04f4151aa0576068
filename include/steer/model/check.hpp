#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <steer/model/config.hpp>
#include <steer/model/model.hpp>

namespace steer {

/// What a model's files would load as.
struct ModelSummary {
  std::string format;                 ///< of the weights: "safetensors", "gguf", "pytorch"
  ModelConfig config;                 ///< as the files say it
  std::int64_t weight_bytes = 0;      ///< that the weights would take with these options
  std::int64_t tensors = 0;           ///< in the files
  bool has_tokenizer = false;         ///< without one a model works with ids
  std::vector<std::string> warnings;  ///< what loading lets through and says
};

/// Makes the checks that `Model::load` makes before it reads a weight: files, configuration, names and shapes of all
/// tensors, memory. Reads headers only, whatever the size. @throws as Model::load.
ModelSummary check_model(const std::filesystem::path& path, const LoadOptions& options = {});

}  // namespace steer
