// Every SAE in the golden folder, evaluated by SAELens itself: see README.md there. One case is one SAE.
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include <steer/io/tensor_reader.hpp>
#include <steer/sae/sae.hpp>

#include "core/format_text.hpp"
#include "support.hpp"

namespace steer {
namespace {

namespace fs = std::filesystem;

constexpr double kTolerance = 1e-4;

/// Largest absolute difference is within the tolerance; says where it comes from if not.
bool close(const at::Tensor& got, const at::Tensor& want, const std::string& what) {
  if (got.sizes() != want.sizes()) {
    ADD_FAILURE() << what << ": shape " << got.sizes() << " instead of " << want.sizes();
    return false;
  }
  const double error = (got - want).abs().max().item<double>();
  EXPECT_LE(error, kTolerance) << what;
  return error <= kTolerance;
}

bool check(const Sae& sae, const TensorReader& golden, const std::string& prefix) {
  const auto x = golden.read("x"), want = golden.read(prefix + "feature_acts");
  const auto f = sae.encode(x);
  bool ok = close(f, want, prefix + "feature_acts");
  // Plain ReLU may sit anywhere near 0; every other kind decides by a margin.
  if (sae.config().activation != SaeActivation::relu) {
    const bool same = at::equal(f != 0, want != 0);
    EXPECT_TRUE(same) << prefix << "other features are active";
    ok &= same;
  }
  if (!golden.contains(prefix + "recon")) return ok;
  const auto recon = golden.read(prefix + "recon");
  const auto forward = golden.contains(prefix + "forward") ? golden.read(prefix + "forward") : recon;
  ok &= close(sae.decode(want, x), recon, prefix + "recon");
  ok &= close(sae.reconstruct(x), forward, prefix + "forward");
  // The sparse and the narrow ways give the same.
  const auto sparse = sae.encode_sparse(x);
  ok &= close(sparse.dense(), want, prefix + "encode_sparse");
  ok &= close(sae.decode(sparse, x), recon, prefix + "decode of sparse");
  const std::vector<std::int64_t> some = {sae.d_sae() - 1, 0, sae.d_sae() / 2};
  ok &= close(sae.encode_subset(x, some),
              want.index_select(-1, at::tensor(at::ArrayRef<std::int64_t>(some), at::kLong)), prefix + "encode_subset");
  return ok;
}

bool run_case(const fs::path& folder) {
  const auto golden = open_tensors(folder / "golden.safetensors");
  SaeLoadOptions options;
  bool ok = true;
  if (golden->contains("norm_scaling_factor")) {
    EXPECT_STEER_ERROR(Sae::load(folder), ErrorCode::config, "norm_scaling_factor");
    options.norm_scaling_factor = 1.0;
    if (golden->contains("unfolded.feature_acts")) ok &= check(Sae::load(folder, options), *golden, "unfolded.");
    options.norm_scaling_factor = golden->read("norm_scaling_factor").item<double>();
  }
  const auto sae = Sae::load(folder, options);
  ok &= check(sae, *golden, "");
  if (golden->contains("fold_W_dec_norm.feature_acts")) ok &= check(sae.fold_W_dec_norm(), *golden, "fold_W_dec_norm.");
  // What we write reads back as the same function, from a folder and from a single file.
  const test::TempDir temporary;
  sae.save(temporary / "folder");
  ok &= check(Sae::load(temporary / "folder"), *golden, "");
  sae.save(temporary / "one.safetensors");
  ok &= check(Sae::load(temporary / "one.safetensors"), *golden, "");
  return ok;
}

TEST(GoldenSaes, MatchSaeLens) {
  const auto root = test::outside_data("STEER_GOLDEN_DIR", "../shared/fixtures/golden");
  const auto folder = root.path / "saes";
  if (!root.named && !fs::exists(folder)) GTEST_SKIP() << "no golden SAEs at " << folder << " (set STEER_GOLDEN_DIR)";
  ASSERT_TRUE(fs::exists(folder)) << folder << " is named by STEER_GOLDEN_DIR";
  std::vector<fs::path> cases;
  for (const auto& entry : fs::directory_iterator(folder))
    if (fs::exists(entry.path() / "golden.safetensors")) cases.push_back(entry.path());
  std::sort(cases.begin(), cases.end());
  ASSERT_FALSE(cases.empty()) << folder;
  test::CaseCounter counter("golden.saes");
  for (const auto& path : cases) {
    SCOPED_TRACE(path.filename().string());
    bool ok = false;
    try {
      ok = run_case(path);
    } catch (const std::exception& e) {
      ADD_FAILURE() << e.what();
    }
    counter.count(ok);
  }
}

// SAELens itself reads what we write. Runs where STEER_SAELENS_PYTHON names a Python that has sae-lens.
TEST(SaeLensReads, WhatSteerWrites) {
  const char* python = std::getenv("STEER_SAELENS_PYTHON");
  if (!python || !*python) GTEST_SKIP() << "set STEER_SAELENS_PYTHON to a Python with sae-lens";
  const auto golden = test::outside_data("STEER_GOLDEN_DIR", "../shared/fixtures/golden").path / "saes";
  ASSERT_TRUE(fs::exists(golden)) << golden;
  const test::TempDir written;
  for (const auto& entry : fs::directory_iterator(golden)) {
    SaeLoadOptions options;
    const auto vectors = open_tensors(entry.path() / "golden.safetensors");
    if (vectors->contains("norm_scaling_factor"))
      options.norm_scaling_factor = vectors->read("norm_scaling_factor").item<double>();
    Sae::load(entry.path(), options).save(written / entry.path().filename());
  }
  const auto command = format_text("'{}' '{}/tests/sae/read_with_saelens.py' '{}' '{}'", python, STEER_SOURCE_DIR,
                                   written.path().string(), golden.string());
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
}

}  // namespace
}  // namespace steer
