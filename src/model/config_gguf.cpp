// ModelConfig from GGUF metadata. What llama.cpp derives by rule and does not store is derived by the same rule here
// (llama.cpp, src/llama-model.cpp, load_hparams).
#include <cmath>

#include <steer/io/tensor_reader.hpp>
#include <steer/model/config.hpp>

#include "model/config_check.hpp"
#include "model/config_reader.hpp"

namespace steer {
namespace {

constexpr auto kWhere = "ModelConfig::from_gguf";

/// Keys below the architecture's name that do not change what is computed.
constexpr std::string_view kIgnored[] = {"vocab_size", "tensor_data_layout", "rope.scaling.finetuned",
                                         "rope.scaling.original_context_length"};

/// The metadata below "<architecture>.", without that prefix.
nlohmann::json section(const nlohmann::json& metadata, const std::string& prefix) {
  auto out = nlohmann::json::object();
  for (const auto& [key, value] : metadata.items())
    if (key.starts_with(prefix)) out[key.substr(prefix.size())] = value;
  return out;
}

RopeConfig rope(model::detail::ConfigReader& in, double theta) {
  RopeConfig out{.kind = RopeKind::plain, .theta = in.number("rope.freq_base", theta)};
  const std::string scaling = in.text("rope.scaling.type", "none");
  const double factor = in.number("rope.scaling.factor", in.number("rope.scale_linear", 1));
  in.has("rope.scale_linear");
  in.only("rope.scaling.attn_factor", 1.0);
  require(scaling == "none" || scaling == "linear", ErrorCode::unsupported, kWhere,
          "expected rope.scaling.type none or linear but got \"{}\"; steer does not have it", scaling);
  require(factor > 0 && out.theta > 0, ErrorCode::config, kWhere,
          "expected positive rotary constants but got base {} and factor {}; the file is damaged", out.theta, factor);
  if (factor != 1) {
    out.kind = RopeKind::linear;
    out.factor = factor;
  }
  return out;
}

}  // namespace

ModelConfig ModelConfig::from_gguf(const TensorReader& file) {
  const auto& metadata = file.metadata();
  model::detail::ConfigReader general(metadata, kWhere);
  const auto arch = general.text("general.architecture");
  const bool gemma2 = arch == "gemma2", gemma3 = arch == "gemma3", gemma = gemma2 || gemma3;
  require(gemma || arch == "llama" || arch == "qwen2" || arch == "qwen3", ErrorCode::unsupported, kWhere,
          "expected general.architecture llama, qwen2, qwen3, gemma2 or gemma3 but got \"{}\" ({}); steer does not "
          "read this "
          "family from GGUF",
          arch, file.path().string());
  const auto keys = section(metadata, arch + ".");
  model::detail::ConfigReader in(keys, kWhere, arch + ".");
  ModelConfig c;
  c.family = arch;
  c.name = general.text("general.name", "");
  c.vocab_size = file.info("token_embd.weight").shape.at(0);
  c.d_model = in.size("embedding_length");
  c.n_layers = in.size("block_count");
  c.n_heads = in.size("attention.head_count");
  c.n_kv_heads = in.size("attention.head_count_kv", c.n_heads);
  c.d_head = in.size("attention.key_length", c.d_model / c.n_heads);
  if (in.size("attention.value_length", c.d_head) != c.d_head) in.contradiction("values of another width than keys");
  c.rotary_dims = in.size("rope.dimension_count", c.d_head);
  c.d_mlp = in.size("feed_forward_length");
  c.context = in.size("context_length");
  c.norm_eps = in.number("attention.layer_norm_rms_epsilon");
  in.only("expert_count", 0);
  in.only("attention.causal", true);
  c.attn_bias = file.contains("blk.0.attn_q.bias");
  c.attn_out_bias = file.contains("blk.0.attn_output.bias");
  c.qk_norm = arch == "qwen3" || gemma3;
  c.tied_embeddings = !file.contains("output.weight");
  const auto window = in.size("attention.sliding_window", gemma2 ? 4096 : 0);
  if (gemma) {
    // The stored gains are 1 + weight already.
    c.activation = ActivationKind::gelu_tanh;
    c.post_norms = true;
    c.embed_scale = std::sqrt(static_cast<double>(c.d_model));
    if (gemma2) {
      c.attn_soft_cap = in.number("attn_logit_softcapping", 50);
      c.logit_soft_cap = in.number("final_logit_softcapping", 30);
    } else {
      in.has("attn_logit_softcapping");  // written by some converters, used by none: Gemma 3 has no caps
      c.logit_soft_cap = in.number("final_logit_softcapping", 0);
    }
    // Only the 27B models scale by another width than the head's.
    const bool is_27b = c.n_layers == (gemma2 ? 46 : 62);
    c.attn_scale = 1 / std::sqrt(static_cast<double>(is_27b ? c.d_model / c.n_heads : c.d_head));
  }
  const RopeConfig global = rope(in, gemma3 ? 1e6 : 1e4);
  const RopeConfig local =
      gemma3 ? RopeConfig{.kind = RopeKind::plain, .theta = in.number("rope.freq_base_swa", 1e4)} : global;
  const auto pattern = in.size("attention.sliding_window_pattern", gemma2 ? 2 : 6);
  for (std::int64_t i = 0; i < c.n_layers; ++i) {
    const bool slides = window > 0 && (gemma ? (i + 1) % pattern != 0 : true);
    c.layers.push_back(slides ? LayerConfig{window, local} : LayerConfig{0, global});
  }
  for (const auto* key : {"tokenizer.ggml.bos_token_id"})
    if (general.has(key)) c.bos_ids.push_back(general.integer(key));
  for (const auto* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"})
    if (general.has(key)) c.eos_ids.push_back(general.integer(key));
  in.finish(kIgnored);
  model::detail::complete_and_check(c, kWhere);
  return c;
}

}  // namespace steer
