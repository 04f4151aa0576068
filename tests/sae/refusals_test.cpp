// What people give by mistake, and what they are told: the kind of error, and the words that name the next step. No
// advice may lead back to where it came from: what a message says to give must itself load.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>

#include <steer/io/gguf_writer.hpp>
#include <steer/io/safetensors_writer.hpp>
#include <steer/io/tensor_reader.hpp>
#include <steer/model/check.hpp>
#include <steer/model/model.hpp>
#include <steer/sae/cross_layer.hpp>
#include <steer/sae/labels.hpp>
#include <steer/sae/sae.hpp>
#include <steer/sae/temporal.hpp>
#include <steer/text/tokenizer.hpp>

#include "io/builders.hpp"
#include "real_cases.hpp"

namespace steer {
namespace {

namespace fs = std::filesystem;
using test::TempDir;
using test::write_bytes;

const fs::path kDemo = fs::path(STEER_SOURCE_DIR) / "examples/data/demo";

struct Refusal {
  const char* what;
  fs::path (*make)(const TempDir&);  ///< the input
  void (*load)(const fs::path&);     ///< what is done with it
  ErrorCode code;
  std::vector<std::string> words;  ///< of the message, case not counting; "a|b": either
};

void as_tensors(const fs::path& path) { open_tensors(path); }
void as_model(const fs::path& path) { Model::load(path); }
void as_sae(const fs::path& path) { Sae::load(path); }
void as_labels(const fs::path& path) { FeatureLabels::import_neuronpedia(path, path.string() + ".store"); }

template <std::size_t N>
fs::path file_of(const TempDir& dir, const char* name, const char (&bytes)[N]) {
  write_bytes(dir / name, std::string(bytes, N - 1));
  return dir / name;
}

fs::path weights(const TempDir& dir, const char* name) {
  fs::create_directories((dir / name).parent_path());
  save_safetensors(dir / name, {{"w", at::ones({2, 2})}});
  return dir / name;
}

const Refusal kRefusals[] = {
    {"no such path", [](const TempDir& d) { return d / "none"; }, as_model, ErrorCode::io, {"none", "check the path"}},
    {"no such SAE", [](const TempDir& d) { return d / "none"; }, as_sae, ErrorCode::io, {"none"}},
    {"an empty file",
     [](const TempDir& d) { return file_of(d, "a.safetensors", ""); },
     as_tensors,
     ErrorCode::format,
     {"empty file", "download"}},
    {"a Git LFS pointer",
     [](const TempDir& d) { return file_of(d, "a", "version https://git-lfs.github.com/spec/v1\n"); },
     as_tensors,
     ErrorCode::unsupported,
     {"Git LFS", "git lfs pull"}},
    {"a web page",
     [](const TempDir& d) { return file_of(d, "a", "<!DOCTYPE html><html>"); },
     as_tensors,
     ErrorCode::unsupported,
     {"web page", "download it again"}},
    {"a gzip file",
     [](const TempDir& d) { return file_of(d, "a", "\x1f\x8b\x08"); },
     as_tensors,
     ErrorCode::unsupported,
     {"gzip", "unpack"}},
    {"an HDF5 file",
     [](const TempDir& d) { return file_of(d, "a", "\x89HDF\r\n"); },
     as_tensors,
     ErrorCode::unsupported,
     {"HDF5", "safetensors"}},
    {"a file of joblib",
     [](const TempDir& d) { return file_of(d, "a", "\x80\x04\x95....."); },
     as_tensors,
     ErrorCode::unsupported,
     {"pickle", "safetensors"}},
    {"other bytes",
     [](const TempDir& d) { return file_of(d, "a", "nothing known"); },
     as_tensors,
     ErrorCode::unsupported,
     {"nothing known", "check that this is the weight file"}},
    {"an index of nothing",
     [](const TempDir& d) { return file_of(d, "a.index.json", "{\"x\": 1}"); },
     as_tensors,
     ErrorCode::format,
     {"weight_map", "name the weight file"}},
    {"an index that names itself",
     [](const TempDir& d) { return file_of(d, "a.index.json", "{\"weight_map\": {\"w\": \"a.index.json\"}}"); },
     as_tensors,
     ErrorCode::unsupported,
     {"a.index.json"}},
    {"an index of absent files",
     [](const TempDir& d) { return file_of(d, "a.index.json", "{\"weight_map\": {\"w\": \"b.safetensors\"}}"); },
     as_tensors,
     ErrorCode::io,
     {"b.safetensors", "download"}},
    {"a TorchScript program",
     [](const TempDir& d) {
       write_bytes(d / "a.pt", test::zip_bytes({{"a/code/x.py", "pass"}, {"a/constants.pkl", "x"}}));
       return d / "a.pt";
     },
     as_tensors,
     ErrorCode::unsupported,
     {"TorchScript", "state_dict"}},
    {"a folder without weights",
     [](const TempDir& d) { return d.path(); },
     as_tensors,
     ErrorCode::io,
     {"holds no weights", "check the path"}},
    {"a folder with weights of two names",
     [](const TempDir& d) { return weights(d, "a.safetensors"), weights(d, "b.safetensors"), d.path(); },
     as_tensors,
     ErrorCode::io,
     {"\"a.safetensors\"", "give the path of one"}},
    {"parts of which one is missing",
     [](const TempDir& d) { return weights(d, "model-00002-of-00003.safetensors"), d.path(); },
     as_tensors,
     ErrorCode::io,
     {"model-00001-of-00003.safetensors", "download"}},
    {"weights without config.json",
     [](const TempDir& d) { return weights(d, "model.safetensors"); },
     as_model,
     ErrorCode::io,
     {"config.json", "put"}},
    {"a folder of weights without config.json",
     [](const TempDir& d) { return weights(d, "model.safetensors"), d.path(); },
     as_model,
     ErrorCode::io,
     {"config.json", "download"}},
    {"an SAE as a model",
     [](const TempDir& d) { return Sae::load(kDemo / "sae.safetensors").save(d / "sae"), d / "sae"; },
     as_model,
     ErrorCode::io,
     {"Sae::load"}},
    {"a Git LFS pointer as config.json",
     [](const TempDir& d) { return file_of(d, "config.json", "version https://git-lfs.github.com/spec/v1\n"); },
     as_model,
     ErrorCode::format,
     {"Git LFS", "config.json", "git lfs pull"}},
    {"a web page as config.json",
     [](const TempDir& d) { return file_of(d, "config.json", "<!doctype html><html>"); },
     as_model,
     ErrorCode::format,
     {"web page", "config.json", "download it again"}},
    {"config.json in UTF-16",
     [](const TempDir& d) { return file_of(d, "config.json", "\xff\xfe{\0\"\0"); },
     as_model,
     ErrorCode::format,
     {"UTF-16", "save it as UTF-8"}},
    {"a web page as tokenizer.json",
     [](const TempDir& d) { return file_of(d, "tokenizer.json", "<!doctype html><html>"); },
     [](const fs::path& p) { Tokenizer::load(p); },
     ErrorCode::format,
     {"web page", "tokenizer.json", "download it again"}},
    {"a family that steer does not have",
     [](const TempDir& d) { return file_of(d, "config.json", R"({"model_type": "gemma3n_text"})"); },
     as_model,
     ErrorCode::unsupported,
     {"\"gemma3n_text\"", "gemma3_text", "adding-a-family.md", "config.json"}},
    {"a wrapper that steer does not have",
     [](const TempDir& d) {
       return file_of(d, "config.json", R"({"model_type": "llava", "text_config": {"model_type": "llama"}})");
     },
     as_model,
     ErrorCode::unsupported,
     {"\"llava\"", "wraps a language model", "adding-a-family.md"}},
    {"another tower in a known wrapper",
     [](const TempDir& d) {
       return file_of(d, "config.json", R"({"model_type": "gemma3", "text_config": {"model_type": "gemma4_text"}})");
     },
     as_model,
     ErrorCode::unsupported,
     {"\"gemma4_text\"", "gemma3_text", "adding-a-family.md"}},
    {"a GGUF architecture that steer does not have",
     [](const TempDir& d) {
       save_gguf(d / "a.gguf", {{"general.architecture", "mamba"}}, {{"w", at::ones({32})}});
       return d / "a.gguf";
     },
     as_model,
     ErrorCode::unsupported,
     {"\"mamba\"", "a.gguf", "adding-a-family.md"}},
    {"a hub's cache",
     [](const TempDir& d) {
       fs::create_directories(d / "snapshots/0123abc");
       file_of(d, "snapshots/0123abc/config.json", "{}");
       return d.path();
     },
     as_model,
     ErrorCode::io,
     {"snapshots/0123abc", "give the path"}},
    {"the folder around a model",
     [](const TempDir& d) {
       fs::create_directories(d / "model");
       file_of(d, "model/config.json", "{}");
       return d.path();
     },
     as_model,
     ErrorCode::io,
     {"/model", "give the path"}},
    {"a model's original release",
     [](const TempDir& d) { return file_of(d, "params.json", "{}"), d.path(); },
     as_model,
     ErrorCode::io,
     {"Hugging Face layout", "download"}},
    {"an adapter alone",
     [](const TempDir& d) {
       file_of(d, "adapter_config.json", "{\"peft_type\": \"LORA\", \"base_model_name_or_path\": \"org/base\"}");
       return d.path();
     },
     as_model,
     ErrorCode::unsupported,
     {"adapter", "org/base", "LoadOptions::adapter"}},
    {"an adapter of another rank than its configuration says",
     [](const TempDir& d) {
       file_of(d, "adapter_config.json", R"({"peft_type": "LORA", "r": 4, "lora_alpha": 8})");
       const auto q = open_tensors(kDemo)->info("model.layers.0.self_attn.q_proj.weight").shape;
       const std::string module = "base_model.model.model.layers.0.self_attn.q_proj.";
       save_safetensors(d / "adapter_model.safetensors", {{module + "lora_A.weight", at::ones({2, q[1]})},
                                                          {module + "lora_B.weight", at::ones({q[0], 2})}});
       return d.path();
     },
     [](const fs::path& p) { Model::load(kDemo, {.adapter = p}); },
     ErrorCode::shape,
     {"rank 4", "got 2", "adapter_model.safetensors", "of one adapter"}},
    {"a model quantised by MLX",
     [](const TempDir& d) {
       return file_of(d, "config.json", R"({"model_type": "llama", "quantization": {"bits": 4, "group_size": 64}})");
     },
     as_model,
     ErrorCode::unsupported,
     {"MLX", "bf16 safetensors"}},
    {"two GGUF files",
     [](const TempDir& d) {
       for (const auto* name : {"a.gguf", "b.gguf"})
         save_gguf(d / name, nlohmann::json::object(), {{"w", at::ones({32})}});
       return d.path();
     },
     as_model,
     ErrorCode::argument,
     {"2 GGUF files", "a.gguf"}},
    {"a renamed part of a split GGUF",
     [](const TempDir& d) {
       save_gguf(d / "mine.gguf", {{"split.no", 1}, {"split.count", 2}}, {{"w", at::ones({32})}});
       return d / "mine.gguf";
     },
     as_model,
     ErrorCode::io,
     {"part 2 of 2", "NAME-00002-of-00002.gguf"}},
    {"a model as an SAE",
     [](const TempDir&) { return kDemo / "model.safetensors"; },
     as_sae,
     ErrorCode::unsupported,
     {"known layout"}},
    {"two SAEs in a folder",
     [](const TempDir& d) { return weights(d, "a.safetensors"), weights(d, "b.safetensors"), d.path(); },
     as_sae,
     ErrorCode::argument,
     {"name the file", "a.safetensors"}},
    {"a cross-layer transcoder as an SAE",
     [](const TempDir& d) { return weights(d, "W_enc_0.safetensors"), d.path(); },
     as_sae,
     ErrorCode::unsupported,
     {"CrossLayerTranscoder::load"}},
    {"one layer of a cross-layer transcoder",
     [](const TempDir& d) {
       save_safetensors(d / "W_enc_3.safetensors", {{"W_enc_3", at::ones({4, 2})}, {"b_enc_3", at::ones({4})}});
       return d / "W_enc_3.safetensors";
     },
     as_sae,
     ErrorCode::unsupported,
     {"W_enc_3", "CrossLayerTranscoder::load"}},
    {"a temporal SAE as an SAE",
     [](const TempDir& d) {
       save_safetensors(d / "latest_ckpt.safetensors", {{"attn_layers.0.k_ctx.weight", at::ones({4, 2})}});
       return d.path();
     },
     as_sae,
     ErrorCode::unsupported,
     {"TemporalSae::load"}},
    {"a page as labels",
     [](const TempDir& d) { return file_of(d, "a.jsonl", "<html></html>\n"); },
     as_labels,
     ErrorCode::format,
     {"line 1", "a.jsonl"}},
    {"a reply without rows as labels",
     [](const TempDir& d) { return file_of(d, "a.json", "{\"message\": \"x\"}"); },
     as_labels,
     ErrorCode::format,
     {"explanations", "export"}},
    {"a folder without batches as labels",
     [](const TempDir& d) { return d.path(); },
     as_labels,
     ErrorCode::io,
     {"batch-*.jsonl.gz"}},
    {"no cross-layer transcoder",
     [](const TempDir& d) { return d.path(); },
     [](const fs::path& p) { CrossLayerTranscoder::load(p); },
     ErrorCode::io,
     {"W_enc_0.safetensors"}},
    {"no temporal SAE",
     [](const TempDir& d) { return d.path(); },
     [](const fs::path& p) { TemporalSae::load(p); },
     ErrorCode::io,
     {"conf.yaml", "latest_ckpt.safetensors"}},
};

TEST(Refusals, NameTheNextStep) {
  for (const auto& refusal : kRefusals) {
    SCOPED_TRACE(refusal.what);
    const TempDir dir;
    try {
      refusal.load(refusal.make(dir));
      ADD_FAILURE() << "was let through";
    } catch (const Error& error) {
      EXPECT_EQ(to_string(error.code()), to_string(refusal.code)) << error.what();
      EXPECT_TRUE(test::holds_words(error.what(), refusal.words)) << error.what();
      EXPECT_LT(std::string_view(error.what()).size(), 700u);
    }
  }
}

// A check of the headers refuses what loading refuses, in the same words.
TEST(Refusals, CheckingAndLoadingSayTheSame) {
  int compared = 0;
  for (const auto* kind : {"bin_shards", "gguf_split", "weights", "configs"})
    for (const auto& c : test::real_cases(kind)) {
      const auto says = [&](auto&& action) -> std::string {
        try {
          action();
        } catch (const Error& error) {
          const std::string text = error.what();
          return text.substr(text.find("] ") + 2);
        }
        return {};
      };
      const auto checked = says([&] { check_model(c.input()); });
      const auto loaded = says([&] { Model::load(c.input()); });
      EXPECT_EQ(checked, loaded) << c.name;
      ++compared;
    }
  if (compared == 0) GTEST_SKIP() << "no cases in " << test::real_data().path;
}

}  // namespace
}  // namespace steer
