#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include <steer/core/enum.hpp>

namespace steer {

class TensorReader;

enum class NormKind { rms, layer_norm };
enum class ActivationKind { silu, gelu, gelu_tanh, relu };
enum class RopeKind { none, plain, linear, llama3 };

template <>
struct EnumTable<NormKind> {
  static constexpr std::string_view name = "norm";
  static constexpr EnumEntry<NormKind> entries[] = {{NormKind::rms, "rms"}, {NormKind::layer_norm, "layer_norm"}};
};
template <>
struct EnumTable<ActivationKind> {
  static constexpr std::string_view name = "activation function";
  static constexpr EnumEntry<ActivationKind> entries[] = {{ActivationKind::silu, "silu"},
                                                          {ActivationKind::gelu, "gelu"},
                                                          {ActivationKind::gelu_tanh, "gelu_tanh"},
                                                          {ActivationKind::relu, "relu"}};
};
template <>
struct EnumTable<RopeKind> {
  static constexpr std::string_view name = "rope kind";
  static constexpr EnumEntry<RopeKind> entries[] = {{RopeKind::none, "none"},
                                                    {RopeKind::plain, "default"},
                                                    {RopeKind::linear, "linear"},
                                                    {RopeKind::llama3, "llama3"}};
};

/// Rotary embedding of one kind of layer.
struct RopeConfig {
  RopeKind kind = RopeKind::none;
  double theta = 10000;
  double factor = 1;                                 ///< linear, llama3
  double low_freq_factor = 1, high_freq_factor = 4;  ///< llama3
  std::int64_t original_context = 0;                 ///< llama3
  friend bool operator==(const RopeConfig&, const RopeConfig&) = default;
};

/// What one layer's attention looks at.
struct LayerConfig {
  std::int64_t window = 0;  ///< keys seen, the query's own included; 0: all
  RopeConfig rope;
};

/// Everything that decides a model's numbers, whatever family it is of and whatever file it came from.
struct ModelConfig {
  std::string family;  ///< "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2", "gpt_neox"
  std::string name;    ///< what the file calls itself; may be empty
  std::int64_t vocab_size = 0, d_model = 0, n_layers = 0, n_heads = 0, n_kv_heads = 0, d_head = 0, d_mlp = 0;
  std::int64_t context = 0;  ///< longest sequence
  NormKind norm = NormKind::rms;
  double norm_eps = 1e-5;
  bool norm_plus_one = false;  ///< gain is 1 + weight (Gemma; GGUF files store the sum already)
  ActivationKind activation = ActivationKind::silu;
  bool gated_mlp = true;
  bool attn_bias = false, attn_out_bias = false, mlp_bias = false;
  bool qk_norm = false;            ///< RMS norm of each head's q and k
  bool post_norms = false;         ///< norms on what attention and MLP add (Gemma 2 and 3)
  bool parallel_residual = false;  ///< attention and MLP both read resid_pre (NeoX)
  bool learned_positions = false;  ///< GPT-2
  bool tied_embeddings = false;
  double embed_scale = 1;                        ///< sqrt(d_model) in Gemma
  double attn_scale = 0;                         ///< multiplies q.k
  double attn_soft_cap = 0, logit_soft_cap = 0;  ///< 0: none
  std::int64_t rotary_dims = 0;                  ///< leading dimensions of a head that rotate
  std::vector<LayerConfig> layers;               ///< [n_layers]
  std::vector<std::int64_t> bos_ids, eos_ids;

  /// From a Hugging Face config.json, as published checkpoints or transformers 5 write it.
  /// @throws Error(unsupported) for a family or a setting steer does not have, Error(config) for a missing,
  ///         contradictory or unknown key that could change numerics; each names the key.
  static ModelConfig from_hugging_face(const nlohmann::json& config);
  /// From the metadata of a GGUF file. @throws as above.
  static ModelConfig from_gguf(const TensorReader& file);
};

}  // namespace steer
