// Tensors by llama.cpp's names (gguf-py/gguf/constants.py), in the order and with the permutations that its
// convert_hf_to_gguf.py gives them.
#include <charconv>
#include <numeric>

#include "core/format_text.hpp"
#include "model/assemble.hpp"
#include "model/families.hpp"

namespace steer::model::detail {
namespace {

using RowList = std::vector<std::int64_t>;

/// Llama files store the rows of q and k so that rotation pairs neighbours (2i, 2i + 1); this is the order that makes
/// it pair i with i + d_head / 2 as everywhere else. (The inverse of `permute` in llama.cpp's convert_hf_to_gguf.py.)
RowList half_rotation_order(std::int64_t heads, std::int64_t d_head) {
  RowList order;
  for (std::int64_t head = 0; head < heads; ++head)
    for (std::int64_t half = 0; half < 2; ++half)
      for (std::int64_t i = 0; i < d_head / 2; ++i) order.push_back(head * d_head + 2 * i + half);
  return order;
}

RowList consecutive(std::int64_t count) {
  RowList out(static_cast<std::size_t>(count));
  std::iota(out.begin(), out.end(), 0);
  return out;
}

/// What the assembling of one block shares.
struct Block {
  const ModelConfig& c;
  const Family& family;
  WeightSource& in;
  std::string name;  // "blk.3."

