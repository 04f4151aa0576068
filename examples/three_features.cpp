// Turns three SAE features up, and shows the answer before and after and what each edit did.
//   three_features MODEL SAE FEATURE FEATURE FEATURE VALUE "What is a transistor?"
//   three_features examples/data/demo examples/data/demo/sae.safetensors 137 320 340 1.5 "What is a transistor?"
#include <CLI/CLI.hpp>
#include <steer/core/error.hpp>
#include <steer/generate/generate.hpp>
#include <steer/sae/sae.hpp>
#include <steer/steering/steering.hpp>

int main(int argc, char** argv) {
  CLI::App app("Turns three SAE features up, and shows the answer before and after and what each edit did");
  std::string model_path, sae_path, text;
  std::array<std::int64_t, 3> features{};
  double value = 0;
  app.add_option("MODEL", model_path, "a Hugging Face folder or a GGUF file")->required();
  app.add_option("SAE", sae_path, "a file or folder of any layout in docs/sae-formats.md")->required();
  app.add_option("FEATURE", features, "three features")->required();
  app.add_option("VALUE", value, "what each is nudged by; after -- if negative")->required();
  app.add_option("TEXT", text, "the user's message")->required();
  CLI11_PARSE(app, argc, argv);
  try {
    const auto model = steer::Model::load(model_path);
    for (const auto& warning : model.warnings()) fmt::print(stderr, "note: {}\n", warning);
    const auto sae = steer::Sae::load(sae_path);
    steer::Steering funny;
    for (const auto feature : features) funny.nudge(sae, feature, value);

    const std::vector<steer::Message> chat{{steer::Role::user, text}};
    const auto before = steer::generate(model, chat, {.max_tokens = 40});
    const auto after = steer::generate(model, chat, {.max_tokens = 40, .steering = funny, .require_fired = true});
    for (const std::string& warning : after.warnings) fmt::print(stderr, "mind: {}\n", warning);
    fmt::print("before: {}\n\nafter: {}\n\n{}", before.text, after.text, after.audit.describe());
  } catch (const steer::Error& error) {
    return fmt::print(stderr, "{}\n", error.what()), 1;
  }
}
