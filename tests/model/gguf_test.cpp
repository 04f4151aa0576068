// Real GGUF models against llama.cpp: every NAME.gguf with a NAME.json beside it (or in the fixtures) in
// STEER_GGUF_DIR.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include <steer/model/session.hpp>

#include "core/format_text.hpp"
#include "support.hpp"

namespace steer {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// The reference's control vector: sin(0.37 (i + 1)) + cos(0.11 (i + 1)) for i = 0.., of length `scale`.
at::Tensor control_vector(std::int64_t width, double scale) {
  at::Tensor v = at::empty({width}, at::kDouble);
  for (std::int64_t i = 0; i < width; ++i)
    v.data_ptr<double>()[i] = std::sin(0.37 * static_cast<double>(i + 1)) + std::cos(0.11 * static_cast<double>(i + 1));
  return (v * (scale / v.norm().item<double>())).to(at::kFloat);
}

struct Agreement {
  double top10 = 0, summary = 0;
  bool greedy = true;
};

/// A prompt's logits and its greedy continuation beside the reference block's.
Agreement compare(Session& session, const std::vector<std::int64_t>& ids, const json& block) {
  Agreement out;
  const SequenceId sequence = session.open();
  at::Tensor logits = session.step({{sequence, ids}})[0];
  for (const auto& entry : block["top10"])
    out.top10 =
        std::max(out.top10, std::abs(logits[entry[0].get<std::int64_t>()].item<double>() - entry[1].get<double>()));
  const at::Tensor wide = logits.to(at::kDouble);
  out.summary = std::max({std::abs(wide.logsumexp(0).item<double>() - block["logsumexp"].get<double>()),
                          std::abs(wide.mean().item<double>() - block["mean"].get<double>()),
                          std::abs(wide.std().item<double>() - block["std"].get<double>())});
  for (const auto& expected : block["greedy24"]) {
    const std::vector<std::int64_t> next{logits.argmax().item<std::int64_t>()};
    out.greedy &= next[0] == expected.get<std::int64_t>();
    logits = session.step({{sequence, next, Phase::generated}})[0];
  }
  session.close(sequence);
  return out;
}

std::vector<std::pair<fs::path, fs::path>> pairs(const test::OutsideData& data) {
  std::vector<std::pair<fs::path, fs::path>> out;
  if (!fs::is_directory(data.path)) return out;
  for (const auto& entry : fs::directory_iterator(data.path)) {
    const auto reference = fs::path(entry.path()).replace_extension(".json");
    if (entry.path().extension() == ".gguf" && fs::exists(reference)) out.emplace_back(entry.path(), reference);
  }
  std::sort(out.begin(), out.end());
  return out;
}

TEST(Gguf, EqualsLlamaCppWithWeightsInF32) {
  const auto data = test::outside_data("STEER_GGUF_DIR", "../shared/fixtures/gguf");
  const auto models = pairs(data);
  if (models.empty() && !data.named)
    GTEST_SKIP() << "no GGUF model beside its reference in " << data.path << " (STEER_GGUF_DIR names a folder)";
  EXPECT_FALSE(models.empty()) << "no pair NAME.gguf and NAME.json in " << data.path;
  test::CaseCounter counter("gguf");
  for (const auto& [file, reference_file] : models) {
    std::ifstream stream(reference_file);
    const json reference = json::parse(stream);
    const Model model = Model::load(file, {.weights = WeightFormat::f32});
    const auto check = [&, name = file.filename()](bool ok, const std::string& what) {
      counter.count(ok);
      EXPECT_TRUE(ok) << name << ": " << what;
    };
    check(model.config().vocab_size == reference["n_vocab"] && model.config().n_layers == reference["n_layer"] &&
              model.config().d_model == reference["n_embd"],
          "sizes");
    Session session(model);
    double worst = 0;
    for (const auto& [name, prompt] : reference["prompts"].items()) {
      const auto ids = prompt["ids"].get<std::vector<std::int64_t>>();
      check(model.tokenizer().encode(prompt["text"].get<std::string>()) == ids, "ids of prompt " + name);
      const auto result = compare(session, ids, prompt["f32weights"]);
      worst = std::max(worst, result.top10);
      check(result.top10 <= 1e-2, format_text("top 10 logits of {} are {} apart", name, result.top10));
      check(result.summary <= 1e-2, format_text("statistics of {} are {} apart", name, result.summary));
      check(result.greedy, "greedy ids of " + name);
    }
    if (reference.contains("cvec")) {
      const auto& cvec = reference["cvec"];
      const at::Tensor v = control_vector(model.config().d_model, cvec["scale"].get<double>());
      const auto off = session.hook(HookPoint{Site::resid_post, cvec["layer"].get<std::int64_t>()},
                                    [&](HookContext& at) { at.value.add_(v); });
      const auto ids = reference["prompts"][cvec["prompt"].get<std::string>()]["ids"].get<std::vector<std::int64_t>>();
      const auto result = compare(session, ids, cvec["f32weights"]);
      worst = std::max(worst, result.top10);
      check(result.top10 <= 1e-2 && result.greedy,
            format_text("control vector: {} apart, greedy {}", result.top10, result.greedy));
    }
    for (const auto& example : reference["tokenize_only"])
      check(model.tokenizer().encode(example[0].get<std::string>()) == example[1].get<std::vector<std::int64_t>>(),
            "ids of " + example[0].dump());
    std::printf("gguf: %s, largest difference of a top 10 logit %.4f\n", file.filename().c_str(), worst);
  }
}

TEST(Gguf, QuantisedInMemoryStaysNearItsOwnF32) {
  const auto data = test::outside_data("STEER_GGUF_DIR", "../shared/fixtures/gguf");
  const auto models = pairs(data);
  if (models.empty() && !data.named)
    GTEST_SKIP() << "no GGUF model beside its reference in " << data.path << " (STEER_GGUF_DIR names a folder)";
  test::CaseCounter counter("gguf");
  for (const auto& [file, reference_file] : models) {
    std::ifstream stream(reference_file);
    const json reference = json::parse(stream);
    // The same numbers, decoded as they are used: not the looser agreement of implementations that round activations.
    const Model model = Model::load(file);
    EXPECT_LT(model.weight_bytes(), static_cast<std::int64_t>(fs::file_size(file)));
    Session session(model);
    int left = 3;
    for (const auto& [name, prompt] : reference["prompts"].items()) {
      if (left-- == 0) break;
      const auto result = compare(session, prompt["ids"].get<std::vector<std::int64_t>>(), prompt["f32weights"]);
      const bool ok = result.top10 <= 1e-2 && result.greedy;
      counter.count(ok);
      EXPECT_TRUE(ok) << file.filename() << ", prompt " << name << ": " << result.top10 << " apart, greedy ids "
                      << (result.greedy ? "equal" : "differ");
    }
  }
}

/// Folders that make_gemma_folder.py made beside a GGUF file: its weights as Hugging Face keeps them.
TEST(Gguf, HuggingFaceFoldersEqualTransformersAndTheFileTheyAreFrom) {
  const auto data = test::outside_data("STEER_GGUF_DIR", "../shared/fixtures/gguf");
  std::vector<fs::path> folders;
  if (fs::is_directory(data.path))
    for (const auto& entry : fs::directory_iterator(data.path))
      if (fs::exists(entry.path() / "reference.json")) folders.push_back(entry.path());
  if (folders.empty()) GTEST_SKIP() << "no folder with a reference.json in " << data.path;
  test::CaseCounter counter("gguf");
  for (const auto& folder : folders) {
    const json reference = json::parse(test::read_file(folder / "reference.json"));
    const Model model = Model::load(folder, {.weights = WeightFormat::f32});
    const Model original =
        Model::load(data.path / reference["model"].get<std::string>(), {.weights = WeightFormat::f32});
    Session session(model), other(original);
    double worst = 0, apart = 0;
    for (const auto& [name, prompt] : reference["prompts"].items()) {
      const auto ids = prompt["ids"].get<std::vector<std::int64_t>>();
      const auto result = compare(session, ids, prompt);
      worst = std::max(worst, result.top10);
      apart = std::max(apart, (session.forward(ids) - other.forward(ids)).abs().max().item<double>());
      const bool ok = model.tokenizer().encode(prompt["text"].get<std::string>()) == ids && result.top10 <= 1e-2 &&
                      result.summary <= 1e-2 && result.greedy;
      counter.count(ok);
      EXPECT_TRUE(ok) << folder.filename() << ", prompt " << name << ": top 10 logits " << result.top10
                      << " apart, statistics " << result.summary << ", greedy ids "
                      << (result.greedy ? "equal" : "differ");
    }
    counter.count(apart <= 1e-2);
    EXPECT_LE(apart, 1e-2) << "folder and GGUF file";
    std::printf("gguf: %s, largest difference of a top 10 logit %.5f; from the GGUF file %.6f\n",
                folder.filename().c_str(), worst, apart);
  }
}

}  // namespace
}  // namespace steer