  bool contains(const std::string& tensor) const { return in.contains(name + tensor); }
  Norm norm(const std::string& tensor, std::int64_t width) const {
    const at::Tensor gain = in.vector(name + tensor + ".weight", width);
    if (c.norm == NormKind::rms) return {c.norm, c.norm_eps, gain, {}};
    return {c.norm, c.norm_eps, gain, in.vector(name + tensor + ".bias", width)};
  }
  Linear linear(const std::string& tensor, std::int64_t out, std::int64_t width, bool bias = false,
                const RowList& rows = {}) const {
    return in.matrix(name + tensor + ".weight", bias ? name + tensor + ".bias" : std::string(), out, width, rows);
  }
  /// `rows` of a part that begins at row `from`. None while checking, when sizes may be any.
  RowList part(std::int64_t from, RowList rows) const {
    if (in.checking()) return {};
    for (auto& row : rows) row += from;
    return rows;
  }
};

void attention(const Block& b, LayerWeights& w) {
  const ModelConfig& c = b.c;
  const std::int64_t q = c.n_heads * c.d_head, kv = c.n_kv_heads * c.d_head;
  const auto order = [&](std::int64_t heads) {
    if (b.in.checking()) return RowList();
    return b.family.neighbours_rotate ? half_rotation_order(heads, c.d_head) : consecutive(heads * c.d_head);
  };
  if (c.qk_norm) {
    w.q_norm = b.norm("attn_q_norm", c.qk_norm_whole ? q : c.d_head);
    w.k_norm = b.norm("attn_k_norm", c.qk_norm_whole ? kv : c.d_head);
  }
  if (b.contains("attn_qkv.weight")) {  // GPT-2, GPT-NeoX, Phi-3, and any file converted with --fuse-qkv
    const auto part = [&](std::int64_t from, std::int64_t heads) {
      return b.linear("attn_qkv", q + 2 * kv, c.d_model, c.attn_bias, b.part(from, order(heads)));
    };
    const auto values = b.in.checking() ? RowList() : consecutive(kv);
    w.q = part(0, c.n_heads), w.k = part(q, c.n_kv_heads);
    w.v = b.linear("attn_qkv", q + 2 * kv, c.d_model, c.attn_bias, b.part(q + kv, values));
  } else {
    if (c.attn_gate) {  // q and its gate stand beside each other, head by head
      RowList queries, gates;
      for (std::int64_t head = 0; head < c.n_heads && !b.in.checking(); ++head)
        for (std::int64_t i = 0; i < c.d_head; ++i) {
          queries.push_back(2 * head * c.d_head + i);
          gates.push_back((2 * head + 1) * c.d_head + i);
        }
      w.q = b.linear("attn_q", 2 * q, c.d_model, c.attn_bias, queries);
      w.q_gate = b.linear("attn_q", 2 * q, c.d_model, c.attn_bias, gates);
    } else {
      w.q = b.linear("attn_q", q, c.d_model, c.attn_bias, order(c.n_heads));
    }
    w.k = b.linear("attn_k", kv, c.d_model, c.attn_bias, order(c.n_kv_heads));
    w.v = b.linear("attn_v", kv, c.d_model, c.attn_bias);
  }
  w.o = b.linear("attn_output", c.d_model, q, c.attn_out_bias);
  if (c.attn_sinks) w.sinks = b.in.vector(b.name + "attn_sinks.weight", c.n_heads);
}

void delta_net(const Block& b, DeltaNetWeights& w) {
  const ModelConfig& c = b.c;
  const auto& d = c.delta_net;
  const std::int64_t keys = d.key_heads * d.d_key, values = d.value_heads * d.d_value;
  w.qkv = b.linear("attn_qkv", 2 * keys + values, c.d_model);
  w.z = b.linear("attn_gate", values, c.d_model);
  w.beta = b.linear("ssm_beta", d.value_heads, c.d_model);
  w.alpha = b.linear("ssm_alpha", d.value_heads, c.d_model);
  w.out = b.linear("ssm_out", c.d_model, values);
  w.conv = b.in.table(b.name + "ssm_conv1d.weight", 2 * keys + values, d.kernel);
  w.decay = b.in.vector(b.name + "ssm_a", d.value_heads);
  if (!b.in.checking()) w.decay = w.decay.neg();  // stored as -exp(A_log)
  w.dt_bias = b.in.vector(b.name + "ssm_dt.bias", d.value_heads);
  w.norm = b.norm("ssm_norm", d.d_value);
  w.tiled = true;
}

void experts(const Block& b, ExpertWeights& w) {
  const ModelConfig& c = b.c;
  const auto& e = c.experts;
  w.router = b.linear("ffn_gate_inp", e.count, c.d_model, e.bias);
  w.each.clear();
  for (std::int64_t i = 0; i < e.count; ++i) {
    const auto one = [&](const std::string& tensor, std::int64_t out, std::int64_t width) {
      return b.in.stacked(b.name + tensor + ".weight", e.bias ? b.name + tensor + ".bias" : std::string(), i, e.count,
                          out, width, /*transposed=*/false);
    };
    w.each.push_back({one("ffn_gate_exps", e.d_mlp, c.d_model), one("ffn_up_exps", e.d_mlp, c.d_model),
                      one("ffn_down_exps", c.d_model, e.d_mlp)});
  }
  if (e.d_shared == 0) return;
  w.shared = {b.linear("ffn_gate_shexp", e.d_shared, c.d_model), b.linear("ffn_up_shexp", e.d_shared, c.d_model),
              b.linear("ffn_down_shexp", c.d_model, e.d_shared)};
  const at::Tensor gate = b.in.vector(b.name + "ffn_gate_inp_shexp.weight", c.d_model);
  if (gate.defined()) w.shared_gate = Linear::dense(gate.unsqueeze(0));
}

void mlp(const Block& b, LayerWeights& w) {
  const ModelConfig& c = b.c;
  if (b.family.fused) {  // gate and up in one tensor, under the name of the latter
    const auto half = [&](std::int64_t from) {
      const auto rows = b.in.checking() ? RowList() : consecutive(c.d_mlp);
      return b.linear("ffn_up", 2 * c.d_mlp, c.d_model, c.mlp_bias, b.part(from, rows));
    };
    w.gate = half(0), w.up = half(c.d_mlp);
  } else if (c.gated_mlp) {
    w.gate = b.linear("ffn_gate", c.d_mlp, c.d_model, c.mlp_bias);
    w.up = b.linear("ffn_up", c.d_mlp, c.d_model, c.mlp_bias);
  } else {
    w.gate = b.linear("ffn_up", c.d_mlp, c.d_model, c.mlp_bias);
  }
  w.down = b.linear("ffn_down", c.d_model, c.d_mlp, c.mlp_bias);
}

/// The block's number in "blk.N.rest"; -1 of other names.
std::int64_t block_of(std::string_view name) {
  std::int64_t number = -1;
  if (name.starts_with("blk.")) std::from_chars(name.data() + 4, name.data() + name.size(), number);
  return number;
}

}  // namespace

void assemble_gguf(Transformer& m, WeightSource& in) {
  const ModelConfig& c = m.config;
  const Family& family = family_of(c);
  const Block model{c, family, in, ""};
  m.embed = model.linear("token_embd", c.vocab_size, c.d_model);
  if (c.learned_positions) m.positions = in.table("position_embd.weight", c.context, c.d_model);
  m.final_norm = model.norm("output_norm", c.d_model);
  m.unembed = c.tied_embeddings ? m.embed : model.linear("output", c.vocab_size, c.d_model);
  if (in.contains("rope_freqs.weight")) m.rope_divisors = in.vector("rope_freqs.weight", c.rotary_dims / 2);
  // The second norm goes by what it follows.
  const bool after = c.family == "gpt_oss" || c.family == "qwen3_5";
  for (std::int64_t i = 0; i < c.n_layers; ++i) {
    const Block b{c, family, in, format_text("blk.{}.", i)};
    auto& w = m.layers[static_cast<std::size_t>(i)];
    if (c.pre_norms) {
      w.ln1 = b.norm("attn_norm", c.d_model);
      w.ln2 = b.norm(after ? "post_attention_norm" : "ffn_norm", c.d_model);
    }
    if (c.post_norms) {
      w.post_attn = b.norm("post_attention_norm", c.d_model);
      w.post_mlp = b.norm("post_ffw_norm", c.d_model);
    }
    const LayerConfig& layer = c.layers[static_cast<std::size_t>(i)];
    if (layer.mixer == MixerKind::delta_net)
      delta_net(b, w.delta_net);
    else
      attention(b, w);
    if (layer.experts)
      experts(b, w.experts);
    else
      mlp(b, w);
    in.layer_done(w);
  }
}

bool ignored_gguf(const ModelConfig& c, std::string_view name) {
  // The configuration has the factors; blocks behind the model's own predict further tokens.
  return name == "rope_factors_long.weight" || name == "rope_factors_short.weight" ||
         (c.family == "qwen3_5" && block_of(name) >= c.n_layers);
}

}  // namespace steer::model::detail
