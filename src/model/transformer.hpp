#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <steer/model/config.hpp>
#include <steer/text/chat_template.hpp>
#include <steer/text/tokenizer.hpp>

#include "model/kernels/linear.hpp"

namespace steer::model::detail {

/// Layer norm or RMS norm. `gain` is what the normalised row is multiplied with (Gemma's 1 + weight already added).
struct Norm {
  NormKind kind = NormKind::rms;
  double eps = 0;
  at::Tensor gain, bias;  ///< [width] f32; bias undefined for RMS
  explicit operator bool() const { return gain.defined(); }
};

struct LayerWeights {
  Norm ln1, ln2;             ///< before attention and MLP
  Norm post_attn, post_mlp;  ///< on what they add; empty without `post_norms`
  Norm q_norm, k_norm;       ///< of each head; empty without `qk_norm`
  Linear q, k, v, o;
  Linear gate, up, down;  ///< `up` empty without `gated_mlp`
  int rope = -1;          ///< index into `Transformer::inv_freq`; -1: none
};

/// The weights of a model and all that is derived from its files. Immutable once loaded.
struct Transformer {
  ModelConfig config;
  at::Device device = at::kCPU;
  Linear embed;  ///< rows are token embeddings; the unembedding too when tied
  Linear unembed;
  at::Tensor positions;  ///< [context, d_model] f32; learned positions only
  Norm final_norm;
  std::vector<LayerWeights> layers;
  std::vector<at::Tensor> inv_freq;  ///< [rotary_dims / 2] f32 on the CPU, one for each distinct rope
  at::Tensor rope_divisors;          ///< [rotary_dims / 2] or undefined: what the file divides the frequencies by
  std::optional<Tokenizer> tokenizer;
  std::optional<ChatTemplate> chat;
  std::string chat_problem;  ///< why there is a tokenizer but no chat format
  std::int64_t weight_bytes = 0;
  std::string hash;
};

/// Rotary frequencies of one kind of layer, [rotary_dims / 2], f32. (Llama 3's scaling as in its reference code.)
at::Tensor rope_frequencies(const RopeConfig& rope, std::int64_t rotary_dims);

}  // namespace steer::model::detail
