#include "model/assemble.hpp"

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

}  // namespace

void assemble_gguf(Transformer& m, WeightSource& in) {
  const ModelConfig& c = m.config;
  const auto q_width = c.n_heads * c.d_head, kv_width = c.n_kv_heads * c.d_head;
  const auto norm = [&](const std::string& name, std::int64_t width) {
    return Norm{NormKind::rms, c.norm_eps, in.vector(name + ".weight", width), {}};
  };
  const auto linear = [&](const std::string& name, std::int64_t out, std::int64_t width, bool bias = false,
                          const std::vector<std::int64_t>& order = {}) {
    return in.matrix(name + ".weight", bias ? name + ".bias" : std::string(), out, width, order);
  };
  const bool permuted = c.family == "llama";
  const auto q_order = permuted ? half_rotation_order(c.n_heads, c.d_head) : std::vector<std::int64_t>();
  const auto k_order = permuted ? half_rotation_order(c.n_kv_heads, c.d_head) : std::vector<std::int64_t>();
  m.embed = linear("token_embd", c.vocab_size, c.d_model);
  m.final_norm = norm("output_norm", c.d_model);
  m.unembed = c.tied_embeddings ? m.embed : linear("output", c.vocab_size, c.d_model);
  if (in.contains("rope_freqs.weight")) m.rope_divisors = in.vector("rope_freqs.weight", c.rotary_dims / 2);
  for (std::int64_t i = 0; i < c.n_layers; ++i) {
    const std::string layer = fmt::format("blk.{}.", i);
    auto& w = m.layers[static_cast<std::size_t>(i)];
    w.ln1 = norm(layer + "attn_norm", c.d_model);
    w.ln2 = norm(layer + "ffn_norm", c.d_model);
    if (c.post_norms) {
      w.post_attn = norm(layer + "post_attention_norm", c.d_model);
      w.post_mlp = norm(layer + "post_ffw_norm", c.d_model);
    }
    if (c.qk_norm) {
      w.q_norm = norm(layer + "attn_q_norm", c.d_head);
      w.k_norm = norm(layer + "attn_k_norm", c.d_head);
    }
    w.q = linear(layer + "attn_q", q_width, c.d_model, c.attn_bias, q_order);
    w.k = linear(layer + "attn_k", kv_width, c.d_model, c.attn_bias, k_order);
    w.v = linear(layer + "attn_v", kv_width, c.d_model, c.attn_bias);
    w.o = linear(layer + "attn_output", c.d_model, q_width, c.attn_out_bias);
    w.gate = linear(layer + "ffn_gate", c.d_mlp, c.d_model);
    w.up = linear(layer + "ffn_up", c.d_mlp, c.d_model);
    w.down = linear(layer + "ffn_down", c.d_model, c.d_mlp);
  }
}

bool ignored_gguf(const ModelConfig&, std::string_view) { return false; }

}  // namespace steer::model::detail
