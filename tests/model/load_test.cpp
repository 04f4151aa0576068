#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/zeros.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <tuple>

#include <steer/io/safetensors_writer.hpp>
#include <steer/model/session.hpp>

#include "core/format_text.hpp"
#include "core/isa.hpp"
#include "model/kernels/table.hpp"
#include "model/tiny_models.hpp"
#include "sanitized.hpp"
#include "support.hpp"

namespace steer {
namespace {

using nlohmann::json;
using test::some_ids;

void write_folder(const test::TempDir& dir, const test::TinyModel& model) {
  std::ofstream(dir / "config.json") << model.config.dump();
  save_safetensors(dir / "model.safetensors", model.tensors);
}

TEST(Config, RefusesWhatItDoesNotKnow) {
  const auto with = [](const char* family, const json& changes) {
    auto config = test::tiny_model(family).config;
    config.update(changes);
    return config;
  };
  const auto refuse = [&](const char* family, const json& changes, ErrorCode code, const char* text) {
    SCOPED_TRACE(std::string(family) + " " + changes.dump());
    EXPECT_STEER_ERROR(ModelConfig::from_hugging_face(with(family, changes)), code, text);
  };
  refuse("llama", {{"model_type", "mamba"}}, ErrorCode::unsupported, "mamba");
  refuse("llama", {{"residual_multiplier", 0.5}}, ErrorCode::config, "residual_multiplier");
  refuse("llama", {{"hidden_act", "mish"}}, ErrorCode::unsupported, "mish");
  refuse("llama", {{"rope_scaling", {{"rope_type", "axial"}, {"factor", 4.0}}}}, ErrorCode::unsupported, "axial");
  refuse("llama", {{"rope_scaling", {{"rope_type", "linear"}}}}, ErrorCode::config, "rope_scaling.factor");
  refuse("llama", {{"rope_scaling", {{"rope_type", "linear"}, {"factor", 2.0}, {"beta_fast", 32}}}}, ErrorCode::config,
         "beta_fast");
  refuse("llama", {{"rope_theta", 1e4}, {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 5e5}}}},
         ErrorCode::config, "rope_theta");
  refuse("llama", {{"hidden_size", "wide"}}, ErrorCode::config, "hidden_size");
  refuse("llama", {{"hidden_size", -4}}, ErrorCode::config, "hidden_size");
  refuse("llama", {{"hidden_size", nullptr}}, ErrorCode::config, "hidden_size");
  refuse("llama", {{"vocab_size", 1e30}}, ErrorCode::config, "vocab_size");
  refuse("llama", {{"num_key_value_heads", 3}}, ErrorCode::config, "3 key-value heads");
  refuse("llama", {{"eos_token_id", 97}}, ErrorCode::config, "97");
  refuse("llama", {{"eos_token_id", "x"}}, ErrorCode::config, "eos_token_id");
  refuse("llama", {{"quantization_config", {{"bits", 4}}}}, ErrorCode::unsupported, "quantization_config");
  refuse("gemma2", {{"layer_types", {"full_attention"}}}, ErrorCode::config, "layer_types");
  refuse("gemma2", {{"layer_types", {"full_attention", "chunked_attention", "full_attention"}}}, ErrorCode::unsupported,
         "chunked_attention");
  refuse("gemma3_text", {{"use_bidirectional_attention", true}}, ErrorCode::unsupported, "use_bidirectional_attention");
  refuse("gpt2", {{"scale_attn_by_inverse_layer_idx", true}}, ErrorCode::unsupported,
         "scale_attn_by_inverse_layer_idx");
  EXPECT_STEER_ERROR(ModelConfig::from_hugging_face(json::array()), ErrorCode::config, "array");
  EXPECT_STEER_ERROR(ModelConfig::from_hugging_face(json::object()), ErrorCode::config, "model_type");
}

TEST(Config, IgnoredKeysAreIgnored) {
  auto config = test::tiny_model("llama").config;
  const auto plain = ModelConfig::from_hugging_face(config);
  config.update({{"attention_dropout", 0.1}, {"torch_dtype", "bfloat16"}, {"use_cache", false}, {"pretraining_tp", 1}});
  EXPECT_EQ(ModelConfig::from_hugging_face(config).layers.size(), plain.layers.size());
}

