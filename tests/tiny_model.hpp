#pragma once
// A small Llama with random weights, made in memory: enough model for tests of what runs on a model.

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include <steer/io/tensor_reader.hpp>
#include <steer/model/model.hpp>
#include <steer/model/session.hpp>

namespace steer::test {

struct TinyModelOptions {
  std::int64_t vocabulary = 64, width = 32, layers = 3, heads = 4, kv_heads = 2, mlp = 48, context = 128;
  std::uint64_t seed = 3;
  std::optional<Tokenizer> tokenizer;
};

inline Model tiny_model(const TinyModelOptions& o = {}) {
  at::manual_seed(o.seed);
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  const auto matrix = [&](const std::string& name, std::int64_t rows, std::int64_t columns) {
    tensors.emplace_back(name, at::randn({rows, columns}) / std::sqrt(static_cast<double>(columns)));
  };
  const auto gain = [&](const std::string& name) { tensors.emplace_back(name, 1 + 0.1 * at::randn({o.width})); };
  const std::int64_t head = o.width / o.heads;
  tensors.emplace_back("model.embed_tokens.weight", at::randn({o.vocabulary, o.width}));
  for (std::int64_t l = 0; l < o.layers; ++l) {
    const std::string layer = "model.layers." + std::to_string(l) + ".";
    gain(layer + "input_layernorm.weight");
    matrix(layer + "self_attn.q_proj.weight", o.heads * head, o.width);
    matrix(layer + "self_attn.k_proj.weight", o.kv_heads * head, o.width);
    matrix(layer + "self_attn.v_proj.weight", o.kv_heads * head, o.width);
    matrix(layer + "self_attn.o_proj.weight", o.width, o.heads * head);
    gain(layer + "post_attention_layernorm.weight");
    matrix(layer + "mlp.gate_proj.weight", o.mlp, o.width);
    matrix(layer + "mlp.up_proj.weight", o.mlp, o.width);
    matrix(layer + "mlp.down_proj.weight", o.width, o.mlp);
  }
  gain("model.norm.weight");
  matrix("lm_head.weight", o.vocabulary, o.width);
  const nlohmann::json config = {{"model_type", "llama"},
                                 {"hidden_size", o.width},
                                 {"num_hidden_layers", o.layers},
                                 {"num_attention_heads", o.heads},
                                 {"num_key_value_heads", o.kv_heads},
                                 {"intermediate_size", o.mlp},
                                 {"vocab_size", o.vocabulary},
                                 {"max_position_embeddings", o.context},
                                 {"rms_norm_eps", 1e-5},
                                 {"rope_theta", 10000.0},
                                 {"hidden_act", "silu"},
                                 {"tie_word_embeddings", false},
                                 {"bos_token_id", 1},
                                 {"eos_token_id", 2}};
  return Model::from_tensors(ModelConfig::from_hugging_face(config),
                             *tensors_in_memory(std::move(tensors), nlohmann::json::object()), {}, o.tokenizer);
}

}  // namespace steer::test
