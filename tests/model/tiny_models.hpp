#pragma once
// Small random models of every family, made in memory: for what needs no reference.

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include <steer/io/tensor_reader.hpp>
#include <steer/model/model.hpp>

namespace steer::test {

inline constexpr const char* kFamilies[] = {"llama",  "mistral",     "qwen2", "qwen3",
                                            "gemma2", "gemma3_text", "gpt2",  "gpt_neox"};

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

struct TinyModel {
  nlohmann::json config;
  NamedTensors tensors;

  at::Tensor& operator[](const std::string& name) {
    for (auto& [key, tensor] : tensors)
      if (key == name) return tensor;
    throw std::runtime_error("no tensor " + name);
  }
  std::shared_ptr<const TensorReader> reader() const { return tensors_in_memory(tensors, nlohmann::json::object()); }
  Model load(const LoadOptions& options = {}) const {
    return Model::from_tensors(ModelConfig::from_hugging_face(config), *reader(), options);
  }
};

inline TinyModel tiny_model(const std::string& family, std::int64_t layers = 3) {
  constexpr std::int64_t vocab = 97, d = 32, heads = 4, mlp = 48;
  TinyModel m;
  at::manual_seed(5);
  const auto add = [&](const std::string& name, std::vector<std::int64_t> shape, double mean = 0,
                       double deviation = 0.2) { m.tensors.emplace_back(name, at::randn(shape) * deviation + mean); };
  m.config = {{"model_type", family}, {"vocab_size", vocab}, {"bos_token_id", 1}, {"eos_token_id", 2}};
  if (family == "gpt2") {
    m.config.update({{"n_embd", d},
                     {"n_head", heads},
                     {"n_layer", layers},
                     {"n_positions", 128},
                     {"n_inner", mlp},
                     {"layer_norm_epsilon", 1e-5}});
    add("transformer.wte.weight", {vocab, d}, 0, 0.5);
    add("transformer.wpe.weight", {128, d});
    for (const char* part : {"weight", "bias"}) add(std::string("transformer.ln_f.") + part, {d}, part[0] == 'w');
    for (std::int64_t l = 0; l < layers; ++l) {
      const std::string p = "transformer.h." + std::to_string(l) + ".";
      for (const char* norm : {"ln_1", "ln_2"})
        for (const char* part : {"weight", "bias"}) add(p + norm + "." + part, {d}, part[0] == 'w');
      add(p + "attn.c_attn.weight", {d, 3 * d}), add(p + "attn.c_attn.bias", {3 * d});
      add(p + "attn.c_proj.weight", {d, d}), add(p + "attn.c_proj.bias", {d});
      add(p + "mlp.c_fc.weight", {d, mlp}), add(p + "mlp.c_fc.bias", {mlp});
      add(p + "mlp.c_proj.weight", {mlp, d}), add(p + "mlp.c_proj.bias", {d});
    }
    return m;
  }
  m.config.update({{"hidden_size", d},
                   {"num_attention_heads", heads},
                   {"num_hidden_layers", layers},
                   {"intermediate_size", mlp},
                   {"max_position_embeddings", 128}});
  if (family == "gpt_neox") {
    m.config.update({{"layer_norm_eps", 1e-5}, {"rotary_pct", 0.5}});
    add("gpt_neox.embed_in.weight", {vocab, d}, 0, 0.5);
    add("embed_out.weight", {vocab, d});
    for (const char* part : {"weight", "bias"})
      add(std::string("gpt_neox.final_layer_norm.") + part, {d}, part[0] == 'w');
    for (std::int64_t l = 0; l < layers; ++l) {
      const std::string p = "gpt_neox.layers." + std::to_string(l) + ".";
      for (const char* norm : {"input_layernorm", "post_attention_layernorm"})
        for (const char* part : {"weight", "bias"}) add(p + norm + "." + part, {d}, part[0] == 'w');
      add(p + "attention.query_key_value.weight", {3 * d, d}), add(p + "attention.query_key_value.bias", {3 * d});
      add(p + "attention.dense.weight", {d, d}), add(p + "attention.dense.bias", {d});
      add(p + "mlp.dense_h_to_4h.weight", {mlp, d}), add(p + "mlp.dense_h_to_4h.bias", {mlp});
      add(p + "mlp.dense_4h_to_h.weight", {d, mlp}), add(p + "mlp.dense_4h_to_h.bias", {d});
    }
    return m;
  }
  const bool gemma = family.starts_with("gemma"), qk_norm = family == "qwen3" || family == "gemma3_text";
  constexpr std::int64_t kv = 2, head = 8;
  const double gain = gemma ? 0 : 1;
  m.config.update(
      {{"num_key_value_heads", kv}, {"rms_norm_eps", 1e-6}, {"head_dim", head}, {"tie_word_embeddings", gemma}});
  if (family == "mistral") m.config["sliding_window"] = 6;
  if (gemma) m.config.update({{"sliding_window", 5}, {"query_pre_attn_scalar", 8}});
  if (family == "gemma2") m.config.update({{"attn_logit_softcapping", 20.0}, {"final_logit_softcapping", 10.0}});
  if (family == "gemma3_text") m.config["sliding_window_pattern"] = 2;
  add("model.embed_tokens.weight", {vocab, d}, 0, 0.5);
  add("model.norm.weight", {d}, gain);
  if (!gemma) add("lm_head.weight", {vocab, d});
  for (std::int64_t l = 0; l < layers; ++l) {
    const std::string p = "model.layers." + std::to_string(l) + ".";
    add(p + "input_layernorm.weight", {d}, gain), add(p + "post_attention_layernorm.weight", {d}, gain);
    if (gemma)
      add(p + "pre_feedforward_layernorm.weight", {d}, gain), add(p + "post_feedforward_layernorm.weight", {d}, gain);
    if (qk_norm) add(p + "self_attn.q_norm.weight", {head}, gain), add(p + "self_attn.k_norm.weight", {head}, gain);
    add(p + "self_attn.q_proj.weight", {heads * head, d}), add(p + "self_attn.o_proj.weight", {d, heads * head});
    add(p + "self_attn.k_proj.weight", {kv * head, d}), add(p + "self_attn.v_proj.weight", {kv * head, d});
    if (family == "qwen2")
      add(p + "self_attn.q_proj.bias", {heads * head}), add(p + "self_attn.k_proj.bias", {kv * head}),
          add(p + "self_attn.v_proj.bias", {kv * head});
    add(p + "mlp.gate_proj.weight", {mlp, d}), add(p + "mlp.up_proj.weight", {mlp, d}),
        add(p + "mlp.down_proj.weight", {d, mlp});
  }
  return m;
}

/// Ids that differ with the seed.
inline std::vector<std::int64_t> some_ids(std::int64_t count, std::int64_t seed = 0) {
  std::vector<std::int64_t> ids;
  for (std::int64_t i = 0; i < count; ++i) ids.push_back((i * 31 + seed * 17 + 3) % 97);
  return ids;
}

/// Every hook point of a model, by the names the documentation lists.
inline std::vector<std::string> all_points(const ModelConfig& config) {
  std::vector<std::string> names{"hook_embed", "ln_final.hook_normalized"};
  for (std::int64_t l = 0; l < config.n_layers; ++l)
    for (const char* site : {"hook_resid_pre", "ln1.hook_normalized", "attn.hook_q", "attn.hook_k", "attn.hook_v",
                             "attn.hook_pattern", "attn.hook_z", "hook_attn_out", "hook_resid_mid",
                             "ln2.hook_normalized", "mlp.hook_pre", "mlp.hook_post", "hook_mlp_out", "hook_resid_post"})
      if (std::string(site) != "hook_resid_mid" || !config.parallel_residual)
        names.push_back("blocks." + std::to_string(l) + "." + site);
  return names;
}

}  // namespace steer::test