TEST(Config, AllowedAndSwitchedOffKeysAreLetThroughWithAWarning) {
  auto config = test::tiny_model("llama").config;
  EXPECT_TRUE(ModelConfig::from_hugging_face(config).warnings.empty());
  config["use_mystery"] = false;
  config["nothing"] = nullptr;
  EXPECT_THAT(ModelConfig::from_hugging_face(config).warnings,
              ::testing::ElementsAre(::testing::HasSubstr("use_mystery")));
  config["mystery_scale"] = 2.0;
  EXPECT_STEER_ERROR(ModelConfig::from_hugging_face(config), ErrorCode::config, "--allow-unknown-config");
  const std::vector<std::string> allow{"mystery_scale"};
  EXPECT_THAT(ModelConfig::from_hugging_face(config, allow).warnings,
              ::testing::Contains(::testing::HasSubstr("mystery_scale = 2.0")));
}

/// A number in a damaged configuration is no reason to take memory.
TEST(Load, SizesAreBoundedByTheFile) {
  const auto refuse = [](const char* family, const json& changes, ErrorCode code, const char* text) {
    SCOPED_TRACE(changes.dump());
    auto model = test::tiny_model(family);
    model.config.update(changes);
    EXPECT_STEER_ERROR(model.load(), code, text);
  };
  refuse("llama", {{"num_hidden_layers", 2147483647}}, ErrorCode::config, "num_hidden_layers");
  refuse("llama", {{"num_hidden_layers", 60000}}, ErrorCode::format, "num_hidden_layers = 60000");
  refuse("llama", {{"vocab_size", 2147483647}}, ErrorCode::shape, "2147483647");
  refuse("llama", {{"num_attention_heads", 2147483646}}, ErrorCode::shape, "q_proj");
  refuse("llama", {{"head_dim", 2147483646}}, ErrorCode::shape, "q_proj");
  refuse("llama", {{"intermediate_size", 2147483647}}, ErrorCode::shape, "gate_proj");
  refuse("qwen3",
         {{"model_type", "qwen3_moe"},
          {"num_experts", 2147483647},
          {"moe_intermediate_size", 8},
          {"num_experts_per_tok", 2}},
         ErrorCode::format, "experts");
}

TEST(Load, NamesMissingExtraAndMisshapenTensors) {
  const auto refuse = [](const auto& change, ErrorCode code, const char* text) {
    auto model = test::tiny_model("qwen3");
    change(model);
    EXPECT_STEER_ERROR(model.load(), code, text);
  };
  refuse(
      [](auto& m) {
        std::erase_if(m.tensors, [](const auto& t) { return t.first == "model.layers.1.mlp.up_proj.weight"; });
      },
      ErrorCode::format, "model.layers.1.mlp.up_proj.weight [48, 32]");
  refuse(
      [](auto& m) {
        m["model.layers.2.self_attn.k_proj.weight"] = at::zeros({32, 32});
      },
      ErrorCode::shape, "model.layers.2.self_attn.k_proj.weight as [32, 32] (the configuration says [16, 32])");
  refuse([](auto& m) { m.tensors.emplace_back("model.layers.0.self_attn.q_proj.bias", at::zeros({32})); },
         ErrorCode::format, "model.layers.0.self_attn.q_proj.bias [32]");
  refuse([](auto& m) { m["model.norm.weight"] = at::zeros({32}, at::kLong); }, ErrorCode::shape, "model.norm.weight");
  refuse([](auto& m) { m.config["tie_word_embeddings"] = true, m.config["num_hidden_layers"] = 4; }, ErrorCode::format,
         "model.layers.3.");
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
    for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf})
      refuse(
          [&](auto& m) {
            auto& weight = m["model.layers.0.mlp.down_proj.weight"];
            weight = weight.to(type);
            weight[31][47] = bad;
          },
          ErrorCode::format, "model.layers.0.mlp.down_proj.weight");
}

