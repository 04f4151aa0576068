// Models in the files that people bring them in: PyTorch files, shards, split GGUF, adapters. STEER_REAL_DIR.
#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <steer/model/session.hpp>

#include "core/format_text.hpp"
#include "real_cases.hpp"

namespace steer {
namespace {

using test::RealCase;

/// Logits after the last of the case's ids; of a case that asks for a refusal, whatever loading gives.
at::Tensor last_logits(const RealCase& c, const LoadOptions& options, const std::filesystem::path& path) {
  const auto model = Model::load(path, options);
  for (const char* key : {"expected", "or"})
    if (c.json.contains(key) && c.json[key].contains("ids")) {
      Session session(model);
      return session.forward(c.json[key]["ids"].get<std::vector<std::int64_t>>())[-1].to(at::kFloat);
    }
  return at::zeros({0});
}

std::string differs(const at::Tensor& got, const nlohmann::json& right) {
  const auto want = right["logits_last"].get<std::vector<float>>();
  if (got.numel() < static_cast<std::int64_t>(want.size())) return format_text("{} logits", got.numel());
  double error = 0;
  for (std::size_t i = 0; i < want.size(); ++i)
    error = std::max(error, std::abs(double{got[static_cast<std::int64_t>(i)].item<float>()} - want[i]));
  if (error > right["tolerance"].get<double>()) return format_text("logits are off by {}", error);
  return got.argmax().item<std::int64_t>() == right["argmax"] ? "" : "another token is the likeliest";
}

TEST(RealBinShards, GiveTheReferencesLogits) {
  test::check_real_cases(
      "bin_shards", [](const RealCase& c) { return last_logits(c, {}, c.input()); }, differs);
}

TEST(RealGgufSplit, GivesTheWholeFilesLogits) {
  test::check_real_cases(
      "gguf_split", [](const RealCase& c) { return last_logits(c, {}, c.input()); }, differs);
}

TEST(RealLora, IsMergedAsPeftDoes) {
  test::check_real_cases(
      "lora",
      [](const RealCase& c) {
        if (c.json["input"].is_string()) return last_logits(c, {}, c.input());
        return last_logits(c, {.adapter = c.input("adapter")}, c.input("base"));
      },
      differs);
}

}  // namespace
}  // namespace steer
