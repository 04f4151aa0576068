// Quantised matrices against their published formulas in numpy (make_quantised.py).
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include <steer/model/session.hpp>

#include "model/kernels/linear.hpp"
#include "model/stored_weights.hpp"
#include "model/tiny_models.hpp"
#include "support.hpp"

namespace steer {
namespace {

using nlohmann::json;

std::filesystem::path data_file(const std::string& name) {
  return std::filesystem::path(STEER_SOURCE_DIR) / "tests/data/model" / ("quantised_" + name + ".safetensors");
}

/// The file without what is expected of it.
std::shared_ptr<const TensorReader> without_expected(const TensorReader& file) {
  test::NamedTensors tensors;
  for (const auto& info : file.tensors())
    if (!info.name.starts_with("expected.")) tensors.emplace_back(info.name, file.read(info.name));
  return tensors_in_memory(std::move(tensors), json::object());
}

/// Every expected matrix of a file, whole, by rows, and where it keeps blocks, through the kernels' decoder.
void check(const std::string& name, const json& config) {
  SCOPED_TRACE(name);
  const auto file = open_tensors(data_file(name));
  const auto stored = without_expected(*file);
  const auto view = model::detail::plain_tensors(*stored, model::detail::read_quantisation(config));
  ASSERT_TRUE(view);
  std::size_t expected = 0;
  for (const auto& info : file->tensors()) {
    if (!info.name.starts_with("expected.")) continue;
    ++expected;
    const std::string matrix = info.name.substr(9);
    SCOPED_TRACE(matrix);
    const at::Tensor right = file->read(info.name);
    ASSERT_TRUE(view->contains(matrix));
    EXPECT_EQ(view->info(matrix).shape, info.shape);
    EXPECT_LT((view->read(matrix).to(at::kFloat) - right).abs().max().item<float>(), 1e-6);
    EXPECT_LT((view->read_rows(matrix, 1, 3).to(at::kFloat) - right.narrow(0, 1, 2)).abs().max().item<float>(), 1e-6);
    const auto& storage = view->info(matrix).storage;
    if (!model::detail::Linear::keeps_blocks(storage)) continue;
    const at::Tensor rows = right.flatten(0, -2);
    const auto kept = model::detail::Linear::blocks(view->raw(matrix), storage, rows.size(0), rows.size(1));
    EXPECT_LT((kept.to_f32() - rows).abs().max().item<float>(), 1e-6);
  }
  EXPECT_EQ(view->tensors().size(), expected) << "parts of matrices must not show";
}

TEST(StoredWeights, EqualTheFormulas) {
  check("gptq", {{"quant_method", "gptq"}, {"bits", 4}, {"group_size", 64}});
  check("gptq_v2", {{"quant_method", "gptq"}, {"bits", 4}, {"group_size", 64}, {"checkpoint_format", "gptq_v2"}});
  check("awq", {{"quant_method", "awq"}, {"bits", 4}, {"group_size", 64}, {"version", "gemm"}});
  check("fp8", {{"quant_method", "fp8"}, {"weight_block_size", {8, 16}}});
  check("bitsandbytes", {{"quant_method", "bitsandbytes"}, {"load_in_4bit", true}});
  check("mxfp4", {{"quant_method", "mxfp4"}});
}

TEST(StoredWeights, KeepEightBitsWhereNothingIsLost) {
  const auto file = open_tensors(data_file("gptq"));
  const auto view = model::detail::plain_tensors(
      *file, model::detail::read_quantisation({{"quant_method", "gptq"}, {"bits", 4}, {"group_size", 64}}));
  EXPECT_EQ(view->info("plain.weight").storage, "Q8_0");
  EXPECT_EQ(view->info("shuffled.weight").storage, "gptq");  // its groups cross blocks
}

TEST(StoredWeights, RefuseWhatTheyDoNotRead) {
  const auto refuse = [](const json& config, const char* word) {
    EXPECT_STEER_ERROR(model::detail::read_quantisation(config), ErrorCode::unsupported, word);
  };
  refuse({{"quant_method", "aqlm"}}, "aqlm");
  refuse({{"quant_method", "gptq"}, {"bits", 3}}, "3 bits");
  refuse({{"quant_method", "awq"}, {"bits", 4}, {"version", "gemv"}}, "gemv");
  refuse({{"quant_method", "compressed-tensors"}, {"format", "pack-quantized"}}, "pack-quantized");
  refuse({{"bits", 4}}, "quantization_config");
  refuse({{"bits", 4}, {"group_size", 64}}, "MLX");
  refuse({{"quant_method", "awq"}, {"bits", 4}, {"group_size", 0}}, "group_size = 0");
  refuse({{"quant_method", "gptq"}, {"bits", 4}, {"group_size", "128"}}, "group_size = \"128\"");
  const auto plain = test::tiny_model("llama").reader();
  EXPECT_STEER_ERROR(model::detail::plain_tensors(*plain, model::detail::read_quantisation({{"quant_method", "awq"}})),
                     ErrorCode::unsupported, "quantization_config");
  const auto file = open_tensors(data_file("gptq"));
  test::NamedTensors incomplete;
  for (const auto& info : file->tensors())
    if (info.name != "plain.scales") incomplete.emplace_back(info.name, file->read(info.name));
  const auto reader = tensors_in_memory(std::move(incomplete), json::object());
  EXPECT_STEER_ERROR(
      model::detail::plain_tensors(
          *reader, model::detail::read_quantisation({{"quant_method", "gptq"}, {"bits", 4}, {"group_size", 64}})),
      ErrorCode::format, "plain.scales");
}

/// Groups that do not divide the width, or no whole number of blocks: f32, by the formula.
TEST(StoredWeights, GroupsOfAnyLengthAreRead) {
  const std::int64_t out = 8, in = 48;
  for (const std::int64_t group : {16, 24, 32, -1}) {
    const std::int64_t length = group > 0 ? group : in, groups = (in + length - 1) / length;
    at::manual_seed(static_cast<std::uint64_t>(group + 2));
    const at::Tensor words = at::randint(-(1ll << 31), 1ll << 31, {in, 1}, at::kLong).to(at::kInt),
                     zeros = at::randint(-(1ll << 31), 1ll << 31, {groups, 1}, at::kLong).to(at::kInt),
                     scales = at::rand({groups, out}).to(at::kHalf);
    const auto reader = tensors_in_memory({{"m.qweight", words}, {"m.qzeros", zeros}, {"m.scales", scales}}, {});
    const auto view = model::detail::plain_tensors(
        *reader, model::detail::read_quantisation({{"quant_method", "awq"}, {"bits", 4}, {"group_size", group}}));
    const at::Tensor got = view->read("m.weight");
    constexpr int kPlace[] = {0, 4, 1, 5, 2, 6, 3, 7};  // of a column's four bits in a word (AutoAWQ's GEMM layout)
    const auto four_bits = [&](const at::Tensor& t, std::int64_t row, std::int64_t column) {
      return static_cast<int>(static_cast<std::uint32_t>(t[row][0].item<int>()) >> (4 * kPlace[column]) & 15);
    };
    for (std::int64_t o = 0; o < out; ++o)
      for (std::int64_t i = 0; i < in; ++i) {
        const std::int64_t g = i / length;
        const float right =
            scales[g][o].item<float>() * static_cast<float>(four_bits(words, i, o) - four_bits(zeros, g, o));
        ASSERT_FLOAT_EQ(got[o][i].item<float>(), right) << "group " << group << " [" << o << ", " << i << "]";
      }
  }
}

/// A whole model of four-bit matrices computes what the decoded one computes.
TEST(StoredWeights, AModelOfThemLoads) {
  auto model = test::tiny_model("llama");
  auto decoded = model;
  at::manual_seed(2);
  test::NamedTensors tensors;
  for (auto& [name, tensor] : model.tensors) {
    if (!name.ends_with("_proj.weight")) {
      tensors.emplace_back(name, tensor);
      continue;
    }
    const std::int64_t out = tensor.size(0), in = tensor.size(1);
    const std::string base = name.substr(0, name.size() - 7);
    const at::Tensor q = at::randint(0, 16, {in, out}, at::kLong), scale = at::full({1, out}, 0.02, at::kHalf);
    at::Tensor words = at::zeros({in / 8, out}, at::kLong);
    for (std::int64_t i = 0; i < 8; ++i) words = words + q.unflatten(0, {in / 8, 8}).select(1, i) * (1LL << (4 * i));
    tensors.emplace_back(base + ".qweight", words.to(at::kInt));
    tensors.emplace_back(base + ".qzeros", at::full({1, out / 8}, 0x77777777, at::kInt));
    tensors.emplace_back(base + ".scales", scale);
    decoded[name] = ((q - 8).to(at::kFloat) * scale.to(at::kFloat)).t().contiguous();
  }
  auto config = model.config;
  config["quantization_config"] = {{"quant_method", "gptq"}, {"bits", 4}, {"group_size", -1}};
  const Model loaded =
      Model::from_tensors(ModelConfig::from_hugging_face(config), *tensors_in_memory(tensors, json::object()));
  Session a(loaded), b(decoded.load());
  const auto ids = test::some_ids(9);
  EXPECT_LT((a.forward(ids) - b.forward(ids)).abs().max().item<float>(), 1e-4);
  EXPECT_LT(loaded.weight_bytes(), b.model().weight_bytes());
}

}  // namespace
}  // namespace steer