TEST(Load, IgnoresBuffersAndATiedHead) {
  auto model = test::tiny_model("gemma2");
  const Model plain = model.load();
  model.tensors.emplace_back("lm_head.weight", model["model.embed_tokens.weight"].clone());
  model.tensors.emplace_back("model.layers.0.self_attn.rotary_emb.inv_freq", at::ones({4}));
  Session a(plain), b(model.load());
  EXPECT_TRUE(at::equal(a.forward(some_ids(5)), b.forward(some_ids(5))));
  EXPECT_NE(plain.hash(), b.model().hash());
}

TEST(Load, TakesNamesWithAndWithoutThePrefix) {
  for (const auto* family : {"gpt2", "llama", "gpt_neox"}) {
    auto model = test::tiny_model(family);
    Session with(model.load());
    for (auto& [name, tensor] : model.tensors)
      for (const std::string prefix : {"transformer.", "model.", "gpt_neox."})
        if (name.starts_with(prefix)) name = name.substr(prefix.size());
    Session without(model.load());
    EXPECT_TRUE(at::equal(with.forward(some_ids(5)), without.forward(some_ids(5)))) << family;
  }
}

/// Mistral's multimodal files hold one of two families.
TEST(Load, ReadsTheTextTowerOfAMultimodalFile) {
  auto model = test::tiny_model("mistral");
  Session plain(model.load());
  json text = model.config;
  model.config = {{"model_type", "mistral3"}, {"architectures", {"Mistral3ForConditionalGeneration"}},
                  {"text_config", text},      {"vision_config", {{"model_type", "pixtral"}}},
                  {"image_token_index", 10},  {"tie_word_embeddings", false}};
  for (auto& [name, tensor] : model.tensors) name = "language_model." + name;
  model.tensors.emplace_back("vision_tower.patch_conv.weight", at::ones({2, 2}));
  model.tensors.emplace_back("multi_modal_projector.linear_1.weight", at::ones({2, 2}));
  Session wrapped(model.load());
  EXPECT_TRUE(at::equal(plain.forward(some_ids(9)), wrapped.forward(some_ids(9))));
  model.config["text_config"]["model_type"] = "llama";
  EXPECT_STEER_ERROR(model.load(), ErrorCode::unsupported, "mistral or ministral3");
}

TEST(Load, RefusesBrokenFolders) {
  test::TempDir dir;
  EXPECT_STEER_ERROR(Model::load(dir / "absent"), ErrorCode::io, "absent");
  EXPECT_STEER_ERROR(Model::load(dir.path()), ErrorCode::io, "config.json");
  const auto model = test::tiny_model("llama");
  std::ofstream(dir / "config.json") << "{\"model_type\": ";
  EXPECT_STEER_ERROR(Model::load(dir.path()), ErrorCode::format, "config.json");
  std::ofstream(dir / "config.json", std::ios::trunc) << model.config.dump();
  EXPECT_STEER_ERROR(Model::load(dir.path()), ErrorCode::io, "model.safetensors");

  // Half the shards: the index names two files, one is there.
  json index = {{"metadata", json::object()}, {"weight_map", json::object()}};
  test::NamedTensors first;
  for (std::size_t i = 0; i < model.tensors.size(); ++i) {
    const bool half = i < model.tensors.size() / 2;
    index["weight_map"][model.tensors[i].first] = half ? "model-1.safetensors" : "model-2.safetensors";
    if (half) first.push_back(model.tensors[i]);
  }
  std::ofstream(dir / "model.safetensors.index.json") << index.dump();
  save_safetensors(dir / "model-1.safetensors", first);
  EXPECT_STEER_ERROR(Model::load(dir.path()), ErrorCode::io, "model-2.safetensors");
  // The same without an index: tensors are missing.
  std::filesystem::remove(dir / "model.safetensors.index.json");
  std::filesystem::rename(dir / "model-1.safetensors", dir / "model.safetensors");
  EXPECT_STEER_ERROR(Model::load(dir.path()), ErrorCode::format, "and");
  std::ofstream(dir / "model.safetensors", std::ios::trunc) << "junk";
  EXPECT_THROW(Model::load(dir.path()), Error);
}

