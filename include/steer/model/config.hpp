#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <steer/core/enum.hpp>

namespace steer {

class TensorReader;

enum class NormKind { rms, layer_norm };
enum class ActivationKind { silu, gelu, gelu_tanh, relu };
enum class RopeKind { none, plain, linear, dynamic, yarn, longrope, llama3 };
/// What mixes the tokens of a layer.
enum class MixerKind {
  attention,
  delta_net,  ///< a recurrent state instead of keys and values (gated DeltaNet, Qwen 3.5)
};

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
  static constexpr EnumEntry<RopeKind> entries[] = {{RopeKind::none, "none"},     {RopeKind::plain, "default"},
                                                    {RopeKind::linear, "linear"}, {RopeKind::dynamic, "dynamic"},
                                                    {RopeKind::yarn, "yarn"},     {RopeKind::longrope, "longrope"},
                                                    {RopeKind::llama3, "llama3"}};
};
template <>
struct EnumTable<MixerKind> {
  static constexpr std::string_view name = "token mixer";
  static constexpr EnumEntry<MixerKind> entries[] = {{MixerKind::attention, "attention"},
                                                     {MixerKind::delta_net, "delta_net"}};
};

/// Rotary embedding of one kind of layer.
struct RopeConfig {
  RopeKind kind = RopeKind::none;
  double theta = 10000;
  double factor = 1;                                 ///< linear, dynamic, yarn, llama3
  double low_freq_factor = 1, high_freq_factor = 4;  ///< llama3
  std::int64_t original_context = 0;                 ///< llama3, yarn, longrope, dynamic: tokens without scaling
  double beta_fast = 32, beta_slow = 1;              ///< yarn: rotations within `original_context`
  bool truncate = true;                              ///< yarn: the ramp's ends are whole dimensions
  double scale = 1;                                  ///< of cos and sin (yarn, longrope: "attention factor")
  std::vector<double> short_factor, long_factor;     ///< longrope, [rotary_dims / 2]: divide the frequencies
  /// Whether frequencies depend on how long the sequence is: then a token's keys do too.
  bool by_length() const { return kind == RopeKind::dynamic || kind == RopeKind::longrope; }
  friend bool operator==(const RopeConfig&, const RopeConfig&) = default;
};

/// What differs between layers.
struct LayerConfig {
  std::int64_t window = 0;  ///< keys seen, the query's own included; 0: all
  RopeConfig rope;
  MixerKind mixer = MixerKind::attention;
  bool experts = false;  ///< a mixture of experts (`ModelConfig::experts`) instead of one MLP
};

/// A mixture of experts. Weights of a token's experts: softmax of the router's logits, of which the largest are taken.
struct ExpertsConfig {
  std::int64_t count = 0, per_token = 0;
  std::int64_t d_mlp = 0;     ///< width of one
  std::int64_t d_shared = 0;  ///< width of the one that sees every token; 0: none
  bool normalise = true;      ///< the weights taken are divided by their sum
  bool bias = false;          ///< of the router and of the experts
};

/// How the matrices of a Hugging Face file are quantised (`quantization_config`).
enum class StoredKind { plain, gptq, awq, fp8, bitsandbytes, mxfp4 };

template <>
struct EnumTable<StoredKind> {
  static constexpr std::string_view name = "quantisation";
  static constexpr EnumEntry<StoredKind> entries[] = {{StoredKind::plain, "plain"},
                                                      {StoredKind::gptq, "gptq"},
                                                      {StoredKind::awq, "awq"},
                                                      {StoredKind::fp8, "fp8"},
                                                      {StoredKind::bitsandbytes, "bitsandbytes"},
                                                      {StoredKind::mxfp4, "mxfp4"}};
};

struct StoredWeights {
  StoredKind kind = StoredKind::plain;
  std::int64_t group = 0;                          ///< gptq, awq: inputs that share a scale; -1: all
  std::int64_t block_rows = 0, block_columns = 0;  ///< fp8: of one scale; 0: one scale for all
  bool zeros_less_one = true;                      ///< gptq: stored zero points are one too small (its first format)
};

/// Gated DeltaNet: a state [d_key, d_value] for each value head instead of keys and values of all tokens.
struct DeltaNetConfig {
  std::int64_t key_heads = 0, value_heads = 0, d_key = 0, d_value = 0;
  std::int64_t kernel = 0;  ///< columns of the causal convolution over q, k and v
};

/// Everything that decides a model's numbers, whatever family it is of and whatever file it came from.
struct ModelConfig {
  std::string family;  ///< "llama", "qwen3", "gpt_oss" and so on (docs/formats.md)
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
  bool qk_norm_whole = false;      ///< that norm is over all heads together (OLMo)
  bool pre_norms = true;           ///< norms on what attention and MLP read; not in OLMo 2 and 3
  bool post_norms = false;         ///< norms on what attention and MLP add (Gemma 2 and 3, OLMo 2 and 3)
  bool attn_gate = false;          ///< z is multiplied with sigmoid(gate), projected beside q (Qwen 3.5)
  bool attn_sinks = false;         ///< one logit a head in the softmax's denominator only (gpt-oss)
  bool parallel_residual = false;  ///< attention and MLP both read resid_pre (NeoX)
  bool learned_positions = false;  ///< GPT-2
  bool tied_embeddings = false;
  double embed_scale = 1;                        ///< sqrt(d_model) in Gemma
  double residual_scale = 1;                     ///< multiplies what attention and MLP add (Granite)
  double logit_scale = 1;                        ///< multiplies the logits, before their cap
  double attn_scale = 0;                         ///< multiplies q.k
  double query_growth = 0;                       ///< q *= 1 + growth ln(1 + floor(position / query_growth_period))
  std::int64_t query_growth_period = 0;          ///< tokens (Ministral 3)
  double attn_soft_cap = 0, logit_soft_cap = 0;  ///< 0: none
  std::int64_t rotary_dims = 0;                  ///< leading dimensions of a head that rotate
  double glu_limit = 0;             ///< gpt-oss: gate and up are clamped, (up + 1) * gate * sigmoid(1.702 gate)
  ExpertsConfig experts;            ///< of layers that have them
  DeltaNetConfig delta_net;         ///< of layers whose mixer it is
  StoredWeights stored;             ///< what the file's matrices need before they are weights
  std::vector<LayerConfig> layers;  ///< [n_layers]
  std::vector<std::int64_t> bos_ids, eos_ids;
  std::vector<std::string> warnings;  ///< what was let through while reading, a sentence each

  /// From a Hugging Face config.json, as published checkpoints or transformers 5 write it. Of a multimodal model's
  /// file the text tower is read.
  /// @param allow_unknown  keys that are ignored, with a warning, though steer does not know them.
  /// @throws Error(unsupported) for a family or a setting steer does not have, Error(config) for a missing,
  ///         contradictory or unknown key that could change numerics; each names the key.
  static ModelConfig from_hugging_face(const nlohmann::json& config, std::span<const std::string> allow_unknown = {});
  /// From the metadata of a GGUF file. @throws as above.
  static ModelConfig from_gguf(const TensorReader& file);
};

}  // namespace steer
