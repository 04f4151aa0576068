#include <numeric>

#include "model/assemble.hpp"
#include "model/families.hpp"

namespace steer::model::detail {
namespace {

/// Llama files store the rows of q and k so that rotation pairs neighbours (2i, 2i + 1); this is the order that makes
/// it pair i with i + d_head / 2 as everywhere else. (The inverse of `permute` in llama.cpp's convert_hf_to_gguf.py.)
std::vector<std::int64_t> half_rotation_order(std::int64_t heads, std::int64_t d_head) {
  std::vector<std::int64_t> order;
  for (std::int64_t head = 0; head < heads; ++head)
    for (std::int64_t half = 0; half < 2; ++half)
      for (std::int64_t i = 0; i < d_head / 2; ++i) order.push_back(head * d_head + 2 * i + half);
  return order;
}

void experts(const ModelConfig& c, WeightSource& in, const std::string& layer, ExpertWeights& w) {
  const auto& e = c.experts;
  const auto name = [&](const char* tensor, const char* part) { return layer + tensor + part; };
  const auto bias = [&](const char* tensor) { return e.bias ? name(tensor, ".bias") : std::string(); };
  w.router = in.matrix(name("ffn_gate_inp", ".weight"), bias("ffn_gate_inp"), e.count, c.d_model);
  w.each.clear();
  for (std::int64_t i = 0; i < e.count; ++i) {
    const auto one = [&](const char* tensor, std::int64_t out, std::int64_t width) {
      return in.stacked(name(tensor, ".weight"), bias(tensor), i, e.count, out, width, /*transposed=*/false);
    };
    w.each.push_back({one("ffn_gate_exps", e.d_mlp, c.d_model), one("ffn_up_exps", e.d_mlp, c.d_model),
                      one("ffn_down_exps", c.d_model, e.d_mlp)});
  }
  if (e.d_shared == 0) return;
  w.shared = {in.matrix(name("ffn_gate_shexp", ".weight"), {}, e.d_shared, c.d_model),
              in.matrix(name("ffn_up_shexp", ".weight"), {}, e.d_shared, c.d_model),
              in.matrix(name("ffn_down_shexp", ".weight"), {}, c.d_model, e.d_shared)};
  const at::Tensor gate = in.vector(name("ffn_gate_inp_shexp", ".weight"), c.d_model);
  if (gate.defined()) w.shared_gate = Linear::dense(gate.unsqueeze(0));
}

}  // namespace

void assemble_gguf(Transformer& m, WeightSource& in) {
  const ModelConfig& c = m.config;
  const auto q_width = c.n_heads * c.d_head, kv_width = c.n_kv_heads * c.d_head;
  const auto norm = [&](const std::string& name, std::int64_t width) {
    return Norm{NormKind::rms, c.norm_eps, in.vector(name + ".weight", width), {}};
  };
  const auto linear = [&](const std::string& name, std::int64_t out, std::int64_t width, bool bias = false,
                          const std::vector<std::int64_t>& rows = {}) {
    return in.matrix(name + ".weight", bias ? name + ".bias" : std::string(), out, width, rows);
  };
  // While checking, sizes may be any.
  const auto rows = [&](std::int64_t from, std::int64_t count) {
    std::vector<std::int64_t> out(in.checking() ? 0 : static_cast<std::size_t>(count));
    std::iota(out.begin(), out.end(), from);
    return out;
  };
  const Family& family = family_of(c);
  const bool permuted = family.neighbours_rotate && !in.checking();
  const auto q_order = permuted ? half_rotation_order(c.n_heads, c.d_head) : std::vector<std::int64_t>();
  const auto k_order = permuted ? half_rotation_order(c.n_kv_heads, c.d_head) : std::vector<std::int64_t>();
  m.embed = linear("token_embd", c.vocab_size, c.d_model);
  m.final_norm = norm("output_norm", c.d_model);
  m.unembed = c.tied_embeddings ? m.embed : linear("output", c.vocab_size, c.d_model);
  if (in.contains("rope_freqs.weight")) m.rope_divisors = in.vector("rope_freqs.weight", c.rotary_dims / 2);
  for (std::int64_t i = 0; i < c.n_layers; ++i) {
    const std::string layer = fmt::format("blk.{}.", i);
    auto& w = m.layers[static_cast<std::size_t>(i)];
    if (c.pre_norms) {
      w.ln1 = norm(layer + "attn_norm", c.d_model);
      w.ln2 = norm(layer + (c.family == "gpt_oss" ? "post_attention_norm" : "ffn_norm"), c.d_model);
    }
    if (c.post_norms) {
      w.post_attn = norm(layer + "post_attention_norm", c.d_model);
      w.post_mlp = norm(layer + "post_ffw_norm", c.d_model);
    }
    if (c.qk_norm) {
      w.q_norm = norm(layer + "attn_q_norm", c.qk_norm_whole ? q_width : c.d_head);
      w.k_norm = norm(layer + "attn_k_norm", c.qk_norm_whole ? kv_width : c.d_head);
    }
    if (family.fused) {
      const auto part = [&](std::int64_t from, std::int64_t count) {
        return linear(layer + "attn_qkv", q_width + 2 * kv_width, c.d_model, c.attn_bias, rows(from, count));
      };
      w.q = part(0, q_width), w.k = part(q_width, kv_width), w.v = part(q_width + kv_width, kv_width);
    } else {
      w.q = linear(layer + "attn_q", q_width, c.d_model, c.attn_bias, q_order);
      w.k = linear(layer + "attn_k", kv_width, c.d_model, c.attn_bias, k_order);
      w.v = linear(layer + "attn_v", kv_width, c.d_model, c.attn_bias);
    }
    w.o = linear(layer + "attn_output", c.d_model, q_width, c.attn_out_bias);
    if (c.attn_sinks) w.sinks = in.vector(layer + "attn_sinks.weight", c.n_heads);
    if (c.layers[static_cast<std::size_t>(i)].experts) {
      experts(c, in, layer, w.experts);
    } else if (family.fused) {  // gate and up in one tensor, under the name of the latter
      w.gate = linear(layer + "ffn_up", 2 * c.d_mlp, c.d_model, false, rows(0, c.d_mlp));
      w.up = linear(layer + "ffn_up", 2 * c.d_mlp, c.d_model, false, rows(c.d_mlp, c.d_mlp));
      w.down = linear(layer + "ffn_down", c.d_model, c.d_mlp);
    } else {
      w.gate = linear(layer + "ffn_gate", c.d_mlp, c.d_model);
      w.up = linear(layer + "ffn_up", c.d_mlp, c.d_model);
      w.down = linear(layer + "ffn_down", c.d_model, c.d_mlp);
    }
  }
}

bool ignored_gguf(const ModelConfig&, std::string_view name) {
  return name == "rope_factors_long.weight" || name == "rope_factors_short.weight";  // the configuration has them
}

}  // namespace steer::model::detail
