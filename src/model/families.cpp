#include "model/families.hpp"

#include <steer/core/error.hpp>

#include "model/config_families.hpp"

namespace steer::model::detail {
namespace {

constexpr std::string_view kVision[] = {"vision_tower.", "vision_model.", "multi_modal_projector.", "visual.", "mtp."};

constexpr Family kFamilies[] = {
    {.name = "llama", .model_type = "llama", .architecture = "llama", .read = read_llama, .neighbours_rotate = true},
    {.name = "mistral",
     .model_type = "mistral",
     .wrapper = "mistral3",
     .read = read_mistral,
     .sizes = {.kv_heads = 8},
     .not_needed = kVision},
    {.name = "ministral3",
     .model_type = "ministral3",
     .wrapper = "mistral3",
     .architecture = "mistral3",
     .read = read_ministral3,
     .eps = 1e-5,
     .sizes = {.kv_heads = 8, .head = 128},
     .neighbours_rotate = true,
     .not_needed = kVision},
    {.name = "mixtral",
     .model_type = "mixtral",
     .read = read_mixtral,
     .theta = 1e6,
     .eps = 1e-5,
     .sizes = {.kv_heads = 8, .experts = 8, .per_token = 2},
     .experts = {.router = "block_sparse_moe.gate",
                 .experts = "block_sparse_moe.experts",
                 .gate = "w1",
                 .up = "w3",
                 .down = "w2"},
     .neighbours_rotate = true},
    {.name = "qwen2", .model_type = "qwen2", .architecture = "qwen2", .read = read_qwen2},
    {.name = "qwen3",
     .model_type = "qwen3",
     .architecture = "qwen3",
     .read = read_qwen3,
     .sizes = {.kv_heads = 32, .head = 128}},
    {.name = "qwen2_moe",
     .model_type = "qwen2_moe",
     .architecture = "qwen2moe",
     .read = read_qwen2_moe,
     .sizes = {.kv_heads = 16, .experts = 60, .per_token = 4, .d_expert = 1408, .d_shared = 5632}},
    {.name = "qwen3_moe",
     .model_type = "qwen3_moe",
     .architecture = "qwen3moe",
     .read = read_qwen3_moe,
     .sizes = {.kv_heads = 4, .experts = 128, .per_token = 8, .d_expert = 768}},
    {.name = "qwen3_5",
     .model_type = "qwen3_5_text",
     .wrapper = "qwen3_5",
     .architecture = "qwen35",
     .read = read_qwen3_5,
     .sizes = {.vocab = 248320,
               .width = 4096,
               .layers = 32,
               .heads = 16,
               .kv_heads = 4,
               .head = 256,
               .mlp = 12288,
               .context = 32768},
     .not_needed = kVision},
    {.name = "gemma",
     .model_type = "gemma",
     .architecture = "gemma",
     .read = read_gemma,
     .tied = true,
     .sizes = {.kv_heads = 16, .head = 256}},
    {.name = "gemma2",
     .model_type = "gemma2",
     .architecture = "gemma2",
     .read = read_gemma2,
     .tied = true,
     .sizes = {.kv_heads = 4, .head = 256}},
    {.name = "gemma3",
     .model_type = "gemma3_text",
     .wrapper = "gemma3",
     .architecture = "gemma3",
     .read = read_gemma3,
     .tied = true,
     .theta = 1e6,
     .sizes = {.vocab = 262208,
               .width = 2304,
               .layers = 26,
               .heads = 8,
               .kv_heads = 4,
               .head = 256,
               .mlp = 9216,
               .context = 131072},
     .not_needed = kVision},
    {.name = "gpt_oss",
     .model_type = "gpt_oss",
     .architecture = "gpt-oss",
     .read = read_gpt_oss,
     .theta = 150000,
     .eps = 1e-5,
     .sizes = {.kv_heads = 8, .head = 64, .experts = 128, .per_token = 4},
     .experts = {.router = "mlp.router", .experts = "mlp.experts"}},
    {.name = "olmo2", .model_type = "olmo2", .architecture = "olmo2", .read = read_olmo2, .eps = 1e-5},
    {.name = "olmo3", .model_type = "olmo3", .read = read_olmo3, .theta = 500000, .eps = 1e-5},
    {.name = "phi3", .model_type = "phi3", .architecture = "phi3", .read = read_phi3, .eps = 1e-5, .fused = true},
    {.name = "granite",
     .model_type = "granite",
     .architecture = "granite",
     .read = read_granite,
     .neighbours_rotate = true},
    {.name = "smollm3",
     .model_type = "smollm3",
     .architecture = "smollm3",
     .read = read_smollm3,
     .tied = true,
     .theta = 2e6,
     .sizes = {.kv_heads = 4},
     .neighbours_rotate = true},
    {.name = "gpt2", .model_type = "gpt2", .architecture = "gpt2", .read = read_gpt2, .tied = true, .eps = 1e-5},
    {.name = "gpt_neox", .model_type = "gpt_neox", .architecture = "gptneox", .read = read_gpt_neox, .eps = 1e-5},
};

template <class Key>
const Family* find(Key key) {
  for (const auto& family : kFamilies)
    if (key(family)) return &family;
  return nullptr;
}

template <class Name>
std::string listed(Name name) {
  std::string out;
  for (const auto& family : kFamilies)
    if (!name(family).empty()) out += (out.empty() ? "" : ", ") + std::string(name(family));
  return out;
}

}  // namespace

std::span<const Family> families() { return kFamilies; }

const Family& family_of(const ModelConfig& config) {
  const Family* found = find([&](const Family& f) { return f.name == config.family; });
  require(found, ErrorCode::config, "ModelConfig", "expected one of the families {} but got \"{}\"",
          listed([](const Family& f) { return f.name; }), config.family);
  return *found;
}

const Family* find_model_type(std::string_view type) {
  return find([&](const Family& f) { return f.model_type == type || (!type.empty() && f.wrapper == type); });
}

const Family* find_architecture(std::string_view architecture) {
  return find([&](const Family& f) { return !architecture.empty() && f.architecture == architecture; });
}

std::string model_types() {
  return listed([](const Family& f) { return f.model_type; });
}

std::string architectures() {
  return listed([](const Family& f) { return f.architecture; });
}

}  // namespace steer::model::detail
