#include <gtest/gtest.h>
#include <zlib.h>

#include <fstream>

#include <steer/sae/labels.hpp>
#include <steer/sae/sae.hpp>

#include "support.hpp"

namespace steer {
namespace {

namespace fs = std::filesystem;

void gzip(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  const auto file = gzopen(path.c_str(), "wb");
  gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  gzclose(file);
}

TEST(FeatureLabels, ReadsAnExport) {
  const test::TempDir dir;
  gzip(dir / "export/explanations/batch-0.jsonl.gz",
       "{\"modelId\":\"m\",\"layer\":\"19-g\",\"index\":\"10\",\"description\":\"says \\\"NaN\\\" and "
       "\\u00e9\",\"umap_x\":NaN}\n"
       "{\"index\":\"2\",\"description\":\"first\",\"embedding\":[1,NaN,{\"a\":[]}]}\n\n");
  gzip(dir / "export/explanations/batch-1.jsonl.gz",
       "{\"index\":2,\"description\":\"second\"}\n{\"index\":\"3\",\"description\":null}");
  gzip(dir / "export/features/batch-0.jsonl.gz",
       "{\"index\":\"2\",\"maxActApprox\":7.5,\"frac_nonzero\":0.01,\"pos_str\":[\" "
       "a\",\"\\n\"],\"vectorDefaultSteerStrength\":10}\r\n"
       "{\"index\":\"4\",\"maxActApprox\":NaN,\"frac_nonzero\":-Infinity,\"neg_values\":[-Infinity,NaN]}\n");
  const auto labels = FeatureLabels::import_neuronpedia(dir / "export", dir / "store");
  EXPECT_EQ(labels.size(), 11);
  EXPECT_EQ(labels.model_id(), "m");
  EXPECT_EQ(labels.source_id(), "19-g");
  EXPECT_EQ(labels.label(10), "says \"NaN\" and \u00e9");
  EXPECT_EQ(labels.explanations(2), (std::vector<std::string_view>{"first", "second"}));
  EXPECT_EQ(labels.max_activation(2), 7.5f);
  EXPECT_EQ(labels.frac_nonzero(2), 0.01f);
  EXPECT_EQ(labels.default_strength(2), 10.0f);
  EXPECT_EQ(labels.max_activation(4), std::nullopt);
  EXPECT_EQ(labels.frac_nonzero(4), std::nullopt);
  for (const std::int64_t none : {-1, 0, 3, 4, 11}) {
    EXPECT_EQ(labels.label(none), "");
    EXPECT_TRUE(labels.explanations(none).empty());
  }
}

TEST(FeatureLabels, ReadsOneFileAndKnowsItsSae) {
  const test::TempDir dir;
  const auto file = [&](const char* rows) {
    std::ofstream(dir / "labels.jsonl") << rows;
    return FeatureLabels::import_neuronpedia(dir / "labels.jsonl", dir / "store");
  };
  const auto sae = Sae::load(fs::path(STEER_SOURCE_DIR) / "examples/data/demo/sae.safetensors");  // of layer 1
  const auto labels = file(
      "{\"layer\":\"1-resid-post\",\"index\":\"3\",\"description\":\"three\",\"maxActApprox\":2.5}\n{\"index\":1}\n");
  EXPECT_EQ(labels.label(3), "three");
  EXPECT_EQ(labels.max_activation(3), 2.5f);
  labels.require_of(sae);
  EXPECT_STEER_ERROR(file("{\"layer\":\"19-goodfire\",\"index\":3}").require_of(sae), ErrorCode::config, "layer 19");
  EXPECT_STEER_ERROR(file("{\"index\":768}").require_of(sae), ErrorCode::config, "at most 768 features");
  file("{\"layer\":\"res-jb\",\"index\":3}").require_of(sae);
}

TEST(FeatureLabels, ReadsDocumentsOfTheApi) {
  const test::TempDir dir;
  const auto import = [&](const std::string& text) {
    std::ofstream(dir / "export.json", std::ios::binary) << text;
    return FeatureLabels::import_neuronpedia(dir / "export.json", dir / "store");
  };
  // One feature's page: its number may come after its explanations, which have none of their own.
  const auto page = import(
      R"({"modelId": "m", "explanations": [{"description": "a"}, {"description": "b", "index": "5"}],
          "activations": [{"index": 9, "tokens": ["x"], "description": "no"}], "layer": "3-s", "maxActApprox": 4.5,
          "index": "2"})");
  EXPECT_EQ(page.label(2), "a");
  EXPECT_EQ(page.label(5), "b");
  EXPECT_EQ(page.size(), 6);
  EXPECT_EQ(page.source_id(), "3-s");
  EXPECT_EQ(page.max_activation(2), 4.5f);
  EXPECT_EQ(import("\n\n[\n{\"index\": 1, \"description\": \"NaN, Infinity\", \"maxActApprox\": NaN}]").label(1),
            "NaN, Infinity");
  EXPECT_STEER_ERROR(import("[1, 2]"), ErrorCode::format, "a number in line 1");
  EXPECT_STEER_ERROR(import("{\"explanations\": [{\"description\": \"x\"}]}"), ErrorCode::format, "index");
  EXPECT_STEER_ERROR(import("[[{\"index\": 1}]]"), ErrorCode::format, "no");
}

TEST(FeatureLabels, PythonsNumbersTakeLinearTime) {
  const test::TempDir dir;
  // Sixteen million of them: replacing one after another within the line would move 10^15 bytes.
  std::string row = "{\"index\": 1, \"x\": [";
  while (row.size() < (std::size_t{48} << 20)) row += "-Infinity,Infinity,NaN,";
  row += "NaN], \"description\": \"d\"}\n";
  std::ofstream(dir / "labels.jsonl", std::ios::binary) << row;
  EXPECT_EQ(FeatureLabels::import_neuronpedia(dir / "labels.jsonl", dir / "store").label(1), "d");
}

TEST(FeatureLabels, ReadsTheGeneratedExport) {
  const auto generator = test::outside_data("STEER_SAE_FIXTURES", "../shared/fixtures/gen_sae_fixtures.py");
  if (!generator.present) GTEST_SKIP() << "no fixtures at " << generator.path;
  const test::TempDir dir;
  auto root = generator.path;
  if (!generator.named) {
    root = dir / "fixtures";
    if (std::system(("python3 '" + generator.path.string() + "' '" + root.string() + "' > /dev/null").c_str()) != 0)
      GTEST_SKIP() << "no python3";
  }
  const auto labels =
      FeatureLabels::import_neuronpedia(root / "neuronpedia/v1/llama3.1-8b-it/19-goodfire", dir / "store");
  EXPECT_EQ(labels.model_id(), "llama3.1-8b-it");
  EXPECT_EQ(labels.source_id(), "19-goodfire");
  EXPECT_EQ(labels.size(), 11);
  EXPECT_EQ(labels.label(10), "feature \u00e9 \"10\"");
  EXPECT_EQ(labels.explanations(2).size(), 2u);
  EXPECT_EQ(labels.max_activation(10), -2.5f);
}

TEST(FeatureLabels, ManyFeaturesOpenWithoutBeingRead) {
  const test::TempDir dir;
  std::vector<FeatureRecord> records(65536);
  for (std::int64_t i = 0; i < 65536; ++i)
    records[i] = {i, {"a feature about the number " + std::to_string(i)}, 1.0f * i, {}, {}};
  FeatureLabels::write(dir / "store", records, "m", "s");
  const auto labels = FeatureLabels::open(dir / "store");
  EXPECT_EQ(labels.size(), 65536);
  for (const std::int64_t i : {0, 1, 40000, 65535}) {
    EXPECT_EQ(labels.label(i), records[i].explanations[0]);
    EXPECT_EQ(labels.max_activation(i), 1.0f * i);
  }
}

TEST(FeatureLabels, DamageIsNamed) {
  const test::TempDir dir;
  FeatureLabels::write(dir / "store", std::vector<FeatureRecord>{{3, {"x", "yy"}, 1.0f, {}, {}}}, "m", "s");
  const auto whole = test::read_file(dir / "store");
  for (std::size_t n = 0; n < whole.size(); ++n) {
    std::ofstream(dir / "cut", std::ios::binary).write(whole.data(), static_cast<std::streamsize>(n));
    EXPECT_THROW(FeatureLabels::open(dir / "cut"), Error) << n;
  }
  // A flipped bit anywhere ends in an Error or in other values, never outside the file.
  for (std::size_t n = 0; n < whole.size(); ++n)
    for (const int bit : {0, 3, 7}) {
      auto bytes = whole;
      bytes[n] = static_cast<char>(bytes[n] ^ (1 << bit));
      std::ofstream(dir / "flip", std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
      try {
        const auto labels = FeatureLabels::open(dir / "flip");
        for (std::int64_t i = 0; i < 4; ++i) labels.explanations(i), labels.max_activation(i);
      } catch (const Error&) {
      }
    }
  gzip(dir / "bad/explanations/batch-0.jsonl.gz", "{\"index\":\"2\",\"description\":\"x\"}\n{\"index\":");
  EXPECT_STEER_ERROR(FeatureLabels::import_neuronpedia(dir / "bad", dir / "s"), ErrorCode::format, "line 2");
  gzip(dir / "bad/explanations/batch-0.jsonl.gz", "{\"description\":\"x\"}");
  EXPECT_STEER_ERROR(FeatureLabels::import_neuronpedia(dir / "bad", dir / "s"), ErrorCode::format, "index");
  auto cut = test::read_file(dir / "bad/explanations/batch-0.jsonl.gz");
  std::ofstream(dir / "bad/explanations/batch-0.jsonl.gz", std::ios::binary).write(cut.data(), 20);
  EXPECT_STEER_ERROR(FeatureLabels::import_neuronpedia(dir / "bad", dir / "s"), ErrorCode::format, "batch-0");
  EXPECT_STEER_ERROR(FeatureLabels::import_neuronpedia(dir / "none", dir / "s"), ErrorCode::io, "none");
  EXPECT_STEER_ERROR(FeatureLabels::write(dir / "s", std::vector<FeatureRecord>{{-1, {}, {}, {}, {}}}),
                     ErrorCode::argument, "-1");
}

}  // namespace
}  // namespace steer
