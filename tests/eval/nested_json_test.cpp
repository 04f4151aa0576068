// Every reader of JSON, each given values nested deeper than a stack is: an error, and a short one.
#include <gtest/gtest.h>

#include <fstream>

#include <steer/steer.hpp>

#include "support.hpp"

namespace steer {
namespace {

const std::filesystem::path kDemo = std::filesystem::path(STEER_SOURCE_DIR) / "examples/data/demo";

std::string deep(std::size_t levels) { return std::string(levels, '[') + std::string(levels, ']'); }

/// `text` with a deep value in place of the mark.
std::string with_deep(std::string text) { return text.replace(text.find('@'), 1, deep(300'000)); }

template <class F>
void expect_refused(const char* reader, F&& read) {
  try {
    read();
    ADD_FAILURE() << reader << ": expected a steer::Error";
  } catch (const Error& error) {
    EXPECT_NE(std::string_view(error.what()).find("nested"), std::string_view::npos) << reader << ": " << error.what();
    EXPECT_LT(std::string_view(error.what()).size(), 600u) << reader;
  }
}

TEST(NestedJson, IsRefusedByEveryReader) {
  test::TempDir dir;
  const auto write = [&](const char* name, const std::string& text) {
    std::ofstream(dir / name, std::ios::binary) << text;
    return dir / name;
  };
  std::filesystem::copy(kDemo, dir / "model", std::filesystem::copy_options::recursive);
  std::string config = test::read_file(kDemo / "config.json");
  write("model/config.json", with_deep(config.replace(config.rfind('}'), 1, ", \"zz\": @}")));
  expect_refused("Model::load", [&] { Model::load(dir / "model"); });
  write("model/config.json", test::read_file(kDemo / "config.json"));
  write("model/tokenizer_config.json", with_deep(R"({"zz": @})"));
  expect_refused("tokenizer_config", [&] { Model::load(dir / "model"); });
  expect_refused("Tokenizer::load", [&] { Tokenizer::load(dir / "model"); });
  write("model/tokenizer_config.json", "{}");
  write("model/generation_config.json", with_deep(R"({"eos_token_id": @})"));
  expect_refused("generation_config", [&] { Model::load(dir / "model"); });

  const auto sae = Sae::load(kDemo / "sae.safetensors");
  sae.save(dir / "sae");
  for (const auto* key : {"d_in", "architecture", "metadata", "zz"}) {
    write("sae/cfg.json", with_deep(std::string("{\"") + key + "\": @}"));
    expect_refused(key, [&] { Sae::load(dir / "sae"); });
  }
  for (const auto* text : {R"({"version": @})", R"({"version": 1, "edits": [{"feature": @}]})", R"({"vectors": @})"})
    expect_refused(text, [&] { Steering::load(write("steering.json", with_deep(text))); });
  for (const auto* text :
       {R"({"id": "a", "question": "q", "choices": @, "answer": 0})",
        R"({"id": "a", "question": "q", "choices": ["x", "y"], "answer": @})", R"({"id": @, "question": "q"})"})
    expect_refused(text, [&] { load_questions(write("questions.jsonl", with_deep(text))); });
  for (const auto* text : {R"({"arm": @})", R"({"arm": "a", "behaviour": "b", "question": "q", "scores": @})"})
    expect_refused(text, [&] { load_results(write("results.jsonl", with_deep(text))); });
  expect_refused("behaviours", [&] { load_behaviours(write("behaviours.json", with_deep(R"([{"name": @}])"))); });
  expect_refused("labels", [&] {
    FeatureLabels::import_neuronpedia(write("labels.jsonl", with_deep(R"({"index": "1", "description": @})")),
                                      dir / "store");
  });
  EXPECT_EQ(parse_judgement(Rubric::coherence, JudgeRequest{}, with_deep(R"({"scores": @})")), std::nullopt);
}

}  // namespace
}  // namespace steer
