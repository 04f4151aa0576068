#include "model/assemble.hpp"

namespace steer::model::detail {
namespace {

/// Published files name tensors with or without the wrapper model's prefix ("transformer.h.0..." and "h.0...").
std::string prefix_of(const WeightSource& source, const std::string& prefix, const std::string& first) {
  return source.contains(first) && !source.contains(prefix + first) ? std::string() : prefix;
}

void llama_like(Transformer& m, WeightSource& in) {
  const ModelConfig& c = m.config;
  const std::string prefix = prefix_of(in, "model.", "embed_tokens.weight");
  const auto q_width = c.n_heads * c.d_head, kv_width = c.n_kv_heads * c.d_head;
  const auto norm = [&](const std::string& name, std::int64_t width) {
    return Norm{NormKind::rms, c.norm_eps, in.vector(name + ".weight", width, c.norm_plus_one), {}};
  };
  const auto linear = [&](const std::string& name, std::int64_t out, std::int64_t width, bool bias) {
    return in.matrix(name + ".weight", bias ? name + ".bias" : std::string(), out, width);
  };
  m.embed = linear(prefix + "embed_tokens", c.vocab_size, c.d_model, false);
  m.final_norm = norm(prefix + "norm", c.d_model);
  m.unembed = c.tied_embeddings ? m.embed : linear("lm_head", c.vocab_size, c.d_model, false);
  for (std::int64_t i = 0; i < c.n_layers; ++i) {
    const std::string layer = fmt::format("{}layers.{}.", prefix, i), attn = layer + "self_attn.", mlp = layer + "mlp.";
    auto& w = m.layers[static_cast<std::size_t>(i)];
    w.ln1 = norm(layer + "input_layernorm", c.d_model);
    if (c.post_norms) {
      w.post_attn = norm(layer + "post_attention_layernorm", c.d_model);
      w.ln2 = norm(layer + "pre_feedforward_layernorm", c.d_model);
      w.post_mlp = norm(layer + "post_feedforward_layernorm", c.d_model);
    } else {
      w.ln2 = norm(layer + "post_attention_layernorm", c.d_model);
    }
    if (c.qk_norm) {
      w.q_norm = norm(attn + "q_norm", c.d_head);
      w.k_norm = norm(attn + "k_norm", c.d_head);
    }
    w.q = linear(attn + "q_proj", q_width, c.d_model, c.attn_bias);
    w.k = linear(attn + "k_proj", kv_width, c.d_model, c.attn_bias);
    w.v = linear(attn + "v_proj", kv_width, c.d_model, c.attn_bias);
    w.o = linear(attn + "o_proj", c.d_model, q_width, c.attn_out_bias);
    w.gate = linear(mlp + "gate_proj", c.d_mlp, c.d_model, c.mlp_bias);
    w.up = linear(mlp + "up_proj", c.d_mlp, c.d_model, c.mlp_bias);
    w.down = linear(mlp + "down_proj", c.d_model, c.d_mlp, c.mlp_bias);
  }
}

Norm layer_norm(WeightSource& in, const ModelConfig& c, const std::string& name) {
  return {NormKind::layer_norm, c.norm_eps, in.vector(name + ".weight", c.d_model),
          in.vector(name + ".bias", c.d_model)};
}

void gpt2(Transformer& m, WeightSource& in) {
  const ModelConfig& c = m.config;
  const std::string prefix = prefix_of(in, "transformer.", "wte.weight");
  const auto conv = [&](const std::string& name, std::int64_t out, std::int64_t width) {
    return in.transposed(name + ".weight", name + ".bias", out, width);
  };
  m.embed = in.matrix(prefix + "wte.weight", {}, c.vocab_size, c.d_model);
  m.positions = in.table(prefix + "wpe.weight", c.context, c.d_model);
  m.final_norm = layer_norm(in, c, prefix + "ln_f");
  m.unembed = c.tied_embeddings ? m.embed : in.matrix("lm_head.weight", {}, c.vocab_size, c.d_model);
  for (std::int64_t i = 0; i < c.n_layers; ++i) {
    const std::string layer = fmt::format("{}h.{}.", prefix, i);
    auto& w = m.layers[static_cast<std::size_t>(i)];
    w.ln1 = layer_norm(in, c, layer + "ln_1");
    w.ln2 = layer_norm(in, c, layer + "ln_2");
    auto [q, k, v] = in.fused_qkv(layer + "attn.c_attn.weight", layer + "attn.c_attn.bias", c.d_model, c.n_heads, true);
    w.q = std::move(q), w.k = std::move(k), w.v = std::move(v);
    w.o = conv(layer + "attn.c_proj", c.d_model, c.d_model);
    w.gate = conv(layer + "mlp.c_fc", c.d_mlp, c.d_model);
    w.down = conv(layer + "mlp.c_proj", c.d_model, c.d_mlp);
  }
}

void gpt_neox(Transformer& m, WeightSource& in) {
  const ModelConfig& c = m.config;
  const std::string prefix = prefix_of(in, "gpt_neox.", "embed_in.weight");
  const auto linear = [&](const std::string& name, std::int64_t out, std::int64_t width, bool bias) {
    return in.matrix(name + ".weight", bias ? name + ".bias" : std::string(), out, width);
  };
  m.embed = linear(prefix + "embed_in", c.vocab_size, c.d_model, false);
  m.final_norm = layer_norm(in, c, prefix + "final_layer_norm");
  m.unembed = c.tied_embeddings ? m.embed : linear("embed_out", c.vocab_size, c.d_model, false);
  for (std::int64_t i = 0; i < c.n_layers; ++i) {
    const std::string layer = fmt::format("{}layers.{}.", prefix, i), attn = layer + "attention.";
    auto& w = m.layers[static_cast<std::size_t>(i)];
    w.ln1 = layer_norm(in, c, layer + "input_layernorm");
    w.ln2 = layer_norm(in, c, layer + "post_attention_layernorm");
    auto [q, k, v] =
        in.fused_qkv(attn + "query_key_value.weight", c.attn_bias ? attn + "query_key_value.bias" : std::string(),
                     c.d_model, c.n_heads, false);
    w.q = std::move(q), w.k = std::move(k), w.v = std::move(v);
    w.o = linear(attn + "dense", c.d_model, c.d_model, c.attn_out_bias);
    w.gate = linear(layer + "mlp.dense_h_to_4h", c.d_mlp, c.d_model, c.mlp_bias);
    w.down = linear(layer + "mlp.dense_4h_to_h", c.d_model, c.d_mlp, c.mlp_bias);
  }
}

}  // namespace

void assemble_hugging_face(Transformer& model, WeightSource& source) {
  const auto& family = model.config.family;
  if (family == "gpt2")
    gpt2(model, source);
  else if (family == "gpt_neox")
    gpt_neox(model, source);
  else
    llama_like(model, source);
}

bool ignored_hugging_face(const ModelConfig& config, std::string_view name) {
  if (name.ends_with(".rotary_emb.inv_freq")) return true;  // old Llama and GPT-NeoX files
  if (config.tied_embeddings && (name == "lm_head.weight" || name == "embed_out.weight")) return true;
  const bool layer_mask = name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") ||  // GPT-2's causal mask
                          name.ends_with(".attention.bias") || name.ends_with(".attention.masked_bias");
  return layer_mask && (config.family == "gpt2" || config.family == "gpt_neox");
}

std::shared_ptr<Transformer> build(const ModelConfig& config, const TensorReader& reader, const LoadOptions& options,
                                   void (*assemble)(Transformer&, WeightSource&),
                                   bool (*ignored)(const ModelConfig&, std::string_view)) {
  auto model = std::make_shared<Transformer>();
  model->config = config;
  model->device = at::Device(options.device);
  model->layers.resize(static_cast<std::size_t>(config.n_layers));
  WeightSource source(reader, options, model->device);
  assemble(*model, source);
  source.finish_check([&](std::string_view name) { return ignored(config, name); });
  assemble(*model, source);
  model->weight_bytes = source.bytes();

  std::vector<RopeConfig> ropes;
  for (std::int64_t i = 0; i < config.n_layers; ++i) {
    const auto& rope = config.layers[static_cast<std::size_t>(i)].rope;
    if (rope.kind == RopeKind::none) continue;
    const auto found = std::find(ropes.begin(), ropes.end(), rope);
    model->layers[static_cast<std::size_t>(i)].rope = static_cast<int>(found - ropes.begin());
    if (found != ropes.end()) continue;
    ropes.push_back(rope);
    at::Tensor frequencies = rope_frequencies(rope, config.rotary_dims);
    if (model->rope_divisors.defined()) frequencies.div_(model->rope_divisors.cpu());
    model->inv_freq.push_back(std::move(frequencies));
  }
  model->hash = hash_weights(reader);
  return model;
}

std::int64_t check_weights(const ModelConfig& config, const TensorReader& reader, const LoadOptions& options) {
  const bool gguf = reader.format() == "gguf";
  Transformer model;
  model.config = config;
  model.layers.resize(static_cast<std::size_t>(config.n_layers));
  WeightSource source(reader, options, at::kCPU);
  (gguf ? assemble_gguf : assemble_hugging_face)(model, source);
  source.finish_check(
      [&](std::string_view name) { return (gguf ? ignored_gguf : ignored_hugging_face)(config, name); });
  return source.bytes();
}

}  // namespace steer::model::detail