TEST(Load, OptionsAreChecked) {
  test::TempDir dir;
  write_folder(dir, test::tiny_model("llama"));
  const auto bytes = Model::load(dir.path()).weight_bytes();
  EXPECT_EQ(Model::load(dir.path(), {.max_memory = bytes}).weight_bytes(), bytes);
  EXPECT_STEER_ERROR(Model::load(dir.path(), {.max_memory = bytes - 1}), ErrorCode::argument, "max_memory");
  EXPECT_STEER_ERROR(Model::load(dir.path(), {.max_memory = -1}), ErrorCode::argument, "-1");
  for (const char* device : {"", "gpu", "cuda", "cuda:", "cuda:x", "cuda:0x", "cuda:12345", "CPU"})
    EXPECT_STEER_ERROR(parse_device(device), ErrorCode::argument, std::string("\"") + device + "\"");
  EXPECT_EQ(parse_device("cpu"), at::kCPU);
  EXPECT_EQ(parse_device("cuda:12"), at::Device(at::kCUDA, 12));
  EXPECT_THROW(Model::load(dir.path(), {.device = parse_device("cuda:99")}), Error);
  EXPECT_STEER_ERROR(Model::load(dir.path(), {.device = at::kMeta}), ErrorCode::unsupported, "meta");
  EXPECT_STEER_ERROR(Model::load(dir.path(), {.context = 129}), ErrorCode::argument, "129");
  Session session(Model::load(dir.path(), {.context = 8}));
  EXPECT_EQ(session.model().config().context, 8);
  EXPECT_STEER_ERROR(session.forward(some_ids(9)), ErrorCode::shape, "8 tokens");
  EXPECT_STEER_ERROR(session.model().tokenizer(), ErrorCode::config, "tokenizer");
  EXPECT_STEER_ERROR(session.model().chat(), ErrorCode::config, "tokenizer");
}

TEST(Load, ReadsTheEndTokensOfTheGenerationConfig) {
  test::TempDir dir;
  write_folder(dir, test::tiny_model("llama"));
  std::ofstream(dir / "generation_config.json") << R"({"eos_token_id": [2, 7]})";
  EXPECT_EQ(Model::load(dir.path()).config().eos_ids, (std::vector<std::int64_t>{2, 7}));
}

/// Other forms of the weights stay near the f32 logits, in proportion to what they keep.
TEST(Load, WeightFormats) {
  for (const auto* family : test::kFamilies) {
    const auto tiny = test::tiny_model(family);
    Session reference(tiny.load());
    const auto ids = some_ids(12);
    const at::Tensor exact = reference.forward(ids);
    const double scale = exact.std().item<double>();
    for (const auto& [format, tolerance] :
         {std::pair{WeightFormat::f32, 0.0}, {WeightFormat::bf16, 0.05}, {WeightFormat::int8, 0.1}}) {
      Session session(tiny.load({.weights = format}));
      EXPECT_LE((session.forward(ids) - exact).abs().mean().item<double>(), tolerance * scale)
          << family << " " << to_string(format);
    }
  }
}

/// Journals tell answers by the hash: a model that computes other numbers has another. What it cannot do it says.
TEST(Load, RoundedActivationsAreNamed) {
  using namespace model::detail;
  const auto tiny = test::tiny_model("llama");
  const std::string hash = tiny.load().hash();
  EXPECT_EQ(tiny.load({.weights = WeightFormat::int8}).hash(), hash + "-weights-int8");
  const auto before = core::detail::isa_in_use();
  for (auto isa : {core::detail::Isa::portable, core::detail::Isa::avx2, core::detail::Isa::avx512}) {
    if (!core::detail::isa_available(isa)) continue;
    core::detail::set_isa_for_testing(isa);
    for (const auto& [compute, name, rounds] :
         {std::tuple{ComputeFormat::bf16, "bf16", kernels().rounds(WeightType::bf16, Rounding::bf16)},
          {ComputeFormat::int8, "int8", kernels().rounds(WeightType::int8, Rounding::int8)}}) {
      EXPECT_FALSE(rounds && isa == core::detail::Isa::portable);
      const Model model = tiny.load({.compute = compute});
      EXPECT_EQ(model.hash(), rounds ? hash + "-compute-" + name : hash);
      const std::string told = std::string("f32, not in ") + name;
      const auto warned = std::ranges::count_if(
          model.warnings(), [&](const std::string& warning) { return warning.find(told) != std::string::npos; });
      EXPECT_EQ(warned, rounds ? 0 : 1);
    }
  }
  core::detail::set_isa_for_testing(before);
}

