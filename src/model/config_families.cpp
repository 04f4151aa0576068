// What each family's config.json says, with the defaults of its configuration class in transformers 5.23.
#include "model/config_families.hpp"

#include <cmath>

#include "core/format_text.hpp"
#include "model/config_rope.hpp"

namespace steer::model::detail {
namespace {

ActivationKind activation(const std::string& name, const char* key) {
  if (name == "silu" || name == "swish") return ActivationKind::silu;
  if (name == "gelu") return ActivationKind::gelu;
  if (name == "gelu_pytorch_tanh" || name == "gelu_new" || name == "gelu_fast") return ActivationKind::gelu_tanh;
  if (name == "relu") return ActivationKind::relu;
  fail(ErrorCode::unsupported, "ModelConfig::from_hugging_face",
       "expected {} to be one of silu, gelu, gelu_new, gelu_pytorch_tanh, relu but got \"{}\"; steer does not have it",
       key, name);
}

std::int64_t derived_head(ConfigReader& in, const ModelConfig& c) {
  if (in.has("head_dim")) return in.size("head_dim");
  if (c.d_model % c.n_heads != 0)
    in.contradiction(format_text("a width of {} that {} heads do not divide", c.d_model, c.n_heads));
  return c.d_model / c.n_heads;
}

std::int64_t size_of(ConfigReader& in, const char* key, std::int64_t missing) {
  return missing > 0 ? in.size(key, missing) : in.size(key);
}

/// What nearly all write alike.
void read_common(ConfigReader& in, const Family& f, ModelConfig& c) {
  c.vocab_size = size_of(in, "vocab_size", f.sizes.vocab);
  c.d_model = size_of(in, "hidden_size", f.sizes.width);
  c.n_layers = in.layers("num_hidden_layers", f.sizes.layers);
  c.n_heads = size_of(in, "num_attention_heads", f.sizes.heads);
  // A class's number of key-value heads is for its default sizes; a file that gives none beside others means all.
  const bool others = in.has("num_attention_heads");
  c.n_kv_heads = in.size("num_key_value_heads", others || f.sizes.kv_heads == 0 ? c.n_heads : f.sizes.kv_heads);
  c.d_mlp = size_of(in, "intermediate_size", f.sizes.mlp);
  c.context = size_of(in, "max_position_embeddings", f.sizes.context);
  c.norm_eps = in.number("rms_norm_eps", f.eps);
  c.d_head = f.sizes.head > 0 ? in.size("head_dim", f.sizes.head) : derived_head(in, c);
  c.activation = activation(in.text("hidden_act", "silu"), "hidden_act");
  c.tied_embeddings = in.boolean("tie_word_embeddings", f.tied);
  in.only("use_bidirectional_attention", false);
}

RopeDefaults rope_defaults(const Family& f, const ModelConfig& c) {
  return {.theta = f.theta, .local_theta = f.theta, .context = c.context, .head = c.d_head};
}

void set_rotary(ModelConfig& c, const Ropes& ropes) {
  c.rotary_dims = static_cast<std::int64_t>(static_cast<double>(c.d_head) * ropes.rotary_share);
}

using Types = std::vector<std::string>;

/// A kind for each layer: `layer_types` where the file has it, else the family's own rule.
template <class Rule>
Types layer_types(ConfigReader& in, std::int64_t layers, std::initializer_list<std::string_view> known, Rule rule) {
  Types out;
  if (!in.has("layer_types")) {
    for (std::int64_t i = 0; i < layers; ++i) out.emplace_back(rule(i));
    return out;
  }
  const auto& types = in.at("layer_types");
  require(types.is_array() && std::ssize(types) == layers, ErrorCode::config, in.where(),
          "expected layer_types to name {} layers but got {}; correct the file", layers, types.dump().substr(0, 120));
  for (const auto& type : types) {
    const bool ok =
        type.is_string() && std::find(known.begin(), known.end(), type.get_ref<const std::string&>()) != known.end();
    require(ok, ErrorCode::unsupported, in.where(), "expected layer_types of {} but got {}; steer does not have it",
            fmt::join(known, " or "), type.dump());
    out.push_back(type.get<std::string>());
  }
  return out;
}

constexpr const char* kFull = "full_attention";
constexpr const char* kSliding = "sliding_attention";

template <class Rule>
Types attention_types(ConfigReader& in, std::int64_t layers, Rule slides) {
  return layer_types(in, layers, {kFull, kSliding}, [&](std::int64_t i) { return slides(i) ? kSliding : kFull; });
}

void set_layers(ModelConfig& c, const Ropes& ropes, const Types& types, std::int64_t window) {
  set_rotary(c, ropes);
  // Of other kinds the file counts the stretched length as its own.
  if (ropes.full.kind == RopeKind::dynamic)
    c.context = static_cast<std::int64_t>(static_cast<double>(c.context) * std::max(ropes.full.factor, 1.0));
  for (const auto& type : types) {
    const bool slides = type == kSliding;
    c.layers.push_back({.window = slides ? window : 0, .rope = slides ? ropes.sliding : ropes.full});
  }
}

/// One rope, and a window on every layer or on none.
void set_uniform_layers(ConfigReader& in, const Family& f, ModelConfig& c, std::int64_t window) {
  set_layers(c, read_ropes(in, rope_defaults(f, c)),
             Types(static_cast<std::size_t>(c.n_layers), window > 0 ? kSliding : kFull), window);
}

void read_experts(ConfigReader& in, const Family& f, ModelConfig& c, const char* width_key) {
  auto& e = c.experts;
  // Published files say num_experts or num_local_experts, transformers 5 the latter.
  e.count = in.has("num_local_experts") ? in.size("num_local_experts") : in.size("num_experts", f.sizes.experts);
  if (in.has("num_experts") && in.size("num_experts") != e.count)
    in.contradiction(format_text("num_experts = {} and num_local_experts = {}", in.size("num_experts"), e.count));
  e.per_token = in.size("num_experts_per_tok", f.sizes.per_token);
  if (in.has("experts_per_token") && in.size("experts_per_token") != e.per_token)
    in.contradiction(
        format_text("experts_per_token = {} and num_experts_per_tok = {}", in.size("experts_per_token"), e.per_token));
  e.d_mlp = size_of(in, width_key, f.sizes.d_expert);
  in.skip({"output_router_logits", "router_aux_loss_coef", "router_jitter_noise"});  // training
}

/// Qwen: which layers are sparse.
void read_sparse_layers(ConfigReader& in, ModelConfig& c) {
  const auto step = in.size("decoder_sparse_step", 1);
  std::vector<std::int64_t> dense;
  if (in.has("mlp_only_layers"))
    for (const auto& layer : in.at("mlp_only_layers"))
      if (layer.is_number_integer()) dense.push_back(layer.get<std::int64_t>());
  for (std::int64_t i = 0; i < c.n_layers; ++i)
    c.layers[static_cast<std::size_t>(i)].experts =
        std::find(dense.begin(), dense.end(), i) == dense.end() && (i + 1) % step == 0;
}

/// Qwen 2 and 3: whether and where a window slides.
template <class Rule>
void set_qwen_layers(ConfigReader& in, const Family& f, ModelConfig& c, Rule slides) {
  const bool use = in.boolean("use_sliding_window", false);
  // Written as 0 or left in place where it is not used.
  const std::int64_t window = use ? in.size("sliding_window", 4096) : in.integer("sliding_window", 0);
  const auto last = in.integer("max_window_layers", 28);
  const auto types = attention_types(in, c.n_layers, [&](std::int64_t i) { return use && slides(i, last); });
  set_layers(c, read_ropes(in, rope_defaults(f, c)), types, window);
}

}  // namespace

void read_llama(ConfigReader& in, const Family& f, ModelConfig& c) {
  read_common(in, f, c);
  c.attn_bias = c.attn_out_bias = in.boolean("attention_bias", false);
  c.mlp_bias = in.boolean("mlp_bias", false);
  set_uniform_layers(in, f, c, 0);
}

void read_mistral(ConfigReader& in, const Family& f, ModelConfig& c) {
  read_common(in, f, c);
  in.only("attention_bias", false);
  const auto window = in.size("sliding_window", 0);
  const auto types = attention_types(in, c.n_layers, [&](auto) { return window > 0; });
  set_layers(c, read_ropes(in, rope_defaults(f, c)), types, window);
}

void read_ministral3(ConfigReader& in, const Family& f, ModelConfig& c) {
  read_common(in, f, c);
  in.only("attention_bias", false);
  RopeDefaults defaults = rope_defaults(f, c);
  defaults.rope = {{"rope_type", "yarn"},
                   {"rope_theta", 1e6},
                   {"factor", 16.0},
                   {"original_max_position_embeddings", 16384},
                   {"beta_fast", 32.0},
                   {"beta_slow", 1.0},
                   {"mscale_all_dim", 1.0},
                   {"mscale", 1.0},
                   {"llama_4_scaling_beta", 0.1}};
  const auto window = in.size("sliding_window", 0);
  const auto types = attention_types(in, c.n_layers, [&](auto) { return window > 0; });
  const Ropes ropes = read_ropes(in, defaults);
  set_layers(c, ropes, types, window);
  c.query_growth = ropes.query_growth;
  c.query_growth_period = ropes.full.original_context;
}

void read_mixtral(ConfigReader& in, const Family& f, ModelConfig& c) {
  read_common(in, f, c);
  read_experts(in, f, c, "intermediate_size");
  set_uniform_layers(in, f, c, in.size("sliding_window", 0));
  for (auto& layer : c.layers) layer.experts = true;
}

void read_qwen2(ConfigReader& in, const Family& f, ModelConfig& c) {
  read_common(in, f, c);
  c.attn_bias = true;
  set_qwen_layers(in, f, c, [](auto i, auto first) { return i >= first; });
}

void read_qwen3(ConfigReader& in, const Family& f, ModelConfig& c) {
  read_common(in, f, c);
  c.attn_bias = c.attn_out_bias = in.boolean("attention_bias", false);
  c.qk_norm = true;
  set_qwen_layers(in, f, c, [](auto i, auto first) { return i >= first; });
}

void read_qwen2_moe(ConfigReader& in, const Family& f, ModelConfig& c) {
  read_common(in, f, c);
  c.attn_bias = in.boolean("qkv_bias", true);
  read_experts(in, f, c, "moe_intermediate_size");
  c.experts.normalise = in.boolean("norm_topk_prob", false);
  c.experts.d_shared = in.size("shared_expert_intermediate_size", f.sizes.d_shared);
  set_qwen_layers(in, f, c, [](auto i, auto last) { return i % 2 == 0 && i < last; });
  read_sparse_layers(in, c);
}

void read_qwen3_moe(ConfigReader& in, const Family& f, ModelConfig& c) {
  read_common(in, f, c);
  c.attn_bias = c.attn_out_bias = in.boolean("attention_bias", false);
  c.qk_norm = true;
  read_experts(in, f, c, "moe_intermediate_size");
  c.experts.normalise = in.boolean("norm_topk_prob", false);
  set_qwen_layers(in, f, c, [](auto, auto) { return true; });
  read_sparse_layers(in, c);
}

void read_qwen3_5(ConfigReader& in, const Family& f, ModelConfig& c) {
  read_common(in, f, c);
  c.attn_bias = c.attn_out_bias = in.boolean("attention_bias", false);
  c.qk_norm = c.norm_plus_one = c.attn_gate = true;
  in.only("attn_output_gate", true);
  in.only("hidden_act", "silu");
  auto& d = c.delta_net;
  d.kernel = in.size("linear_conv_kernel_dim", 4);
  d.d_key = in.size("linear_key_head_dim", 128);
  d.d_value = in.size("linear_value_head_dim", 128);
  d.key_heads = in.size("linear_num_key_heads", 16);
  d.value_heads = in.size("linear_num_value_heads", 32);
  if (d.value_heads % d.key_heads != 0)
    in.contradiction(
        format_text("linear_num_value_heads = {} over linear_num_key_heads = {}", d.value_heads, d.key_heads));
  RopeDefaults defaults = rope_defaults(f, c);
  defaults.rotary_share = 0.25;
  const auto interval = in.size("full_attention_interval", 4);
  const auto types = layer_types(in, c.n_layers, {kFull, "linear_attention"},
                                 [&](std::int64_t i) { return (i + 1) % interval ? "linear_attention" : kFull; });
  in.skip({"mtp_num_hidden_layers", "mtp_use_dedicated_embeddings", "mamba_ssm_dtype", "mlp_only_layers"});
  set_layers(c, read_ropes(in, defaults), types, 0);
  for (std::size_t i = 0; i < types.size(); ++i)
    if (types[i] != kFull) c.layers[i] = {.window = 0, .rope = {}, .mixer = MixerKind::delta_net};
}

void read_gemma(ConfigReader& in, const Family& f, ModelConfig& c) {
  read_common(in, f, c);
  // Old files say "gelu" and mean the approximation; the class reads only this key.
  if (c.activation == ActivationKind::gelu || !in.has("hidden_act")) c.activation = ActivationKind::gelu_tanh;
  in.only("hidden_activation", "gelu_pytorch_tanh");
  c.norm_plus_one = true;
  c.attn_bias = c.attn_out_bias = in.boolean("attention_bias", false);
  c.embed_scale = std::sqrt(static_cast<double>(c.d_model));
  set_uniform_layers(in, f, c, 0);
}

namespace {

/// What Gemma 2 and 3 share.
void read_gemma_2_and_3(ConfigReader& in, const Family& f, ModelConfig& c) {
  read_common(in, f, c);
  // Old files write hidden_act beside hidden_activation, which alone counts.
  c.activation = activation(in.text("hidden_activation", "gelu_pytorch_tanh"), "hidden_activation");
  c.norm_plus_one = c.post_norms = true;
  c.attn_bias = c.attn_out_bias = in.boolean("attention_bias", false);
  c.embed_scale = std::sqrt(static_cast<double>(c.d_model));
  const double scalar = in.number("query_pre_attn_scalar", 256);
  if (!(scalar > 0)) in.contradiction(format_text("query_pre_attn_scalar = {}", scalar));
  c.attn_scale = 1 / std::sqrt(scalar);
}

}  // namespace

void read_gemma2(ConfigReader& in, const Family& f, ModelConfig& c) {
  read_gemma_2_and_3(in, f, c);
  c.attn_soft_cap = in.number("attn_logit_softcapping", in.object().contains("attn_logit_softcapping") ? 0 : 50);
  c.logit_soft_cap = in.number("final_logit_softcapping", in.object().contains("final_logit_softcapping") ? 0 : 30);
  const auto window = in.size("sliding_window", 4096);
  const auto types = attention_types(in, c.n_layers, [](auto i) { return i % 2 == 0; });
  set_layers(c, read_ropes(in, rope_defaults(f, c)), types, window);
}

void read_gemma3(ConfigReader& in, const Family& f, ModelConfig& c) {
  read_gemma_2_and_3(in, f, c);
  c.qk_norm = true;
  c.attn_soft_cap = in.number("attn_logit_softcapping", 0);
  c.logit_soft_cap = in.number("final_logit_softcapping", 0);
  const auto window = in.size("sliding_window", 4096);
  // transformers 5 keeps the pattern under a private name beside layer_types.
  const auto pattern =
      in.has("sliding_window_pattern") ? in.size("sliding_window_pattern") : in.size("_sliding_window_pattern", 6);
  const auto types = attention_types(in, c.n_layers, [&](auto i) { return (i + 1) % pattern != 0; });
  RopeDefaults defaults = rope_defaults(f, c);
  defaults.local_theta = 1e4;
  set_layers(c, read_layered_ropes(in, defaults, "rope_local_base_freq"), types, window);
}

void read_gpt_oss(ConfigReader& in, const Family& f, ModelConfig& c) {
  read_common(in, f, c);
  c.attn_bias = c.attn_out_bias = in.boolean("attention_bias", true);
  c.attn_sinks = true;
  in.only("swiglu_alpha", 1.702);
  c.glu_limit = in.number("swiglu_limit", 7);
  read_experts(in, f, c, "intermediate_size");
  c.experts.bias = true;
  RopeDefaults defaults = rope_defaults(f, c);
  defaults.rope = {{"rope_type", "yarn"}, {"factor", 32.0},    {"beta_fast", 32.0},
                   {"beta_slow", 1.0},    {"truncate", false}, {"original_max_position_embeddings", 4096}};
  in.skip({"initial_context_length"});  // the original code's name of original_max_position_embeddings
  const auto window = in.size("sliding_window", 128);
  const auto types = attention_types(in, c.n_layers, [](auto i) { return i % 2 == 0; });
  set_layers(c, read_ropes(in, defaults), types, window);
  for (auto& layer : c.layers) layer.experts = true;
}

namespace {

void read_olmo(ConfigReader& in, const Family& f, ModelConfig& c) {
  read_common(in, f, c);
  c.attn_bias = c.attn_out_bias = in.boolean("attention_bias", false);
  c.qk_norm = c.qk_norm_whole = c.post_norms = true;
  c.pre_norms = false;
}

}  // namespace

void read_olmo2(ConfigReader& in, const Family& f, ModelConfig& c) {
  read_olmo(in, f, c);
  set_uniform_layers(in, f, c, 0);
}

void read_olmo3(ConfigReader& in, const Family& f, ModelConfig& c) {
  read_olmo(in, f, c);
  const auto window = in.size("sliding_window", 4096);
  const auto types = attention_types(in, c.n_layers, [](auto i) { return (i + 1) % 4 != 0; });
  set_layers(c, read_layered_ropes(in, rope_defaults(f, c), nullptr), types, window);
}

void read_phi3(ConfigReader& in, const Family& f, ModelConfig& c) {
  read_common(in, f, c);
  in.only("attention_bias", false);
  in.only("mlp_bias", false);
  RopeDefaults defaults = rope_defaults(f, c);
  defaults.yarn_is_longrope = true;
  defaults.original = 4096;
  const auto window = in.size("sliding_window", 0);
  set_layers(c, read_ropes(in, defaults), Types(static_cast<std::size_t>(c.n_layers), window > 0 ? kSliding : kFull),
             window);
}

void read_granite(ConfigReader& in, const Family& f, ModelConfig& c) {
  read_llama(in, f, c);
  c.embed_scale = in.number("embedding_multiplier", 1);
  c.attn_scale = in.number("attention_multiplier", 1);
  c.residual_scale = in.number("residual_multiplier", 1);
  const double divisor = in.number("logits_scaling", 1);
  if (!(divisor > 0)) in.contradiction(format_text("logits_scaling = {}", divisor));
  c.logit_scale = 1 / divisor;
}

void read_smollm3(ConfigReader& in, const Family& f, ModelConfig& c) {
  read_common(in, f, c);
  c.attn_bias = c.attn_out_bias = in.boolean("attention_bias", false);
  c.mlp_bias = in.boolean("mlp_bias", false);
  const auto interval = in.size("no_rope_layer_interval", 4);
  std::vector<bool> turns;
  for (std::int64_t i = 0; i < c.n_layers; ++i) turns.push_back((i + 1) % interval != 0);
  if (in.has("no_rope_layers")) {
    const auto& list = in.at("no_rope_layers");
    if (!list.is_array() || std::ssize(list) != c.n_layers)
      in.contradiction(format_text("no_rope_layers = {} for {} layers", list.dump().substr(0, 120), c.n_layers));
    for (std::size_t i = 0; i < turns.size(); ++i) turns[i] = list[i] == 1 || list[i] == true;
  }
  const bool slide = in.boolean("use_sliding_window", false);
  const std::int64_t window = slide ? in.size("sliding_window", 0) : in.integer("sliding_window", 0);
  const auto types = attention_types(
      in, c.n_layers, [&](auto i) { return slide && window > 0 && !turns[static_cast<std::size_t>(i)]; });
  set_layers(c, read_ropes(in, rope_defaults(f, c)), types, window);
  for (std::size_t i = 0; i < turns.size(); ++i)
    if (!turns[i]) c.layers[i].rope = {};
}

void read_gpt2(ConfigReader& in, const Family& f, ModelConfig& c) {
  c.vocab_size = in.size("vocab_size");
  c.d_model = in.size("n_embd");
  c.n_layers = in.layers("n_layer", 0);
  c.n_heads = c.n_kv_heads = in.size("n_head");
  c.d_head = derived_head(in, c);
  c.d_mlp = in.size("n_inner", 4 * c.d_model);
  c.context = in.size("n_positions");
  c.norm = NormKind::layer_norm;
  c.norm_eps = in.number("layer_norm_epsilon", f.eps);
  c.activation = activation(in.text("activation_function", "gelu_new"), "activation_function");
  c.gated_mlp = false;
  c.attn_bias = c.attn_out_bias = c.mlp_bias = true;
  c.learned_positions = true;
  c.tied_embeddings = in.boolean("tie_word_embeddings", f.tied);
  in.only("add_cross_attention", false);
  in.only("scale_attn_by_inverse_layer_idx", false);
  if (!in.boolean("scale_attn_weights", true)) c.attn_scale = 1;
  c.layers.resize(static_cast<std::size_t>(c.n_layers));
}

void read_gpt_neox(ConfigReader& in, const Family& f, ModelConfig& c) {
  c.vocab_size = in.size("vocab_size");
  c.d_model = in.size("hidden_size");
  c.n_layers = in.layers("num_hidden_layers", 0);
  c.n_heads = c.n_kv_heads = in.size("num_attention_heads");
  c.d_head = derived_head(in, c);
  c.d_mlp = in.size("intermediate_size");
  c.context = in.size("max_position_embeddings");
  c.norm = NormKind::layer_norm;
  c.norm_eps = in.number("layer_norm_eps", f.eps);
  c.activation = activation(in.text("hidden_act", "gelu"), "hidden_act");
  c.gated_mlp = false;
  c.attn_bias = c.attn_out_bias = in.boolean("attention_bias", true);
  c.mlp_bias = true;
  c.parallel_residual = in.boolean("use_parallel_residual", true);
  c.tied_embeddings = in.boolean("tie_word_embeddings", f.tied);
  RopeDefaults defaults = rope_defaults(f, c);
  defaults.rotary_share = in.number("rotary_pct", 0.25);
  const Ropes ropes = read_ropes(in, defaults, in.has("rotary_emb_base") ? "rotary_emb_base" : "rope_theta");
  set_layers(c, ropes, Types(static_cast<std::size_t>(c.n_layers), kFull), 0);
}

}  // namespace steer::model::detail
