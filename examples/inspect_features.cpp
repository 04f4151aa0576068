// Which SAE features a conversation activates, and where, as a page to open in a browser.
//
//   inspect_features --say "In the land of Pelia, what is the feast?" --out features.html

#include <CLI/CLI.hpp>
#include <steer/core/error.hpp>
#include <steer/features/inspect.hpp>
#include <steer/sae/labels.hpp>

int main(int argc, char** argv) {
  steer::LoadOptions load;
  CLI::App app("Which SAE features a conversation activates, and where");
  const std::string demo_sae = "examples/data/demo/sae.safetensors";
  std::string model_path = "examples/data/demo", sae_path = demo_sae, labels_path,
              say = "In the land of Pelia, what is the feast?", answer, out = "features.html";
  app.add_option("--model", model_path, "a Hugging Face folder or a GGUF file")->capture_default_str();
  app.add_option("--allow-unknown-config", load.allow_unknown_config,
                 "a key of config.json to ignore; may be repeated");
  app.add_option("--sae", sae_path, "a file or folder of any layout in docs/sae-formats.md")->capture_default_str();
  app.add_option("--labels", labels_path,
                 "a Neuronpedia export: its folder, or one file of JSON lines; default: the demo's for the demo's SAE");
  app.add_option("--say", say, "the user's message")->capture_default_str();
  app.add_option("--answer", answer, "the assistant's message");
  app.add_option("--out", out, "a name ending in .json gives the numbers instead")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    const auto model = steer::Model::load(model_path, load);
    for (const auto& warning : model.warnings()) fmt::print(stderr, "note: {}\n", warning);
    steer::Session session(model);
    const auto sae = steer::Sae::load(sae_path);
    if (labels_path.empty() && sae_path == demo_sae) labels_path = "examples/data/demo/labels.jsonl";
    std::optional<steer::FeatureLabels> labels;
    if (!labels_path.empty()) labels = steer::FeatureLabels::import_neuronpedia(labels_path, out + ".labels");
    if (labels) labels->require_of(sae);
    std::vector<steer::Message> chat{{steer::Role::user, say}};
    if (!answer.empty()) chat.push_back({steer::Role::assistant, answer});
    const auto label = [&](std::int64_t feature) { return std::string(labels ? labels->label(feature) : ""); };
    const auto seen = inspect_features(session, sae, chat, {.label = label});
    seen.write(out);
    for (const auto& feature : seen.features)
      fmt::print("{:>7}  max {:8.3f}  on {:3.0f} %  {}\n", feature.feature, feature.max, 100 * feature.active,
                 feature.label);
    fmt::print("{}\n", out);
  } catch (const std::exception& error) {
    return fmt::print(stderr, "{}\n", error.what()), 1;
  }
}
