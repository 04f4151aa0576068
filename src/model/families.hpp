#pragma once

#include <span>
#include <string_view>

#include <steer/model/config.hpp>

#include "model/config_reader.hpp"

namespace steer::model::detail {

/// Sizes that a configuration class has where a file gives none; 0: a file must.
struct DefaultSizes {
  std::int64_t vocab = 0, width = 0, layers = 0, heads = 0, kv_heads = 0, head = 0, mlp = 0, context = 0;
  std::int64_t experts = 0, per_token = 0, d_expert = 0, d_shared = 0;
};

/// Where the tensors of a mixture of experts are, below "model.layers.L.".
struct ExpertNames {
  std::string_view router = "mlp.gate", experts = "mlp.experts";
  std::string_view gate = "gate_proj", up = "up_proj", down = "down_proj";
};

/// What a family is: how its files say what it computes, and where its tensors are. The transformer itself follows
/// `ModelConfig` and knows no family. docs/adding-a-family.md tells how a row comes about.
struct Family {
  std::string_view name;               ///< `ModelConfig::family`
  std::string_view model_type;         ///< of config.json
  std::string_view wrapper = {};       ///< model_type of multimodal files that hold it as their text tower
  std::string_view architecture = {};  ///< general.architecture of GGUF files; empty: another row's, or not read
  void (*read)(ConfigReader&, const Family&, ModelConfig&) = nullptr;  ///< its keys of config.json
  // Defaults of its configuration class in transformers 5.23.
  bool tied = false;
  double theta = 10000, eps = 1e-6;
  DefaultSizes sizes = {};
  // Its tensors in Hugging Face files.
  ExpertNames experts = {};
  bool fused = false;  ///< one tensor for q, k and v, one for gate and up
  // Its tensors in GGUF files.
  bool neighbours_rotate = false;  ///< rows of q and k stand so that dimensions 2i and 2i + 1 rotate together
  /// Tensors of Hugging Face files that are no part of the language model: buffers, other towers, other heads.
  std::span<const std::string_view> not_needed = {};
};

/// All families, each once.
std::span<const Family> families();
/// The family of a `ModelConfig`. @throws Error(config) for a name that none has.
const Family& family_of(const ModelConfig& config);
/// By model_type, a wrapper's included; null if there is none.
const Family* find_model_type(std::string_view model_type);
/// By general.architecture; null if there is none.
const Family* find_architecture(std::string_view architecture);
/// "llama, mistral and so on", for messages.
std::string model_types();
std::string architectures();

}  // namespace steer::model::detail
