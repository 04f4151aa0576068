// GGUF files of each family that llama.cpp writes, made by its own converter (make_gguf_families.py): they compute what
// transformers computes with the same weights. STEER_GGUF_FAMILIES_DIR names further ones, NAME.gguf beside NAME.json.
#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include <steer/io/gguf_writer.hpp>
#include <steer/io/tensor_reader.hpp>
#include <steer/model/session.hpp>

#include "model/families.hpp"
#include "support.hpp"

namespace steer {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> files() {
  const auto data = test::outside_data("STEER_GGUF_FAMILIES_DIR", "tests/data/model/gguf");
  std::vector<fs::path> out;
  for (const auto& folder : {fs::path(steer_source_dir()) / "tests/data/model/gguf", data.path})
    if (fs::is_directory(folder))
      for (const auto& entry : fs::directory_iterator(folder))
        if (entry.path().extension() == ".gguf") out.push_back(fs::canonical(entry.path()));
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

TEST(GoldenFamiliesGguf, ComputeWhatTransformersComputes) {
  test::CaseCounter counter("golden.families (GGUF)");
  const auto all = files();
  EXPECT_FALSE(all.empty());
  for (const auto& file : all) {
    SCOPED_TRACE(file.filename().string());
    try {
      const auto right = nlohmann::json::parse(test::read_file(fs::path(file).replace_extension(".json")));
      Session session(Model::load(file));
      const at::Tensor logits = session.forward(right["ids"].get<std::vector<std::int64_t>>());
      double error = 0;
      for (std::size_t i = 0; i < right["rows"].size(); ++i) {
        const at::Tensor row = at::tensor(right["logits"][i].get<std::vector<float>>());
        error = std::max(error, (logits[right["rows"][i].get<std::int64_t>()] - row).abs().max().item<double>());
      }
      counter.count(error <= 1e-4);
      EXPECT_LE(error, 1e-4);
    } catch (const std::exception& error) {
      counter.count(false);
      ADD_FAILURE() << error.what();
    }
  }
}

/// A file of every architecture in our table, so that a new row brings its file.
TEST(GoldenFamiliesGguf, HaveAFileOfEachArchitecture) {
  std::set<std::string> seen;
  for (const auto& file : files())
    seen.insert(open_tensors(file)->metadata().at("general.architecture").get<std::string>());
  for (const auto& family : model::detail::families())
    EXPECT_TRUE(family.architecture.empty() || seen.contains(std::string(family.architecture))) << family.architecture;
}

TEST(GoldenFamiliesGguf, AnotherArchitectureIsRefusedByName) {
  const test::TempDir dir;
  save_gguf(dir / "model.gguf", {{"general.architecture", "mamba"}}, {{"token_embd.weight", at::zeros({4, 4})}});
  EXPECT_STEER_ERROR(Model::load(dir / "model.gguf"), ErrorCode::unsupported, "but got \"mamba\"");
}

}  // namespace
}  // namespace steer
