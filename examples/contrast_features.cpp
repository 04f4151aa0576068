// Which SAE features tell two sets of texts apart: each file has one text a line.
//
//   contrast_features examples/data/texts/funny.txt examples/data/texts/plain.txt

#include <CLI/CLI.hpp>
#include <fstream>
#include <steer/core/error.hpp>
#include <steer/features/activations.hpp>
#include <steer/features/contrast.hpp>

int main(int argc, char** argv) {
  steer::LoadOptions load;
  CLI::App app("Which SAE features tell two sets of texts apart, the strongest first");
  std::string model_path = "examples/data/demo", sae_path = "examples/data/demo/sae.safetensors",
              with = "examples/data/texts/funny.txt", without = "examples/data/texts/plain.txt";
  std::int64_t limit = 15;
  app.add_option("with", with, "texts that have it, one a line")->capture_default_str();
  app.add_option("without", without, "texts that do not")->capture_default_str();
  app.add_option("--model", model_path, "a Hugging Face folder or a GGUF file")->capture_default_str();
  app.add_option("--allow-unknown-config", load.allow_unknown_config,
                 "a key of config.json to ignore; may be repeated");
  app.add_option("--sae", sae_path, "a file or folder of any layout in docs/sae-formats.md")->capture_default_str();
  app.add_option("--limit", limit, "features shown")->capture_default_str()->check(CLI::Range(1, 1'000'000));
  CLI11_PARSE(app, argc, argv);
  try {
    const auto model = steer::Model::load(model_path, load);
    for (const auto& warning : model.warnings()) fmt::print(stderr, "note: {}\n", warning);
    steer::Session session(model);
    const auto sae = steer::Sae::load(sae_path);
    const auto pooled = [&](const std::string& path) {  // [texts, d_sae]
      std::ifstream file(path);
      steer::require(file.good(), steer::ErrorCode::io, "contrast_features",
                     "expected a readable file of texts, one a line, but got \"{}\"; check the path", path);
      std::vector<steer::TokenizedText> texts;
      for (std::string line; std::getline(file, line);)
        if (!line.empty()) texts.push_back({.ids = session.model().tokenizer().encode(line)});
      steer::require(!texts.empty(), steer::ErrorCode::argument, "contrast_features",
                     "expected texts, one a line, but got none in \"{}\"", path);
      return steer::pooled_features(session, sae, texts);
    };
    fmt::print("feature     d  AUROC [95 % interval]   active with, without\n");
    for (const auto& f : steer::contrast_features(pooled(with), pooled(without), {.limit = limit}))
      fmt::print("{:>7} {:+5.1f}  {:5.3f} [{:5.3f}, {:5.3f}]  {:5.2f} {:5.2f}{}\n", f.feature, f.standardised, f.auroc,
                 f.auroc_low, f.auroc_high, f.active_positive, f.active_negative, f.always_on ? "  always on" : "");
  } catch (const std::exception& error) {
    return fmt::print(stderr, "{}\n", error.what()), 1;
  }
}
