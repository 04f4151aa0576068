// Every reader of JSON, each given values nested deeper than a stack is, and files that are cut off: an error, short,
// in words of ours.
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <functional>

#include <nlohmann/json.hpp>
#include <steer/steer.hpp>

#include "core/format_text.hpp"
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

struct JsonFile {
  std::filesystem::path path;
  std::string text;
  std::function<void()> read;
};

TEST(CutOffJson, IsRefusedByEveryReaderWithWhereItEnds) {
  test::TempDir dir;
  const auto model = dir / "model", adapter = dir / "adapter", sae = dir / "sae";
  std::filesystem::copy(kDemo, model, std::filesystem::copy_options::recursive);
  std::filesystem::create_directory(adapter);
  Sae::load(kDemo / "sae.safetensors").save(sae);
  std::filesystem::copy_file(std::filesystem::path(STEER_SOURCE_DIR) / "tests/data/text/byte_level.json",
                             dir / "tokenizer.json");
  const Steering steering = Steering().add(at::ones({4}), {Site::resid_post, 1}, 2);
  const auto load_model = [&] { Model::load(model); };
  const auto load_tokenizer = [&] { Tokenizer::load(model); };
  const JsonFile files[] = {
      {model / "config.json", test::read_file(model / "config.json"), load_model},
      {model / "generation_config.json", R"({"eos_token_id": [1, 2]})", load_model},
      {model / "tokenizer_config.json", test::read_file(model / "tokenizer_config.json"), load_tokenizer},
      {model / "special_tokens_map.json", R"({"bos_token": {"content": "<s>"}})", load_tokenizer},
      {model / "chat_template.json", R"({"chat_template": "{{ messages }}"})", load_tokenizer},
      {dir / "tokenizer.json", test::read_file(dir / "tokenizer.json"),
       [&] { Tokenizer::load(dir / "tokenizer.json"); }},
      {model / "model.safetensors.index.json", R"({"weight_map": {"lm_head.weight": "model.safetensors"}})",
       [&] { open_tensors(model / "model.safetensors.index.json"); }},
      {adapter / "adapter_config.json", R"({"peft_type": "LORA", "r": 2, "lora_alpha": 4})",
       [&] { Model::load(model, {.adapter = adapter}); }},
      {sae / "cfg.json", test::read_file(sae / "cfg.json"), [&] { Sae::load(sae); }},
      {dir / "labels.json", R"({"explanations": [{"index": "1", "description": "dogs"}]})",
       [&] { FeatureLabels::import_neuronpedia(dir / "labels.json", dir / "store"); }},
      {dir / "labels.jsonl", R"({"index": "1", "description": "dogs"})",
       [&] { FeatureLabels::import_neuronpedia(dir / "labels.jsonl", dir / "store"); }},
      {dir / "questions.json", R"([{"id": "a", "question": "q", "choices": ["x", "y"], "answer": 0}])",
       [&] { load_questions(dir / "questions.json"); }},
      {dir / "questions.jsonl", R"({"id": "a", "question": "q", "choices": ["x", "y"], "answer": 0})",
       [&] { load_questions(dir / "questions.jsonl"); }},
      {dir / "steering.json", steering.to_json().dump(2), [&] { Steering::load(dir / "steering.json"); }},
      {dir / "results.jsonl", R"({"arm": "a", "behaviour": "b", "question": "q", "response": "r"})",
       [&] { load_results(dir / "results.jsonl"); }},
      {dir / "behaviours.json",
       R"([{"name": "short", "instruction": "Be short.", "rule": {"kind": "at_most_words", "limit": 9}}])",
       [&] { load_behaviours(dir / "behaviours.json"); }},
  };
  for (const auto& file : files) {
    const std::string whole = file.text.substr(0, file.text.find_last_not_of(" \n") + 1);
    const auto write = [&](std::string_view text) { std::ofstream(file.path, std::ios::binary) << text; };
    const std::size_t step = std::max<std::size_t>(1, whole.size() / 40);
    for (std::size_t length = 1; length < whole.size(); length += step) {
      SCOPED_TRACE(format_text("{}, the first {} bytes", file.path.filename().string(), length));
      write(whole.substr(0, length));
      try {
        file.read();
        ADD_FAILURE() << "expected a steer::Error";
      } catch (const Error& error) {
        const std::string_view text = error.what();
        for (const std::string& word : {file.path.filename().string(), std::string("cut off"), std::string("byte")})
          EXPECT_NE(text.find(word), std::string_view::npos) << text;
        EXPECT_EQ(text.find("json.exception"), std::string_view::npos) << text;
        EXPECT_LT(text.size(), 600u);
      }
    }
    write("\xef\xbb\xbf" + whole);  // as editors on Windows save it
    try {
      file.read();
    } catch (const Error& error) {  // of what these two name, which is not there, not of the mark
      const auto name = file.path.filename();
      EXPECT_TRUE(name == "adapter_config.json" || name == "model.safetensors.index.json") << error.what();
      EXPECT_EQ(std::string_view(error.what()).find("JSON"), std::string_view::npos) << error.what();
    }
    write(whole);
    if (file.path.parent_path() == model && file.path.filename() != "config.json" &&
        file.path.filename() != "tokenizer_config.json")
      std::filesystem::remove(file.path);
  }
}

}  // namespace
}  // namespace steer
