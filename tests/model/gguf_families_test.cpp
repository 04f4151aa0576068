// GGUF files of each family, written here from the golden folder's models as llama.cpp's convert_hf_to_gguf.py names,
// permutes and describes them: they compute what the Hugging Face folder computes.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include <steer/io/gguf_writer.hpp>
#include <steer/io/tensor_reader.hpp>
#include <steer/model/session.hpp>

#include "support.hpp"

namespace steer {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Tensors = std::vector<std::pair<std::string, at::Tensor>>;

/// How the converter treats one family.
struct Converted {
  const char* folder;
  const char* architecture;
  bool permutes = false;  ///< q and k, so that neighbours rotate together
  bool adds_one = false;  ///< to gains
};
constexpr Converted kFamilies[] = {{"llama_linear", "llama", true},
                                   {"mixtral", "llama", true},
                                   {"qwen2_moe", "qwen2moe"},
                                   {"qwen3_moe", "qwen3moe"},
                                   {"qwen3_moe_mixed", "qwen3moe"},
                                   {"gemma", "gemma", false, true},
                                   {"gpt_oss", "gpt-oss"},
                                   {"olmo2", "olmo2"},
                                   {"olmo3", "olmo2"},
                                   {"phi3", "phi3"},
                                   {"phi3_long", "phi3"},
                                   {"phi3_tied_window", "phi3"},
                                   {"granite", "granite", true},
                                   {"smollm3", "smollm3", true}};

/// Names below a layer.
const std::map<std::string, std::string> kNames = {
    {"input_layernorm.weight", "attn_norm.weight"},
    {"self_attn.q_proj.weight", "attn_q.weight"},
    {"self_attn.k_proj.weight", "attn_k.weight"},
    {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"},
    {"self_attn.q_proj.bias", "attn_q.bias"},
    {"self_attn.k_proj.bias", "attn_k.bias"},
    {"self_attn.v_proj.bias", "attn_v.bias"},
    {"self_attn.o_proj.bias", "attn_output.bias"},
    {"self_attn.qkv_proj.weight", "attn_qkv.weight"},
    {"self_attn.q_norm.weight", "attn_q_norm.weight"},
    {"self_attn.k_norm.weight", "attn_k_norm.weight"},
    {"self_attn.sinks", "attn_sinks.weight"},
    {"mlp.gate_proj.weight", "ffn_gate.weight"},
    {"mlp.up_proj.weight", "ffn_up.weight"},
    {"mlp.down_proj.weight", "ffn_down.weight"},
    {"mlp.gate_up_proj.weight", "ffn_up.weight"},
    {"mlp.gate.weight", "ffn_gate_inp.weight"},
    {"block_sparse_moe.gate.weight", "ffn_gate_inp.weight"},
    {"mlp.router.weight", "ffn_gate_inp.weight"},
    {"mlp.router.bias", "ffn_gate_inp.bias"},
    {"mlp.shared_expert.gate_proj.weight", "ffn_gate_shexp.weight"},
    {"mlp.shared_expert.up_proj.weight", "ffn_up_shexp.weight"},
    {"mlp.shared_expert.down_proj.weight", "ffn_down_shexp.weight"},
    {"mlp.shared_expert_gate.weight", "ffn_gate_inp_shexp.weight"},
    {"mlp.experts.down_proj_bias", "ffn_down_exps.bias"},
};

/// `permute` of the converter: of each head, the two halves become neighbours.
at::Tensor permuted(const at::Tensor& t, std::int64_t heads) {
  return t.reshape({heads, 2, t.size(0) / heads / 2, -1}).transpose(1, 2).reshape(t.sizes()).contiguous();
}

Tensors convert(const TensorReader& file, const ModelConfig& c, const Converted& how) {
  Tensors out;
  std::map<std::string, std::map<std::int64_t, at::Tensor>> experts;
  for (const auto& info : file.tensors()) {
    at::Tensor t = file.read(info.name);
    const std::string& name = info.name;
    if (how.adds_one && name.ends_with("norm.weight")) t = t + 1;
    if (name == "model.embed_tokens.weight") out.emplace_back("token_embd.weight", t);
    if (name == "model.norm.weight") out.emplace_back("output_norm.weight", t);
    if (name == "lm_head.weight") out.emplace_back("output.weight", t);
    if (!name.starts_with("model.layers.")) continue;
    const std::size_t dot = name.find('.', 13);
    const std::string layer = "blk." + name.substr(13, dot - 13) + ".", rest = name.substr(dot + 1);
    if (how.permutes && rest == "self_attn.q_proj.weight") t = permuted(t, c.n_heads);
    if (how.permutes && rest == "self_attn.k_proj.weight") t = permuted(t, c.n_kv_heads);
    if (rest == "mlp.shared_expert_gate.weight") t = t.flatten();
    const bool olmo = c.family.starts_with("olmo"), gpt_oss = c.family == "gpt_oss";
    if (rest == "post_attention_layernorm.weight") {
      out.emplace_back(layer + (olmo || gpt_oss ? "post_attention_norm.weight" : "ffn_norm.weight"), t);
    } else if (rest == "post_feedforward_layernorm.weight") {
      out.emplace_back(layer + "post_ffw_norm.weight", t);
    } else if (rest.starts_with("mlp.experts.gate_up_proj")) {  // gpt-oss: interleaved
      const bool bias = rest.ends_with("_bias");
      for (const auto& [half, part] : {std::pair{0, "gate"}, {1, "up"}}) {
        const at::Tensor mine = t.slice(-1, half, {}, 2);
        out.emplace_back(layer + "ffn_" + part + (bias ? "_exps.bias" : "_exps.weight"),
                         bias ? mine.contiguous() : mine.transpose(1, 2).contiguous());
      }
    } else if (rest == "mlp.experts.down_proj") {
      out.emplace_back(layer + "ffn_down_exps.weight", t.transpose(1, 2).contiguous());
    } else if (const auto found = kNames.find(rest); found != kNames.end()) {
      out.emplace_back(layer + found->second, t);
    } else {  // experts.N.part.weight
      const std::size_t at = rest.find("experts.") + 8, end = rest.find('.', at);
      const std::string part = rest.substr(end + 1, rest.rfind('.') - end - 1);
      const char* to = part == "gate_proj" || part == "w1" ? "gate" : part == "up_proj" || part == "w3" ? "up" : "down";
      experts[layer + "ffn_" + to + "_exps.weight"][std::stoll(rest.substr(at, end - at))] = t;
    }
  }
  for (const auto& [name, each] : experts) {
    std::vector<at::Tensor> all;
    for (const auto& [index, t] : each) all.push_back(t);
    out.emplace_back(name, at::stack(all));
  }
  return out;
}

json describe(const ModelConfig& c, const Converted& how, Tensors& tensors) {
  json m = {{"general.architecture", how.architecture}};
  const auto set = [&](const std::string& key, const json& value) {
    m[std::string(how.architecture) + "." + key] = value;
  };
  set("embedding_length", c.d_model);
  set("block_count", c.n_layers);
  set("attention.head_count", c.n_heads);
  set("attention.head_count_kv", c.n_kv_heads);
  set("attention.key_length", c.d_head);
  set("attention.value_length", c.d_head);
  set("attention.layer_norm_rms_epsilon", c.norm_eps);
  set("feed_forward_length", c.d_mlp);
  set("context_length", c.context);
  set("rope.dimension_count", c.rotary_dims);
  const RopeConfig* full = nullptr;
  std::int64_t window = 0;
  for (const auto& layer : c.layers) {
    window = std::max(window, layer.window);
    if (layer.rope.kind != RopeKind::none && (!full || layer.rope.kind != RopeKind::plain)) full = &layer.rope;
  }
  set("rope.freq_base", full->theta);
  if (full->kind == RopeKind::linear || full->kind == RopeKind::yarn) {
    set("rope.scaling.type", full->kind == RopeKind::linear ? "linear" : "yarn");
    set("rope.scaling.factor", full->factor);
  }
  if (full->kind == RopeKind::yarn) {
    set("rope.scaling.original_context_length", full->original_context);
    set("rope.scaling.yarn_beta_fast", full->beta_fast);
    set("rope.scaling.yarn_beta_slow", full->beta_slow);
  }
  if (full->kind == RopeKind::longrope) {
    set("rope.scaling.original_context_length", full->original_context);
    set("rope.scaling.attn_factor", full->scale);
    tensors.emplace_back("rope_factors_long.weight", at::tensor(full->long_factor, at::kFloat));
    tensors.emplace_back("rope_factors_short.weight", at::tensor(full->short_factor, at::kFloat));
  }
  if (window > 0) set("attention.sliding_window", window);
  if (c.experts.count > 0) {
    set("expert_count", c.experts.count);
    set("expert_used_count", c.experts.per_token);
  }
  if (c.family == "qwen3_moe") set("expert_weights_norm", c.experts.normalise);
  if (c.family == "gpt_oss") set("expert_gating_func", 3);
  if (c.family == "olmo3") {
    json pattern = json::array();
    for (const auto& layer : c.layers) pattern.push_back(layer.window > 0);
    set("attention.sliding_window_pattern", pattern);
  }
  if (c.family == "granite") {
    set("attention.scale", c.attn_scale);
    set("embedding_scale", c.embed_scale);
    set("residual_scale", c.residual_scale);
    set("logit_scale", 1 / c.logit_scale);
  }
  return m;
}

TEST(GoldenFamiliesGguf, ComputeWhatTheFolderComputes) {
  const auto data = test::outside_data("STEER_GOLDEN_DIR", "../shared/fixtures/golden");
  test::CaseCounter counter("golden.families (GGUF)");
  int found = 0;
  for (const auto& how : kFamilies) {
    const fs::path folder = data.path / "families" / how.folder;
    if (!fs::exists(folder / "config.json")) continue;
    ++found;
    SCOPED_TRACE(how.folder);
    try {
      std::ifstream text(folder / "config.json");
      json config = json::parse(text);
      // What a GGUF file cannot say, and llama.cpp fixes.
      if (config.contains("swiglu_limit")) config["swiglu_limit"] = 7.0;
      if (config.contains("no_rope_layers")) config.erase("no_rope_layers");
      const ModelConfig c = ModelConfig::from_hugging_face(config);
      const auto file = open_tensors(folder);
      Tensors tensors = convert(*file, c, how);
      const test::TempDir dir;
      const json metadata = describe(c, how, tensors);
      save_gguf(dir / "model.gguf", metadata, tensors);
      Session ours(Model::load(dir / "model.gguf")), right(Model::from_tensors(c, *file));
      std::vector<std::int64_t> ids;
      for (std::int64_t i = 0; i < 24; ++i) ids.push_back((i * 31 + 7) % c.vocab_size);
      const double error = (ours.forward(ids) - right.forward(ids)).abs().max().item<double>();
      counter.count(error <= 1e-4);
      EXPECT_LE(error, 1e-4);
    } catch (const std::exception& error) {
      counter.count(false);
      ADD_FAILURE() << error.what();
    }
  }
  if (found == 0 && !data.named) GTEST_SKIP() << "no golden families at " << data.path;
}

}  // namespace
}  // namespace steer
