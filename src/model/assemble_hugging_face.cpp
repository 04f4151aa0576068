#include <utility>

#include "core/format_text.hpp"
#include "model/assemble.hpp"
#include "model/families.hpp"

namespace steer::model::detail {
namespace {

/// Published files name tensors with or without the wrapper model's prefix ("transformer.h.0..." and "h.0...").
std::string prefix_of(const WeightSource& source, const std::string& prefix, const std::string& first) {
  return source.contains(first) && !source.contains(prefix + first) ? std::string() : prefix;
}

/// What the assembling of one layer shares.
struct Layer {
  const ModelConfig& c;
  const Family& family;
  WeightSource& in;
  std::string name;  // "model.layers.3."

  /// Rows from, from + step, ... of a tensor that holds several matrices. None while checking, when sizes may be any.
  std::vector<std::int64_t> range(std::int64_t from, std::int64_t count, std::int64_t step = 1) const {
    std::vector<std::int64_t> rows(in.checking() ? 0 : static_cast<std::size_t>(count));
    for (auto& row : rows) row = std::exchange(from, from + step);
    return rows;
  }
  Norm norm(const std::string& tensor, std::int64_t width) const {
    return {NormKind::rms, c.norm_eps, in.vector(name + tensor + ".weight", width, c.norm_plus_one), {}};
  }
  Linear linear(const std::string& tensor, std::int64_t out, std::int64_t width, bool bias = false,
                const std::vector<std::int64_t>& rows = {}) const {
    return in.matrix(name + tensor + ".weight", bias ? name + tensor + ".bias" : std::string(), out, width, rows);
  }
  MlpWeights mlp(const std::string& at, const ExpertNames& names, std::int64_t width, bool bias) const {
    const auto part = [&](std::string_view tensor) { return at + std::string(tensor); };
    return {linear(part(names.gate), width, c.d_model, bias), linear(part(names.up), width, c.d_model, bias),
            linear(part(names.down), c.d_model, width, bias)};
  }
};

void attention(const Layer& l, LayerWeights& w) {
  const ModelConfig& c = l.c;
  const std::int64_t d = c.d_head, q = c.n_heads * d, kv = c.n_kv_heads * d;
  if (c.qk_norm) {
    w.q_norm = l.norm("self_attn.q_norm", c.qk_norm_whole ? q : d);
    w.k_norm = l.norm("self_attn.k_norm", c.qk_norm_whole ? kv : d);
  }
  if (l.family.fused) {
    const std::int64_t all = q + 2 * kv;
    const auto part = [&](std::int64_t from, std::int64_t count) {
      return l.linear("self_attn.qkv_proj", all, c.d_model, c.attn_bias, l.range(from, count));
    };
    w.q = part(0, q), w.k = part(q, kv), w.v = part(q + kv, kv);
  } else {
    if (c.attn_gate) {  // q and its gate stand beside each other, head by head
      std::vector<std::int64_t> queries, gates;
      for (std::int64_t head = 0; head < c.n_heads && !l.in.checking(); ++head)
        for (std::int64_t i = 0; i < d; ++i) {
          queries.push_back(2 * head * d + i);
          gates.push_back((2 * head + 1) * d + i);
        }
      w.q = l.linear("self_attn.q_proj", 2 * q, c.d_model, c.attn_bias, queries);
      w.q_gate = l.linear("self_attn.q_proj", 2 * q, c.d_model, c.attn_bias, gates);
    } else {
      w.q = l.linear("self_attn.q_proj", q, c.d_model, c.attn_bias);
    }
    w.k = l.linear("self_attn.k_proj", kv, c.d_model, c.attn_bias);
    w.v = l.linear("self_attn.v_proj", kv, c.d_model, c.attn_bias);
  }
  w.o = l.linear("self_attn.o_proj", c.d_model, q, c.attn_out_bias);
  if (c.attn_sinks) w.sinks = l.in.vector(l.name + "self_attn.sinks", c.n_heads);
}

void delta_net(const Layer& l, DeltaNetWeights& w) {
  const ModelConfig& c = l.c;
  const auto& d = c.delta_net;
  const std::int64_t keys = d.key_heads * d.d_key, values = d.value_heads * d.d_value;
  const std::string at = l.name + "linear_attn.";
  w.qkv = l.linear("linear_attn.in_proj_qkv", 2 * keys + values, c.d_model);
  w.z = l.linear("linear_attn.in_proj_z", values, c.d_model);
  w.beta = l.linear("linear_attn.in_proj_b", d.value_heads, c.d_model);
  w.alpha = l.linear("linear_attn.in_proj_a", d.value_heads, c.d_model);
  w.out = l.linear("linear_attn.out_proj", c.d_model, values);
  w.conv = l.in.cube(at + "conv1d.weight", 2 * keys + values, 1, d.kernel);
  w.decay = l.in.vector(at + "A_log", d.value_heads);
  if (!l.in.checking()) w.conv = w.conv.squeeze(1), w.decay = w.decay.exp();
  w.dt_bias = l.in.vector(at + "dt_bias", d.value_heads);
  // Its gain is the weight itself, in families that add 1 elsewhere too.
  w.norm = {NormKind::rms, c.norm_eps, l.in.vector(at + "norm.weight", d.d_value), {}};
}

/// Experts in tensors of their own, in one for all of each kind (as transformers 5 keeps them), or as gpt-oss has them:
/// transposed, unless they are packed.
void experts(const Layer& l, ExpertWeights& w) {
  const ModelConfig& c = l.c;
  const auto& e = c.experts;
  const ExpertNames& names = l.family.experts;
  const std::string router(names.router), at = std::string(names.experts) + ".";
  w.router = l.linear(router, e.count, c.d_model, e.bias);
  const std::string gate_up = l.name + at + "gate_up_proj", down = l.name + at + "down_proj";
  const bool packed = l.in.contains(gate_up), gpt_oss = e.bias;
  const auto transposed = [&](const std::string& name) { return gpt_oss && l.in.storage(name) != "MXFP4"; };
  w.each.clear();
  for (std::int64_t i = 0; i < e.count; ++i) {
    if (!packed && !gpt_oss) {
      w.each.push_back(l.mlp(format_text("{}{}.", at, i), names, e.d_mlp, false));
      continue;
    }
    const std::string bias = gpt_oss ? gate_up + "_bias" : std::string(),
                      down_bias = gpt_oss ? down + "_bias" : std::string();
    const auto half = [&](std::int64_t which) {
      return l.in.stacked(gate_up, bias, i, e.count, 2 * e.d_mlp, c.d_model, transposed(gate_up),
                          gpt_oss ? l.range(which, e.d_mlp, 2) : l.range(which * e.d_mlp, e.d_mlp));
    };
    w.each.push_back(
        {half(0), half(1), l.in.stacked(down, down_bias, i, e.count, c.d_model, e.d_mlp, transposed(down))});
  }
  if (e.d_shared > 0) {
    w.shared = l.mlp("mlp.shared_expert.", {}, e.d_shared, false);
    w.shared_gate = l.linear("mlp.shared_expert_gate", 1, c.d_model);
  }
}

void mlp(const Layer& l, LayerWeights& w) {
  const ModelConfig& c = l.c;
  if (l.family.fused) {
    const auto half = [&](std::int64_t which) {
      return l.linear("mlp.gate_up_proj", 2 * c.d_mlp, c.d_model, c.mlp_bias, l.range(which * c.d_mlp, c.d_mlp));
    };
    w.gate = half(0), w.up = half(1);
    w.down = l.linear("mlp.down_proj", c.d_model, c.d_mlp, c.mlp_bias);
    return;
  }
  MlpWeights m = l.mlp("mlp.", {}, c.d_mlp, c.mlp_bias);
  w.gate = std::move(m.gate), w.up = std::move(m.up), w.down = std::move(m.down);
}

/// The unembedding: of tied models the embedding, unless the file has another one, which the reference uses then.
Linear unembed(Transformer& m, WeightSource& in, const std::string& name, const std::string& embedding) {
  ModelConfig& c = m.config;
  if (c.tied_embeddings && in.contains(name) && in.contains(embedding) && !in.equal(name, embedding)) {
    in.warn(
        format_text("{} differs from {} although the configuration ties them (tie_word_embeddings): it is used, as "
                    "transformers does",
                    name, embedding));
    c.tied_embeddings = false;
  }
  return c.tied_embeddings ? m.embed : in.matrix(name, {}, c.vocab_size, c.d_model);
}

void llama_like(Transformer& m, WeightSource& in) {
  const ModelConfig& c = m.config;
  const Family& family = family_of(c);
  const std::string prefix = prefix_of(in, "model.", "embed_tokens.weight");
  m.embed = in.matrix(prefix + "embed_tokens.weight", {}, c.vocab_size, c.d_model);
  m.final_norm = Layer{c, family, in, prefix}.norm("norm", c.d_model);
  m.unembed = unembed(m, in, "lm_head.weight", prefix + "embed_tokens.weight");
  for (std::int64_t i = 0; i < c.n_layers; ++i) {
    const Layer l{c, family, in, format_text("{}layers.{}.", prefix, i)};
    auto& w = m.layers[static_cast<std::size_t>(i)];
    if (c.pre_norms) w.ln1 = l.norm("input_layernorm", c.d_model);
    if (c.pre_norms) w.ln2 = l.norm(c.post_norms ? "pre_feedforward_layernorm" : "post_attention_layernorm", c.d_model);
    if (c.post_norms) w.post_attn = l.norm("post_attention_layernorm", c.d_model);
    if (c.post_norms) w.post_mlp = l.norm("post_feedforward_layernorm", c.d_model);
    const LayerConfig& layer = c.layers[static_cast<std::size_t>(i)];
    if (layer.mixer == MixerKind::delta_net)
      delta_net(l, w.delta_net);
    else
      attention(l, w);
    if (layer.experts)
      experts(l, w.experts);
    else
      mlp(l, w);
    in.layer_done(w);
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
  m.unembed = unembed(m, in, "lm_head.weight", prefix + "wte.weight");
  for (std::int64_t i = 0; i < c.n_layers; ++i) {
    const std::string layer = format_text("{}h.{}.", prefix, i);
    auto& w = m.layers[static_cast<std::size_t>(i)];
    w.ln1 = layer_norm(in, c, layer + "ln_1");
    w.ln2 = layer_norm(in, c, layer + "ln_2");
    auto [q, k, v] = in.fused_qkv(layer + "attn.c_attn.weight", layer + "attn.c_attn.bias", c.d_model, c.n_heads, true);
    w.q = std::move(q), w.k = std::move(k), w.v = std::move(v);
    w.o = conv(layer + "attn.c_proj", c.d_model, c.d_model);
    w.gate = conv(layer + "mlp.c_fc", c.d_mlp, c.d_model);
    w.down = conv(layer + "mlp.c_proj", c.d_model, c.d_mlp);
    in.layer_done(w);
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
  m.unembed = unembed(m, in, "embed_out.weight", prefix + "embed_in.weight");
  for (std::int64_t i = 0; i < c.n_layers; ++i) {
    const std::string layer = format_text("{}layers.{}.", prefix, i), attn = layer + "attention.";
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
    in.layer_done(w);
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
  if (config.family == "gpt2" || config.family == "gpt_neox")  // the causal mask
    return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") || name.ends_with(".attention.bias") ||
           name.ends_with(".attention.masked_bias");
  std::string_view rest = name;
  if (rest.starts_with("model.")) rest.remove_prefix(6);
  const auto& others = family_of(config).not_needed;
  return std::any_of(others.begin(), others.end(), [&](auto prefix) { return rest.starts_with(prefix); });
}

}  // namespace steer::model::detail
