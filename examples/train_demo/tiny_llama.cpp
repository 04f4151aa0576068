#include "tiny_llama.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace steer::demo {
namespace {

std::string layer_name(std::int64_t layer, const char* part) {
  return fmt::format("model.layers.{}.{}.weight", layer, part);
}

at::Tensor normal(std::vector<std::int64_t> shape, double sd, Rng& rng) {
  auto tensor = at::empty(shape, at::kFloat);
  auto* data = tensor.data_ptr<float>();
  for (std::int64_t i = 0; i < tensor.numel(); ++i) data[i] = static_cast<float>(sd * rng.normal());
  return tensor;
}

}  // namespace

Batch collate(const std::vector<Sequence>& sequences) {
  std::int64_t length = 0;
  for (const auto& sequence : sequences) length = std::max<std::int64_t>(length, std::ssize(sequence.ids));
  Batch batch;
  batch.ids = at::zeros({std::ssize(sequences), length}, at::kLong);
  std::vector<std::int64_t> targets, places;
  std::vector<float> weights;
  for (std::int64_t row = 0; row < std::ssize(sequences); ++row) {
    const auto& sequence = sequences[row];
    auto* ids = batch.ids.data_ptr<std::int64_t>() + row * length;
    std::copy(sequence.ids.begin(), sequence.ids.end(), ids);
    for (std::size_t i = 1; i < sequence.ids.size(); ++i) {
      if (sequence.weights[i] == 0) continue;
      targets.push_back(sequence.ids[i]);
      places.push_back(row * length + static_cast<std::int64_t>(i) - 1);
      weights.push_back(sequence.weights[i]);
    }
  }
  batch.targets = at::tensor(targets, at::kLong);
  batch.places = at::tensor(places, at::kLong);
  batch.weights = at::tensor(weights, at::kFloat);
  return batch;
}

TinyLlama::TinyLlama(const TinyConfig& config, std::uint64_t seed) : config_(config) {
  Rng rng(derive_seed(seed, "parameters"));
  const auto d = config.d_model;
  // One over the root of the fan-in, not the customary 0.02: at this width that would start attention almost flat, and
  // the circuits that match values to letters would take several times as long to form.
  const auto fan_in = [](std::int64_t n) { return 1 / std::sqrt(static_cast<double>(n)); };
  const double depth = 1 / std::sqrt(2.0 * static_cast<double>(config.n_layers));
  const auto add = [&](const std::string& name, at::Tensor value) { parameters_[name] = value.requires_grad_(true); };
  add("model.embed_tokens.weight", normal({config.vocab_size, d}, 0.05, rng));
  for (std::int64_t l = 0; l < config.n_layers; ++l) {
    add(layer_name(l, "input_layernorm"), at::ones({d}));
    add(layer_name(l, "post_attention_layernorm"), at::ones({d}));
    for (const char* part : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"})
      add(layer_name(l, part), normal({d, d}, fan_in(d), rng));
    add(layer_name(l, "self_attn.o_proj"), normal({d, d}, fan_in(d) * depth, rng));
    for (const char* part : {"mlp.gate_proj", "mlp.up_proj"})
      add(layer_name(l, part), normal({config.d_mlp, d}, fan_in(d), rng));
    add(layer_name(l, "mlp.down_proj"), normal({d, config.d_mlp}, fan_in(config.d_mlp) * depth, rng));
  }
  add("model.norm.weight", at::ones({d}));
  const auto half = d / config.n_heads / 2;
  const auto frequencies = at::pow(config.rope_theta, -at::arange(half, at::kDouble) / static_cast<double>(half));
  const auto angles = at::outer(at::arange(config.context, at::kDouble), frequencies).unsqueeze(1);
  cos_ = angles.cos().to(at::kFloat);
  sin_ = angles.sin().to(at::kFloat);
}

std::int64_t TinyLlama::parameter_count() const {
  std::int64_t count = 0;
  for (const auto& [name, value] : parameters_) count += value.numel();
  return count;
}

at::Tensor TinyLlama::hidden(const at::Tensor& ids) const {
  const auto rows = ids.size(0), length = ids.size(1), d = config_.d_model, heads = config_.n_heads, d_head = d / heads;
  const auto cos = cos_.slice(0, 0, length), sin = sin_.slice(0, 0, length);
  const auto norm = [&](const at::Tensor& x, const std::string& name) {
    return x * at::rsqrt(x.square().mean(-1, true) + config_.norm_eps) * at(name);
  };
  auto x = at::embedding(at("model.embed_tokens.weight"), ids);
  for (std::int64_t l = 0; l < config_.n_layers; ++l) {
    const auto h = norm(x, layer_name(l, "input_layernorm"));
    const auto qkv =
        at::matmul(h, at::cat({at(layer_name(l, "self_attn.q_proj")), at(layer_name(l, "self_attn.k_proj")),
                               at(layer_name(l, "self_attn.v_proj"))})
                          .t());
    const auto halves = qkv.slice(2, 0, 2 * d).reshape({rows, length, 2 * heads, d_head}).chunk(2, -1);
    const auto rotated = at::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, -1);
    const auto q = rotated.slice(2, 0, heads).transpose(1, 2), k = rotated.slice(2, heads).transpose(1, 2);
    const auto v = qkv.slice(2, 2 * d).reshape({rows, length, heads, d_head}).transpose(1, 2);
    const auto mixed = at::scaled_dot_product_attention(q, k, v, {}, 0.0, /*is_causal=*/true);
    x = x + at::matmul(mixed.transpose(1, 2).reshape({rows, length, d}), at(layer_name(l, "self_attn.o_proj")).t());
    const auto m = norm(x, layer_name(l, "post_attention_layernorm"));
    const auto gate = at::matmul(m, at(layer_name(l, "mlp.gate_proj")).t());
    const auto up = at::matmul(m, at(layer_name(l, "mlp.up_proj")).t());
    x = x + at::matmul(at::silu(gate) * up, at(layer_name(l, "mlp.down_proj")).t());
  }
  return norm(x, "model.norm.weight");
}

at::Tensor TinyLlama::logits(const at::Tensor& ids, const at::Tensor& places) const {
  const auto h = hidden(ids).flatten(0, 1).index_select(0, places);
  return at::matmul(h, at("model.embed_tokens.weight").t());
}

at::Tensor TinyLlama::loss(const Batch& batch) const {
  const auto each = at::cross_entropy_loss(logits(batch.ids, batch.places), batch.targets, {}, at::Reduction::None);
  return (each * batch.weights).sum();
}

nlohmann::json TinyLlama::to_json(const Vocabulary& vocabulary) const {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"vocab_size", config_.vocab_size},
          {"hidden_size", config_.d_model},
          {"intermediate_size", config_.d_mlp},
          {"num_hidden_layers", config_.n_layers},
          {"num_attention_heads", config_.n_heads},
          {"num_key_value_heads", config_.n_heads},
          {"head_dim", config_.d_model / config_.n_heads},
          {"hidden_act", "silu"},
          {"max_position_embeddings", config_.context},
          {"rms_norm_eps", config_.norm_eps},
          {"rope_theta", config_.rope_theta},
          {"attention_bias", false},
          {"mlp_bias", false},
          {"tie_word_embeddings", true},
          {"bos_token_id", vocabulary.bos},
          {"eos_token_id", vocabulary.eot},
          {"torch_dtype", "float16"}};
}

}  // namespace steer::demo
