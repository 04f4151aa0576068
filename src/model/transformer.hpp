#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <steer/model/config.hpp>
#include <steer/text/chat_template.hpp>
#include <steer/text/tokenizer.hpp>

#include "model/kernels/linear.hpp"
#include "model/rope.hpp"

namespace steer::model::detail {

class Split;

/// Layer norm or RMS norm. `gain` is what the normalised row is multiplied with (Gemma's 1 + weight already added).
struct Norm {
  NormKind kind = NormKind::rms;
  double eps = 0;
  at::Tensor gain, bias;  ///< [width] f32; bias undefined for RMS
  explicit operator bool() const { return gain.defined(); }
};

/// An MLP: `up` is empty without `gated_mlp`.
struct MlpWeights {
  Linear gate, up, down;
};

/// A mixture of experts instead of one MLP.
struct ExpertWeights {
  Linear router;                 ///< [count, d_model]
  std::vector<MlpWeights> each;  ///< [count]; empty: the layer has one MLP
  MlpWeights shared;             ///< sees every token; empty without `d_shared`
  Linear shared_gate;            ///< [1, d_model]: the shared one is multiplied with its sigmoid
};

/// Gated DeltaNet instead of attention.
struct DeltaNetWeights {
  Linear qkv, z, beta, alpha, out;
  at::Tensor conv;            ///< [2 * key_heads * d_key + value_heads * d_value, kernel] f32
  at::Tensor decay, dt_bias;  ///< [value_heads] f32: exp(A_log), and what is added to alpha
  Norm norm;                  ///< of each value head's output, before it is gated
  bool tiled = false;         ///< value head h reads key head h % key_heads (GGUF), not h / (value_heads / key_heads)
};

struct LayerWeights {
  Norm ln1, ln2;             ///< before attention and MLP; empty without `pre_norms`
  Norm post_attn, post_mlp;  ///< on what they add; empty without `post_norms`
  Norm q_norm, k_norm;       ///< of each head, or of all together; empty without `qk_norm`
  Linear q, k, v, o;
  Linear q_gate;          ///< empty without `attn_gate`
  at::Tensor sinks;       ///< [n_heads] f32; undefined without `attn_sinks`
  Linear gate, up, down;  ///< `up` empty without `gated_mlp`
  ExpertWeights experts;
  DeltaNetWeights delta_net;
  int rope = -1;  ///< index into `Transformer::ropes`; -1: none
};

/// The weights of a model and all that is derived from its files. Immutable once loaded.
struct Transformer {
  ModelConfig config;
  ModelConfig part;                    ///< with the heads and widths that this process computes: all, without `split`
  std::shared_ptr<const Split> split;  ///< null: one process computes it
  at::Device device = at::kCPU;
  Rounding rounding = Rounding::none;  ///< of activations in the CPU's products
  Linear embed;                        ///< rows are token embeddings; the unembedding too when tied
  Linear unembed;
  at::Tensor positions;  ///< [context, d_model] f32; learned positions only
  Norm final_norm;
  std::vector<LayerWeights> layers;
  std::vector<RopeConfig> ropes;     ///< the distinct ones
  std::vector<at::Tensor> inv_freq;  ///< [rotary_dims / 2] f32 on the CPU, of each of `ropes`
  at::Tensor rope_divisors;          ///< [rotary_dims / 2] or undefined: what the file divides the frequencies by
  std::optional<Tokenizer> tokenizer;
  std::optional<ChatTemplate> chat;
  std::string chat_problem;  ///< why there is a tokenizer but no chat format
  std::int64_t weight_bytes = 0;
  std::string hash;
  std::vector<std::string> warnings;  ///< what was let through at load
};

}  // namespace steer::model::detail
