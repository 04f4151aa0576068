// Dictionaries in the layouts of their hub repositories, evaluated by SAELens or by the publisher's formula: see the
// golden folder's README. One case is one golden file.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include <steer/io/safetensors_writer.hpp>
#include <steer/io/tensor_reader.hpp>
#include <steer/sae/cross_layer.hpp>
#include <steer/sae/sae.hpp>
#include <steer/sae/temporal.hpp>

#include "core/format_text.hpp"
#include "support.hpp"

namespace steer {
namespace {

namespace fs = std::filesystem;

bool close(const at::Tensor& got, const at::Tensor& want, const std::string& what, double tolerance = 1e-4) {
  if (got.sizes() != want.sizes()) {
    ADD_FAILURE() << what << ": shape " << got.sizes() << " instead of " << want.sizes();
    return false;
  }
  const double error = (got - want).abs().max().item<double>();
  EXPECT_LE(error, tolerance) << what;
  return error <= tolerance;
}

/// The hook names in the golden file's metadata are those that the SAE says, where steer has such a site.
bool same_hooks(const SaeConfig& config, const TensorReader& golden) {
  const auto& meta = golden.metadata();
  bool ok = true;
  if (meta.contains("hook_name")) {
    EXPECT_EQ(meta["hook_name"], config.hook_name);
    ok &= meta["hook_name"] == config.hook_name;
  }
  if (meta.contains("hook_name_out")) {
    const bool same = config.hook_out && meta["hook_name_out"] == config.hook_out->name();
    EXPECT_TRUE(same) << meta["hook_name_out"];
    ok &= same;
  }
  return ok;
}

bool check_sae(const Sae& sae, const TensorReader& golden) {
  const auto x = golden.read("x"), want = golden.read("feature_acts"), recon = golden.read("recon");
  bool ok = close(sae.encode(x), want, "feature_acts");
  ok &= close(sae.decode(want, x), recon, "recon");
  ok &= close(sae.reconstruct(x), recon, "reconstruct");
  return same_hooks(sae.config(), golden) && ok;
}

bool check_cross_layer(const fs::path& folder, const TensorReader& golden) {
  const auto clt = CrossLayerTranscoder::load(folder);
  const auto x = golden.read("x").unbind(), want = golden.read("feature_acts").unbind(),
             recon = golden.read("recon").unbind();
  EXPECT_EQ(clt.n_layers(), static_cast<std::int64_t>(x.size()));
  if (clt.n_layers() != static_cast<std::int64_t>(x.size())) return false;
  const auto decoded = clt.decode(want), whole = clt.reconstruct(x);
  bool ok = true;
  for (std::size_t l = 0; l < x.size(); ++l) {
    const auto sae = clt.layer(static_cast<std::int64_t>(l));
    ok &= close(sae.encode(x[l]), want[l], format_text("features of layer {}", l));
    ok &= close(decoded[l], recon[l], format_text("decoded layer {}", l));
    ok &= close(whole[l], recon[l], format_text("reconstructed layer {}", l));
  }
  return ok;
}

bool check_layer_by_saelens(const fs::path& folder, std::int64_t layer, const TensorReader& golden) {
  const auto sae = CrossLayerTranscoder::load(folder).layer(layer);
  const bool encodes = close(sae.encode(golden.read("x")), golden.read("feature_acts"), "feature_acts");
  return same_hooks(sae.config(), golden) && encodes;
}

bool check_temporal(const fs::path& folder, const TensorReader& golden) {
  const auto sae = TemporalSae::load(folder);
  const auto x = golden.read("x"), novel = golden.read("feature_acts");
  const auto codes = sae.encode(x);
  bool ok = close(codes.novel, novel, "novel codes", 1e-5);
  const bool same = at::equal(codes.novel != 0, novel != 0);
  EXPECT_TRUE(same) << "other features are active";
  ok &= same & close(codes.predicted, golden.read("predicted_acts"), "predicted codes");
  ok &= close(sae.decode(codes.novel), golden.read("novel_recon"), "novel recon");
  ok &= close(sae.reconstruct(x), golden.read("recon"), "recon");
  // A token's codes depend on those before it, not on those after it, and not on the other sequences.
  const auto half = x.size(-2) / 2;
  ok &= close(sae.encode(x[0].narrow(0, 0, half)).novel, novel[0].narrow(0, 0, half), "a prefix", 1e-5);
  const auto name = golden.metadata().at("hook_name").get<std::string>();
  EXPECT_TRUE(sae.hook() && sae.hook()->name() == name) << name;
  return ok && sae.hook() && sae.hook()->name() == name;
}

/// The number at the end of "golden.saelens_layer_2.safetensors".
std::int64_t layer_in(const std::string& stem) { return std::stoll(stem.substr(stem.rfind('_') + 1)); }

bool check(const fs::path& golden_file) {
  const auto golden = open_tensors(golden_file);
  const auto folder = golden_file.parent_path();
  const auto stem = golden_file.stem().string();
  if (fs::exists(folder / "conf.yaml")) return check_temporal(folder, *golden);
  if (stem.starts_with("golden.saelens_layer_")) return check_layer_by_saelens(folder, layer_in(stem), *golden);
  if (stem.starts_with("golden.layer_"))
    return check_sae(Sae::load(folder / (stem.substr(std::string("golden.").size()) + ".safetensors")), *golden);
  if (fs::exists(folder / "W_enc_0.safetensors")) return check_cross_layer(folder, *golden);
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".pt") return check_sae(Sae::load(entry.path()), *golden);
  ADD_FAILURE() << "nothing that is known lies beside " << golden_file;
  return false;
}

TEST(GoldenSaeLayouts, MatchTheirPublishers) {
  const auto root = test::outside_data("STEER_GOLDEN_DIR", "../shared/fixtures/golden");
  const auto folder = root.path / "sae_layouts";
  std::vector<fs::path> files;
  if (fs::is_directory(folder))
    for (const auto& entry : fs::recursive_directory_iterator(folder))
      if (entry.path().filename().string().starts_with("golden") && entry.path().extension() == ".safetensors")
        files.push_back(entry.path());
  if (files.empty()) {
    // A named folder may hold other goldens alone, but not nothing.
    bool others = false;
    for (const char* part : {"families", "models", "saes", "templates", "tokenizers"})
      others = others || fs::is_directory(root.path / part);
    ASSERT_TRUE(!root.named || (others && !fs::is_directory(folder))) << folder << " holds no golden file";
    GTEST_SKIP() << "no sae_layouts in " << root.path << " (STEER_GOLDEN_DIR names the folder)";
  }
  std::sort(files.begin(), files.end());
  test::CaseCounter counter("golden.sae_layouts");
  for (const auto& file : files) {
    SCOPED_TRACE(file.string());
    bool ok = false;
    try {
      ok = check(file);
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
    counter.count(ok);
  }
}

// Where d_in = d_sae no shape tells the layouts apart: the configuration beside the file must.
TEST(GoldenSaeLayouts, SquareMatricesAreReadByTheConfiguration) {
  const auto root = test::outside_data("STEER_GOLDEN_DIR", "../shared/fixtures/golden");
  if (!root.present) GTEST_SKIP() << "no golden folder at " << root.path;
  // A transcoder of 6 by 6: features are rows of W_enc as circuit-tracer stores it.
  const test::TempDir dir;
  const auto W = at::arange(36).to(at::kFloat).reshape({6, 6}), x = at::ones({2, 6}) / 6;
  save_safetensors(dir / "layer_4.safetensors",
                   {{"W_enc", W}, {"W_dec", W}, {"b_enc", at::zeros({6})}, {"b_dec", at::zeros({6})}});
  EXPECT_STEER_ERROR(Sae::load(dir / "layer_4.safetensors"), ErrorCode::unsupported, "layer_4");
  std::ofstream(dir / "config.yaml") << "model_kind: transcoder_set\nmodel_name: m  # of ours\n";
  const auto sae = Sae::load(dir / "layer_4.safetensors");
  close(sae.encode(x), at::matmul(x, W.t()), "square");
  EXPECT_EQ(sae.config().model_name, "m");
  EXPECT_EQ(sae.config().hook_out, (HookPoint{Site::mlp_out, 4}));
}

}  // namespace
}  // namespace steer
