// ModelConfig from a Hugging Face config.json: one function a family, each reading exactly the keys that decide its
// numbers, with the defaults of that family's configuration class in transformers.
#include <cmath>

#include <steer/model/config.hpp>

#include "model/config_check.hpp"
#include "model/config_reader.hpp"

namespace steer {
namespace {

using model::detail::ConfigReader;
constexpr auto kWhere = "ModelConfig::from_hugging_face";

/// Keys that do not change what a forward pass in f32 computes at inference: training, generation and bookkeeping.
constexpr std::string_view kIgnored[] = {
    // bookkeeping
    "_name_or_path", "architectures", "auto_map", "transformers_version", "torch_dtype", "dtype", "model_type",
    "name_or_path", "unsloth_version", "unsloth_fixed", "_attn_implementation", "_attn_implementation_autoset",
    "attn_implementation", "_commit_hash", "_sliding_window_pattern", "chunk_size_feed_forward", "return_dict",
    "output_attentions", "output_hidden_states", "torchscript", "tokenizer_class", "task_specific_params", "id2label",
    "label2id", "problem_type", "is_decoder", "is_encoder_decoder", "is_llama_config", "_num_labels", "num_labels",
    "n_ctx",
    // dropout and initialisation: training only
    "attention_dropout", "hidden_dropout", "classifier_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop",
    "initializer_range", "gradient_checkpointing",
    // heads and summaries that a language model does not have
    "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
    // generation and caching
    "use_cache", "cache_implementation", "pad_token_id", "do_sample", "temperature", "top_p", "top_k", "max_length",
    "max_new_tokens", "repetition_penalty",
    // how a computation is carried out, not what it gives
    "pretraining_tp", "reorder_and_upcast_attn", "rope_interleaved"};

std::vector<std::int64_t> ids(ConfigReader& in, const char* key) {
  if (!in.has(key)) return {};
  const auto& value = in.at(key);
  if (value.is_number_integer()) return {value.get<std::int64_t>()};
  std::vector<std::int64_t> out;
  if (value.is_array())
    for (const auto& id : value)
      if (id.is_number_integer()) out.push_back(id.get<std::int64_t>());
  require(value.is_array() && out.size() == value.size(), ErrorCode::config, kWhere,
          "expected {} to be a token id or a list of them but got {}; correct the file", key, value.dump());
  return out;
}

ActivationKind activation(const std::string& name, const char* key) {
  if (name == "silu" || name == "swish") return ActivationKind::silu;
  if (name == "gelu") return ActivationKind::gelu;
  if (name == "gelu_pytorch_tanh" || name == "gelu_new" || name == "gelu_fast") return ActivationKind::gelu_tanh;
  if (name == "relu") return ActivationKind::relu;
  fail(ErrorCode::unsupported, kWhere,
       "expected {} to be one of silu, gelu, gelu_new, gelu_pytorch_tanh, relu but got \"{}\"; steer does not have it",
       key, name);
}

/// Fills theta and scaling from one rope object: `rope_scaling` of published files (theta beside it) or one entry of
/// `rope_parameters` of transformers 5 (theta inside).
RopeConfig rope(const nlohmann::json& object, const std::string& key, double theta, double* partial = nullptr) {
  require(object.is_object(), ErrorCode::config, kWhere, "expected {} to be an object but got {}; correct the file",
          key, object.dump().substr(0, 80));
  ConfigReader in(object, kWhere, key + ".");
  RopeConfig out{.kind = RopeKind::plain};
  out.theta = in.number("rope_theta", theta);
  const std::string kind = in.has("rope_type") ? in.text("rope_type") : in.text("type", "default");
  in.has("type");
  if (partial) *partial = in.number("partial_rotary_factor", *partial);
  if (const auto found = find_enum<RopeKind>(kind); found && *found != RopeKind::none)
    out.kind = *found;
  else
    fail(ErrorCode::unsupported, kWhere,
         "expected {}.rope_type default, linear or llama3 but got \"{}\"; steer does not have it", key, kind);
  if (out.kind != RopeKind::plain) out.factor = in.number("factor");
  if (out.kind == RopeKind::llama3) {
    out.low_freq_factor = in.number("low_freq_factor");
    out.high_freq_factor = in.number("high_freq_factor");
    out.original_context = in.size("original_max_position_embeddings");
  }
  constexpr std::string_view harmless[] = {"factor", "original_max_position_embeddings"};
  in.finish(out.kind == RopeKind::plain ? std::span<const std::string_view>(harmless)
                                        : std::span<const std::string_view>());
  require(out.theta > 0 && out.factor > 0 && out.high_freq_factor > out.low_freq_factor, ErrorCode::config, kWhere,
          "expected positive rotary constants in {} but got {}; correct the file", key, object.dump());
  return out;
}

/// The rope of all layers, from either layout. `theta_key` is the published name of the base.
RopeConfig single_rope(ConfigReader& in, const char* theta_key, double theta, double* partial = nullptr) {
  const bool old_theta = in.has(theta_key);
  const double base = in.number(theta_key, theta);
  const bool scaling = in.has("rope_scaling");
  if (in.has("rope_parameters")) {
    const auto out = rope(in.at("rope_parameters"), "rope_parameters", base, partial);
    if (old_theta && out.theta != base)
      in.contradiction(fmt::format("{} = {} and rope_parameters.rope_theta = {}", theta_key, base, out.theta));
    return out;
  }
  return scaling ? rope(in.at("rope_scaling"), "rope_scaling", base)
                 : RopeConfig{.kind = RopeKind::plain, .theta = base};
}

/// Which layers slide: `layer_types` where the file has it, else the family's own rule.
std::vector<bool> sliding_layers(ConfigReader& in, std::int64_t layers, const std::function<bool(std::int64_t)>& rule) {
  std::vector<bool> out(layers);
  if (!in.has("layer_types")) {
    for (std::int64_t i = 0; i < layers; ++i) out[i] = rule(i);
    return out;
  }
  const auto& types = in.at("layer_types");
  require(types.is_array() && static_cast<std::int64_t>(types.size()) == layers, ErrorCode::config, kWhere,
          "expected layer_types to name {} layers but got {}; correct the file", layers, types.dump().substr(0, 120));
  for (std::int64_t i = 0; i < layers; ++i) {
    if (types[i] == "sliding_attention")
      out[i] = true;
    else
      require(types[i] == "full_attention", ErrorCode::unsupported, kWhere,
              "expected layer_types of full_attention or sliding_attention but got {}; steer does not have it",
              types[i].dump());
  }
  return out;
}

/// What Llama, Mistral, Qwen and Gemma write alike.
ModelConfig llama_like(ConfigReader& in) {
  ModelConfig c;
  c.vocab_size = in.size("vocab_size");
  c.d_model = in.size("hidden_size");
  c.n_layers = in.size("num_hidden_layers");
  c.n_heads = in.size("num_attention_heads");
  c.n_kv_heads = in.size("num_key_value_heads", c.n_heads);
  c.d_mlp = in.size("intermediate_size");
  c.context = in.size("max_position_embeddings");
  c.norm_eps = in.number("rms_norm_eps");
  in.only("use_bidirectional_attention", false);
  return c;
}

void set_layers(ModelConfig& c, const RopeConfig& rope, std::int64_t window, const std::vector<bool>& sliding) {
  for (std::int64_t i = 0; i < c.n_layers; ++i) c.layers.push_back({sliding[i] ? window : 0, rope});
}

std::int64_t derived_head(ConfigReader& in, const ModelConfig& c) {
  if (in.has("head_dim")) return in.size("head_dim");
  if (c.d_model % c.n_heads != 0)
    in.contradiction(fmt::format("a width of {} that {} heads do not divide", c.d_model, c.n_heads));
  return c.d_model / c.n_heads;
}

ModelConfig llama(ConfigReader& in) {
  ModelConfig c = llama_like(in);
  c.d_head = derived_head(in, c);
  c.activation = activation(in.text("hidden_act", "silu"), "hidden_act");
  c.attn_bias = c.attn_out_bias = in.boolean("attention_bias", false);
  c.mlp_bias = in.boolean("mlp_bias", false);
  c.tied_embeddings = in.boolean("tie_word_embeddings", false);
  set_layers(c, single_rope(in, "rope_theta", 10000), 0, std::vector<bool>(c.n_layers));
  return c;
}

ModelConfig mistral(ConfigReader& in) {
  ModelConfig c = llama_like(in);
  c.d_head = derived_head(in, c);
  c.activation = activation(in.text("hidden_act", "silu"), "hidden_act");
  c.tied_embeddings = in.boolean("tie_word_embeddings", false);
  const auto window = in.size("sliding_window", 0);
  in.only("attention_bias", false);
  const auto slides = sliding_layers(in, c.n_layers, [&](auto) { return window > 0; });
  set_layers(c, single_rope(in, "rope_theta", 10000), window, slides);
  return c;
}

ModelConfig qwen(ConfigReader& in, bool third) {
  ModelConfig c = llama_like(in);
  // Qwen3's configuration class has 128 for a head that the file does not give; Qwen2 divides the width.
  c.d_head = third ? in.size("head_dim", 128) : derived_head(in, c);
  c.activation = activation(in.text("hidden_act", "silu"), "hidden_act");
  c.attn_bias = third ? in.boolean("attention_bias", false) : true;
  c.attn_out_bias = third && c.attn_bias;
  c.qk_norm = third;
  c.tied_embeddings = in.boolean("tie_word_embeddings", false);
  const bool slide = in.boolean("use_sliding_window", false);
  const auto first_sliding = in.integer("max_window_layers", 28);
  const auto window = in.size("sliding_window", slide ? 4096 : 0);
  const auto slides = sliding_layers(in, c.n_layers, [&](auto i) { return slide && i >= first_sliding; });
  set_layers(c, single_rope(in, "rope_theta", 10000), window, slides);
  return c;
}

/// What Gemma 2 and 3 share.
ModelConfig gemma(ConfigReader& in) {
  ModelConfig c = llama_like(in);
  c.d_head = in.size("head_dim", 256);
  in.has("hidden_act");  // written beside hidden_activation by old files, which alone counts
  c.activation = activation(in.text("hidden_activation", "gelu_pytorch_tanh"), "hidden_activation");
  c.norm_plus_one = c.post_norms = true;
  c.attn_bias = c.attn_out_bias = in.boolean("attention_bias", false);
  c.tied_embeddings = in.boolean("tie_word_embeddings", true);
  c.embed_scale = std::sqrt(static_cast<double>(c.d_model));
  const double scalar = in.number("query_pre_attn_scalar", 256);
  if (!(scalar > 0)) in.contradiction(fmt::format("query_pre_attn_scalar = {}", scalar));
  c.attn_scale = 1 / std::sqrt(scalar);
  return c;
}

ModelConfig gemma2(ConfigReader& in) {
  ModelConfig c = gemma(in);
  c.attn_soft_cap = in.number("attn_logit_softcapping", 0);
  c.logit_soft_cap = in.number("final_logit_softcapping", 0);
  const auto window = in.size("sliding_window");
  const auto slides = sliding_layers(in, c.n_layers, [](auto i) { return i % 2 == 0; });
  set_layers(c, single_rope(in, "rope_theta", 10000), window, slides);
  return c;
}

ModelConfig gemma3(ConfigReader& in) {
  ModelConfig c = gemma(in);
  c.qk_norm = true;
  c.attn_soft_cap = in.number("attn_logit_softcapping", 0);
  c.logit_soft_cap = in.number("final_logit_softcapping", 0);
  const auto window = in.size("sliding_window");
  // transformers 5 keeps the pattern under a private name beside layer_types.
  const auto pattern =
      in.has("sliding_window_pattern") ? in.size("sliding_window_pattern") : in.size("_sliding_window_pattern", 6);
  const auto slides = sliding_layers(in, c.n_layers, [&](auto i) { return (i + 1) % pattern != 0; });
  RopeConfig global{.kind = RopeKind::plain, .theta = in.number("rope_theta", 1e6)};
  RopeConfig local{.kind = RopeKind::plain, .theta = in.number("rope_local_base_freq", 1e4)};
  const bool scaled = in.has("rope_scaling");
  if (in.has("rope_parameters")) {
    ConfigReader both(in.at("rope_parameters"), kWhere, "rope_parameters.");
    global = rope(both.at("full_attention"), "rope_parameters.full_attention", global.theta);
    local = rope(both.at("sliding_attention"), "rope_parameters.sliding_attention", local.theta);
    both.finish({});
  } else if (scaled) {
    global = rope(in.at("rope_scaling"), "rope_scaling", global.theta);
  }
  for (std::int64_t i = 0; i < c.n_layers; ++i)
    c.layers.push_back(slides[i] ? LayerConfig{window, local} : LayerConfig{0, global});
  return c;
}

ModelConfig gpt2(ConfigReader& in) {
  ModelConfig c;
  c.vocab_size = in.size("vocab_size");
  c.d_model = in.size("n_embd");
  c.n_layers = in.size("n_layer");
  c.n_heads = c.n_kv_heads = in.size("n_head");
  c.d_head = derived_head(in, c);
  c.d_mlp = in.size("n_inner", 4 * c.d_model);
  c.context = in.size("n_positions");
  c.norm = NormKind::layer_norm;
  c.norm_eps = in.number("layer_norm_epsilon");
  c.activation = activation(in.text("activation_function", "gelu_new"), "activation_function");
  c.gated_mlp = false;
  c.attn_bias = c.attn_out_bias = c.mlp_bias = true;
  c.learned_positions = true;
  c.tied_embeddings = in.boolean("tie_word_embeddings", true);
  in.only("add_cross_attention", false);
  in.only("scale_attn_by_inverse_layer_idx", false);
  if (!in.boolean("scale_attn_weights", true)) c.attn_scale = 1;
  c.layers.resize(c.n_layers);
  return c;
}

ModelConfig gpt_neox(ConfigReader& in) {
  ModelConfig c;
  c.vocab_size = in.size("vocab_size");
  c.d_model = in.size("hidden_size");
  c.n_layers = in.size("num_hidden_layers");
  c.n_heads = c.n_kv_heads = in.size("num_attention_heads");
  c.d_head = derived_head(in, c);
  c.d_mlp = in.size("intermediate_size");
  c.context = in.size("max_position_embeddings");
  c.norm = NormKind::layer_norm;
  c.norm_eps = in.number("layer_norm_eps");
  c.activation = activation(in.text("hidden_act", "gelu"), "hidden_act");
  c.gated_mlp = false;
  c.attn_bias = c.attn_out_bias = in.boolean("attention_bias", true);
  c.mlp_bias = true;
  c.parallel_residual = in.boolean("use_parallel_residual", true);
  c.tied_embeddings = in.boolean("tie_word_embeddings", false);
  double partial = in.number("rotary_pct", 0.25);
  const auto all = single_rope(in, in.has("rotary_emb_base") ? "rotary_emb_base" : "rope_theta", 10000, &partial);
  if (!(partial > 0 && partial <= 1)) in.contradiction(fmt::format("a rotary share of {}", partial));
  c.rotary_dims = static_cast<std::int64_t>(static_cast<double>(c.d_head) * partial);
  set_layers(c, all, 0, std::vector<bool>(c.n_layers));
  return c;
}

ModelConfig of_family(ConfigReader& in, const std::string& type) {
  if (type == "llama") return llama(in);
  if (type == "mistral") return mistral(in);
  if (type == "qwen2") return qwen(in, false);
  if (type == "qwen3") return qwen(in, true);
  if (type == "gemma2") return gemma2(in);
  if (type == "gemma3_text") return gemma3(in);
  if (type == "gpt2") return gpt2(in);
  if (type == "gpt_neox") return gpt_neox(in);
  fail(ErrorCode::unsupported, kWhere,
       "expected model_type llama, mistral, qwen2, qwen3, gemma2, gemma3_text, gpt2 or gpt_neox but got \"{}\"; steer "
       "does "
       "not have this family",
       type);
}

}  // namespace

ModelConfig ModelConfig::from_hugging_face(const nlohmann::json& config) {
  require(config.is_object(), ErrorCode::config, kWhere,
          "expected a JSON object but got {}; give the content of config.json", config.type_name());
  ConfigReader in(config, kWhere);
  const auto type = in.text("model_type");
  require(!in.has("quantization_config"), ErrorCode::unsupported, kWhere,
          "expected plain weights but got quantization_config; convert the model to bf16 safetensors or to GGUF");
  ModelConfig c = of_family(in, type);
  c.family = type == "gemma3_text" ? "gemma3" : type;
  c.name = config.value("_name_or_path", std::string());
  c.bos_ids = ids(in, "bos_token_id");
  c.eos_ids = ids(in, "eos_token_id");
  in.finish(kIgnored);
  model::detail::complete_and_check(c, kWhere);
  return c;
}

}  // namespace steer
