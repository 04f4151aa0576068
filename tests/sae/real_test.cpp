// Label exports, wrapped SAE files and SAEs of centred streams as people bring them: STEER_REAL_DIR.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <steer/model/session.hpp>
#include <steer/sae/labels.hpp>
#include <steer/sae/sae.hpp>

#include "core/format_text.hpp"
#include "real_cases.hpp"

namespace steer {
namespace {

TEST(RealNeuronpedia, LabelsOfEveryExport) {
  const test::TempDir dir;
  test::check_real_cases(
      "neuronpedia",
      [&](const test::RealCase& c) { return FeatureLabels::import_neuronpedia(c.input(), dir / "store"); },
      [](const FeatureLabels& got, const nlohmann::json& right) -> std::string {
        if (right.contains("size") && got.size() != right["size"]) return format_text("{} features", got.size());
        if (right.contains("model_id") && right["model_id"] != got.model_id()) return "model " + got.model_id();
        if (right.contains("source_id") && right["source_id"] != got.source_id()) return "source " + got.source_id();
        for (const auto& [feature, texts] : right["labels"].items()) {
          const auto labels = got.explanations(std::stoll(feature));
          if (nlohmann::json(std::vector<std::string>(labels.begin(), labels.end())) != texts)
            return "other labels of feature " + feature;
        }
        return {};
      });
}

at::Tensor matrix(const nlohmann::json& rows) {
  auto out = at::empty({static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(rows.at(0).size())});
  for (std::size_t r = 0; r < rows.size(); ++r)
    for (std::size_t i = 0; i < rows[r].size(); ++i)
      out[static_cast<std::int64_t>(r)][static_cast<std::int64_t>(i)] = rows[r][i].get<float>();
  return out;
}

std::string differs(const at::Tensor& got, const nlohmann::json& right) {
  const auto want = matrix(right["features"]);
  if (got.sizes() != want.sizes()) return "another shape";
  const double error = (got - want).abs().max().item<double>();
  return error <= right["tolerance"].get<double>() ? "" : format_text("features are off by {}", error);
}

TEST(RealSaePrefixes, GiveTheTrainersFeatures) {
  test::check_real_cases(
      "sae_prefixes",
      [](const test::RealCase& c) {
        const auto sae = Sae::load(c.input());
        return c.expected().contains("x") ? sae.encode(matrix(c.expected()["x"])) : at::Tensor();
      },
      differs);
}

/// Features of the model's own activations at the case's point.
at::Tensor features_of(const test::RealCase& c, const std::filesystem::path& sae_folder) {
  const auto sae = Sae::load(sae_folder);
  Session session(Model::load(c.input("model")));
  const auto& right = c.expected();
  const std::string point = right.at("point");
  const auto cache = session.run_with_cache(right.at("ids").get<std::vector<std::int64_t>>(), {point});
  return sae.encode(cache[point]);
}

TEST(RealSaeCentred, GiveTheFeaturesOfTheTrainedStream) {
  test::check_real_cases(
      "sae_centred",
      [](const test::RealCase& c) {
        if (!c.expected().contains("point")) return Sae::load(c.input("sae")).encode(at::zeros({1, 1}));
        return features_of(c, c.input("sae"));
      },
      differs);
}

// The cases name no model that tells LayerNorm from RMS norms, so that a refusal is right there; with a name that
// does, the values themselves must come out.
TEST(RealSaeCentred, IsAppliedWhereTheModelsNameTells) {
  int applied = 0;
  for (const auto& c : test::real_cases("sae_centred")) {
    if (!c.expected().contains("point")) continue;
    SCOPED_TRACE(c.name);
    const auto model = nlohmann::json::parse(test::read_file(c.input("model") / "config.json"));
    const test::TempDir dir;
    std::filesystem::copy(c.input("sae"), dir / "sae", std::filesystem::copy_options::recursive);
    auto config = nlohmann::json::parse(test::read_file(dir / "sae/cfg.json"));
    auto& named = config.contains("metadata") ? config["metadata"] : config;
    named["model_name"] = model["model_type"] == "gpt2" ? "gpt2-small" : "meta-llama/Llama-2-7b";
    std::ofstream(dir / "sae/cfg.json") << config.dump();
    EXPECT_EQ(differs(features_of(c, dir / "sae"), c.expected()), "");
    ++applied;
  }
  if (applied == 0) GTEST_SKIP() << "no cases of sae_centred in " << test::real_data().path;
}

}  // namespace
}  // namespace steer
