#pragma once

#include "model/families.hpp"

namespace steer::model::detail {

// How the files of each family say what it computes: one function a row of `families()`, which asks for every key that
// decides its numbers. Keys that all share (ids, names) are `ModelConfig::from_hugging_face`'s.
void read_llama(ConfigReader& in, const Family& family, ModelConfig& c);
void read_mistral(ConfigReader& in, const Family& family, ModelConfig& c);
void read_ministral3(ConfigReader& in, const Family& family, ModelConfig& c);
void read_mixtral(ConfigReader& in, const Family& family, ModelConfig& c);
void read_qwen2(ConfigReader& in, const Family& family, ModelConfig& c);
void read_qwen3(ConfigReader& in, const Family& family, ModelConfig& c);
void read_qwen2_moe(ConfigReader& in, const Family& family, ModelConfig& c);
void read_qwen3_moe(ConfigReader& in, const Family& family, ModelConfig& c);
void read_qwen3_5(ConfigReader& in, const Family& family, ModelConfig& c);
void read_gemma(ConfigReader& in, const Family& family, ModelConfig& c);
void read_gemma2(ConfigReader& in, const Family& family, ModelConfig& c);
void read_gemma3(ConfigReader& in, const Family& family, ModelConfig& c);
void read_gpt_oss(ConfigReader& in, const Family& family, ModelConfig& c);
void read_olmo2(ConfigReader& in, const Family& family, ModelConfig& c);
void read_olmo3(ConfigReader& in, const Family& family, ModelConfig& c);
void read_phi3(ConfigReader& in, const Family& family, ModelConfig& c);
void read_granite(ConfigReader& in, const Family& family, ModelConfig& c);
void read_smollm3(ConfigReader& in, const Family& family, ModelConfig& c);
void read_gpt2(ConfigReader& in, const Family& family, ModelConfig& c);
void read_gpt_neox(ConfigReader& in, const Family& family, ModelConfig& c);

}  // namespace steer::model::detail
