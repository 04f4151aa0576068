// ModelConfig from GGUF metadata. What llama.cpp derives by rule and does not store is derived by the same rule here
// (llama.cpp, src/llama-model.cpp, load_hparams).
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include <steer/io/tensor_reader.hpp>
#include <steer/model/config.hpp>

#include "core/format_text.hpp"
#include "io/bytes.hpp"
#include "model/config_check.hpp"
#include "model/config_reader.hpp"
#include "model/families.hpp"

namespace steer {
namespace {

constexpr auto kFromGguf = "ModelConfig::from_gguf";

/// Keys below the architecture's name that do not change what is computed.
constexpr std::string_view kIgnoredFields[] = {"vocab_size",
                                               "tensor_data_layout",
                                               "rope.scaling.finetuned",
                                               "rope.scaling.original_context_length",
                                               "feed_forward_length",
                                               "expert_feed_forward_length",
                                               "expert_shared_feed_forward_length",
                                               "expert_shared_count",
                                               "rope.dimension_sections"};  // fall together for text

/// The metadata below "<architecture>.", without that prefix.
nlohmann::json section(const nlohmann::json& metadata, const std::string& prefix) {
  auto out = nlohmann::json::object();
  for (const auto& [key, value] : metadata.items())
    if (key.starts_with(prefix)) out[key.substr(prefix.size())] = value;
  return out;
}

std::vector<double> factors(const TensorReader& file, const char* name) {
  const at::Tensor values = file.read(name).to(at::kFloat).contiguous();
  const auto* from = values.const_data_ptr<float>();
  return {from, from + values.numel()};
}

RopeConfig rope(model::detail::ConfigReader& in, const TensorReader& file, const ModelConfig& c, double theta) {
  RopeConfig out{.kind = RopeKind::plain, .theta = in.number("rope.freq_base", theta)};
  std::string scaling = in.text("rope.scaling.type", "none");
  const double factor = in.number("rope.scaling.factor", in.number("rope.scale_linear", 1));
  in.skip({"rope.scale_linear"});
  if (file.contains("rope_factors_long.weight")) scaling = "longrope";
  const double attention = in.number("rope.scaling.attn_factor", 1);
  out.original_context = in.size("rope.scaling.original_context_length", c.context);
  require(factor > 0 && out.theta > 0 && attention > 0, ErrorCode::config, kFromGguf,
          "expected positive rotary constants but got base {}, factor {} and attention factor {}; the file is damaged",
          out.theta, factor, attention);
  if (scaling == "longrope") {
    out.kind = RopeKind::longrope;
    out.long_factor = factors(file, "rope_factors_long.weight");
    out.short_factor = factors(file, "rope_factors_short.weight");
    out.scale = attention;
  } else if (scaling == "yarn") {
    out.kind = RopeKind::yarn;
    out.factor = factor;
    out.beta_fast = in.number("rope.scaling.yarn_beta_fast", 32);
    out.beta_slow = in.number("rope.scaling.yarn_beta_slow", 1);
    out.truncate = c.family != "gpt_oss";  // which the file cannot say
    in.only("rope.scaling.yarn_ext_factor", 1.0);
    const auto grown = [&](double weight) { return factor <= 1 ? 1 : 0.1 * weight * std::log(factor) + 1; };
    const double natural = grown(1) / grown(in.number("rope.scaling.yarn_log_multiplier", 0));
    out.scale = in.number("rope.scaling.yarn_attn_factor", natural) * attention;
  } else {
    require(scaling == "none" || scaling == "linear", ErrorCode::unsupported, kFromGguf,
            "expected rope.scaling.type none, linear, yarn or longrope but got \"{}\"; steer does not have it",
            scaling);
    in.only("rope.scaling.attn_factor", 1.0);
    if (factor != 1) {
      out.kind = RopeKind::linear;
      out.factor = factor;
    }
  }
  if (out.kind == RopeKind::plain || out.kind == RopeKind::linear) out.original_context = 0;
  return out;
}

/// Whether layer i looks at a window: by the file's pattern, a period or a list, or by the family's rule.
std::function<bool(std::int64_t)> sliding_rule(model::detail::ConfigReader& in, const std::string& family) {
  constexpr auto key = "attention.sliding_window_pattern";
  if (in.has(key) && in.at(key).is_array())
    return [list = in.at(key)](std::int64_t i) {
      const auto at = static_cast<std::size_t>(i);
      return at < list.size() && (list[at] == true || list[at] == 1);
    };
  if (family == "gpt_oss") return [](std::int64_t i) { return i % 2 == 0; };
  const std::int64_t missing = family == "gemma2" ? 2 : family == "gemma3" ? 6 : family == "olmo3" ? 4 : 0;
  const auto pattern = in.size(key, missing);
  return [pattern](std::int64_t i) { return pattern == 0 || (i + 1) % pattern != 0; };
}

void read_gemma(model::detail::ConfigReader& in, ModelConfig& c) {
  // The stored gains are 1 + weight already.
  c.activation = ActivationKind::gelu_tanh;
  c.post_norms = c.family != "gemma";
  c.embed_scale = std::sqrt(static_cast<double>(c.d_model));
  if (c.family == "gemma") return;
  if (c.family == "gemma2") {
    c.attn_soft_cap = in.number("attn_logit_softcapping", 50);
    c.logit_soft_cap = in.number("final_logit_softcapping", 30);
  } else {
    in.has("attn_logit_softcapping");  // written by some converters, used by none: Gemma 3 has no caps
    c.logit_soft_cap = in.number("final_logit_softcapping", 0);
  }
  // Only the 27B models scale by another width than the head's.
  const bool is_27b = c.n_layers == (c.family == "gemma2" ? 46 : 62);
  c.attn_scale = 1 / std::sqrt(static_cast<double>(is_27b ? c.d_model / c.n_heads : c.d_head));
}

/// GPT-2 and GPT-NeoX: what the architecture's name alone says.
void read_gpt(model::detail::ConfigReader& in, ModelConfig& c) {
  c.norm = NormKind::layer_norm;
  c.gated_mlp = false;
  c.learned_positions = c.family == "gpt2";
  c.activation = c.learned_positions ? ActivationKind::gelu_tanh : ActivationKind::gelu;
  if (c.learned_positions)
    c.rotary_dims = 0;
  else
    c.parallel_residual = in.boolean("use_parallel_residual", true);
}

/// Qwen 3.5: which layers have a recurrent state, and its sizes.
void read_delta_net(model::detail::ConfigReader& in, ModelConfig& c) {
  c.attn_gate = c.qk_norm = true;
  auto& d = c.delta_net;
  d.kernel = in.size("ssm.conv_kernel");
  d.d_key = in.size("ssm.state_size");
  d.key_heads = in.size("ssm.group_count");
  d.value_heads = in.size("ssm.time_step_rank");
  const auto inner = in.size("ssm.inner_size");
  if (inner % d.value_heads != 0)
    in.contradiction(format_text("ssm.inner_size = {} over {} value heads", inner, d.value_heads));
  d.d_value = inner / d.value_heads;
  const auto interval = in.size("full_attention_interval", 4);
  const bool listed = in.has("attention.recurrent_layers");
  const auto list = listed ? in.at("attention.recurrent_layers") : nlohmann::json();
  if (listed && (!list.is_array() || std::ssize(list) < c.n_layers))
    in.contradiction(
        format_text("attention.recurrent_layers = {} for {} layers", list.dump().substr(0, 120), c.n_layers));
  for (std::int64_t i = 0; i < c.n_layers; ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (listed ? list[at] == true : (i + 1) % interval != 0) c.layers[at] = {.mixer = MixerKind::delta_net};
  }
}

/// Sizes of experts are read off their tensors [experts, width, d_model]; old files do not write them.
void read_experts(model::detail::ConfigReader& in, const TensorReader& file, ModelConfig& c) {
  auto& e = c.experts;
  e.count = in.integer("expert_count", 0);
  if (e.count == 0) return;
  e.per_token = in.size("expert_used_count");
  e.normalise = in.boolean("expert_weights_norm", c.family != "qwen2_moe");
  e.bias = c.family == "gpt_oss";
  in.only("expert_gating_func", c.family == "gpt_oss" ? 3 : 1);
  in.only("expert_weights_scale", 1.0);
  for (std::int64_t i = 0; i < c.n_layers; ++i) {
    const auto layer = format_text("blk.{}.", i);
    c.layers[static_cast<std::size_t>(i)].experts = file.contains(layer + "ffn_gate_inp.weight");
    if (const auto* t = file.find(layer + "ffn_gate_exps.weight"); t && t->shape.size() == 3) e.d_mlp = t->shape[1];
    if (const auto* t = file.find(layer + "ffn_gate_shexp.weight"); t && t->shape.size() == 2) e.d_shared = t->shape[0];
  }
}

}  // namespace

ModelConfig ModelConfig::from_gguf(const TensorReader& file) {
  const auto& metadata = file.metadata();
  model::detail::ConfigReader general(metadata, kFromGguf);
  const auto arch = general.text("general.architecture");
  const auto* family = model::detail::find_architecture(arch);
  require(family, ErrorCode::unsupported, kFromGguf,
          "expected a general.architecture of {} but got {} ({}); take a model of one of these families, or "
          "add it as docs/adding-a-family.md says",
          model::detail::architectures(), io::detail::quote(arch), file.path().string());
  const auto keys = section(metadata, arch + ".");
  model::detail::ConfigReader in(keys, kFromGguf, arch + ".");
  ModelConfig c;
  c.family = family->name;
  // llama.cpp has one architecture for these.
  if (arch == "llama" && in.integer("expert_count", 0) > 0) c.family = "mixtral";
  if (arch == "olmo2" && in.has("attention.sliding_window")) c.family = "olmo3";
  c.name = general.text("general.name", "");
  c.vocab_size = file.info("token_embd.weight").shape.at(0);
  c.d_model = in.size("embedding_length");
  // Blocks that predict further tokens stand behind those of the model itself.
  c.n_layers = in.layers("block_count", 0) - in.integer("nextn_predict_layers", 0);
  c.n_heads = in.size("attention.head_count");
  c.n_kv_heads = in.size("attention.head_count_kv", c.n_heads);
  c.d_head = in.size("attention.key_length", c.d_model / c.n_heads);
  if (in.size("attention.value_length", c.d_head) != c.d_head) in.contradiction("values of another width than keys");
  c.rotary_dims = in.size("rope.dimension_count", c.d_head);
  const bool gpt = c.family.starts_with("gpt") && c.family != "gpt_oss";
  if (gpt) read_gpt(in, c);
  c.context = in.size("context_length");
  c.norm_eps = in.number(gpt ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon");
  in.only("attention.causal", true);
  c.attn_bias = file.contains("blk.0.attn_q.bias") || file.contains("blk.0.attn_qkv.bias");
  c.attn_out_bias = file.contains("blk.0.attn_output.bias");
  c.mlp_bias = file.contains("blk.0.ffn_up.bias");
  c.qk_norm = file.contains("blk.0.attn_q_norm.weight");
  c.tied_embeddings = !file.contains("output.weight");
  const bool olmo = c.family.starts_with("olmo"), gemma = c.family.starts_with("gemma");
  if (gemma) read_gemma(in, c);
  if (olmo) {
    c.qk_norm_whole = c.post_norms = true;
    c.pre_norms = false;
  }
  if (c.family == "gpt_oss") {
    c.attn_sinks = true;
    c.glu_limit = 7;  // which the file does not say
  }
  if (c.family == "granite") {
    c.attn_scale = in.number("attention.scale", 0);
    c.embed_scale = in.number("embedding_scale", 1);
    c.residual_scale = in.number("residual_scale", 1);
    const double divisor = in.number("logit_scale", 1);
    if (!(divisor > 0)) in.contradiction(format_text("logit_scale = {}", divisor));
    c.logit_scale = 1 / divisor;
  }
  // Written as 0 where there is none.
  const auto window = in.integer("attention.sliding_window", c.family == "gemma2" ? 4096 : 0);
  const RopeConfig global =
      c.learned_positions ? RopeConfig() : rope(in, file, c, c.family == "gemma3" ? 1e6 : family->theta);
  RopeConfig local = global;
  // Layers with a window that turn unscaled.
  if (c.family == "gemma3" || c.family == "olmo3") local = {.kind = RopeKind::plain, .theta = global.theta};
  local.theta = in.number("rope.freq_base_swa", c.family == "gemma3" ? 1e4 : global.theta);
  if (const double growth = in.number("attention.temperature_scale", 0); growth != 0) {
    c.query_growth = growth;
    c.query_growth_period = global.original_context;
  }
  const auto slides = sliding_rule(in, c.family);
  for (std::int64_t i = 0; i < c.n_layers; ++i) {
    LayerConfig layer =
        window > 0 && slides(i) ? LayerConfig{.window = window, .rope = local} : LayerConfig{.rope = global};
    if (c.family == "smollm3" && (i + 1) % 4 == 0) layer.rope = {};
    c.layers.push_back(std::move(layer));
  }
  if (c.family == "qwen3_5") read_delta_net(in, c);
  read_experts(in, file, c);
  const bool all_sparse = std::all_of(c.layers.begin(), c.layers.end(), [](const auto& l) { return l.experts; });
  c.d_mlp = in.size("feed_forward_length", all_sparse ? c.experts.d_mlp : 0);
  // The converter writes 4 times the width whatever n_inner was.
  if (const auto* up = file.find("blk.0.ffn_up.weight"); gpt && up && up->shape.size() == 2) c.d_mlp = up->shape[0];
  for (const auto* key : {"tokenizer.ggml.bos_token_id"})
    if (general.has(key)) c.bos_ids.push_back(general.integer(key));
  for (const auto* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"})
    if (general.has(key)) c.eos_ids.push_back(general.integer(key));
  in.finish(kIgnoredFields);
  model::detail::complete_and_check(c, kFromGguf);
  return c;
}

}  // namespace steer