std::int64_t status_kib(const char* key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key)) return std::stoll(line.substr(std::string(key).size() + 1));
  return -1;
}

/// A model of 100 million parameters, mapped: loading it and generating takes its own size and hardly more.
TEST(Load, PeakMemoryIsTheWeightsAndTheCache) {
#if defined(STEER_ADDRESS_SANITIZER) || defined(STEER_THREAD_SANITIZER)
  GTEST_SKIP() << "sanitizers keep memory of their own";
#endif
  test::TempDir dir;
  constexpr std::int64_t d = 768, mlp = 2048, vocab = 32000, layers = 10, kv = 256;
  const json config = {{"model_type", "llama"},     {"vocab_size", vocab},
                       {"hidden_size", d},          {"num_hidden_layers", layers},
                       {"num_attention_heads", 12}, {"num_key_value_heads", 4},
                       {"intermediate_size", mlp},  {"max_position_embeddings", 512},
                       {"rms_norm_eps", 1e-5},      {"tie_word_embeddings", false}};
  std::ofstream(dir / "config.json") << config.dump();
  {
    std::vector<TensorSpec> specs{{"model.embed_tokens.weight", at::kBFloat16, {vocab, d}},
                                  {"lm_head.weight", at::kBFloat16, {vocab, d}},
                                  {"model.norm.weight", at::kBFloat16, {d}}};
    for (std::int64_t l = 0; l < layers; ++l) {
      const auto p = format_text("model.layers.{}.", l);
      const auto add = [&](const char* name, std::vector<std::int64_t> shape) {
        specs.push_back({p + name, at::kBFloat16, std::move(shape)});
      };
      add("input_layernorm.weight", {d}), add("post_attention_layernorm.weight", {d});
      add("self_attn.q_proj.weight", {d, d}), add("self_attn.o_proj.weight", {d, d});
      add("self_attn.k_proj.weight", {kv, d}), add("self_attn.v_proj.weight", {kv, d});
      add("mlp.gate_proj.weight", {mlp, d}), add("mlp.up_proj.weight", {mlp, d}), add("mlp.down_proj.weight", {d, mlp});
    }
    SafetensorsWriter writer(dir / "model.safetensors", specs);
    for (const auto& spec : specs) writer.write(spec.name, at::rand(spec.shape, at::kBFloat16).mul_(0.04).sub_(0.02));
    writer.finish();
  }
  Session(test::tiny_model("llama").load()).forward(some_ids(3));  // libtorch's own start-up memory
  malloc_trim(0);
  const std::int64_t before = status_kib("VmRSS:");
  std::ofstream("/proc/self/clear_refs") << "5";  // the peak starts anew from here
  Session session(Model::load(dir.path()));
  EXPECT_GT(session.model().weight_bytes(), 2 * 100'000'000);
  const SequenceId s = session.open();
  session.step({{s, std::vector<std::int64_t>(200, 5)}});
  for (int i = 0; i < 3; ++i) session.step({{s, std::vector<std::int64_t>{7}, Phase::generated}});
  const std::int64_t grown = (status_kib("VmHWM:") - before) * 1024;
  const double limit =
      1.1 * static_cast<double>(session.model().weight_bytes()) + static_cast<double>(session.cache_bytes());
  std::printf("peak memory: %.1f MB for %.1f MB of weights and %.1f MB of cache\n", static_cast<double>(grown) / 1e6,
              static_cast<double>(session.model().weight_bytes()) / 1e6,
              static_cast<double>(session.cache_bytes()) / 1e6);
  EXPECT_LE(static_cast<double>(grown), limit);
}

}  // namespace
}  // namespace steer
