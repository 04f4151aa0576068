// Which SAE features a conversation activates, and where, as a page to open in a browser.
//
//   inspect_features --say "In the land of Pelia, what is the feast?" --out features.html

#include <CLI/CLI.hpp>
#include <fstream>
#include <nlohmann/json.hpp>
#include <steer/core/error.hpp>
#include <steer/features/inspect.hpp>

int main(int argc, char** argv) {
  CLI::App app("Which SAE features a conversation activates, and where");
  std::string model_path = "examples/data/demo", sae_path = "examples/data/demo/sae.safetensors", labels,
              say = "In the land of Pelia, what is the feast?", answer, out = "features.html";
  app.add_option("--model", model_path, "a Hugging Face folder or a GGUF file")->capture_default_str();
  app.add_option("--sae", sae_path, "a file or folder of any layout in docs/sae-formats.md")->capture_default_str();
  app.add_option("--labels", labels, "rows of a Neuronpedia export, JSON lines");
  app.add_option("--say", say, "the user's message")->capture_default_str();
  app.add_option("--answer", answer, "the assistant's message");
  app.add_option("--out", out, "a name ending in .json gives the numbers instead")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    steer::Session session(steer::Model::load(model_path));
    const auto sae = steer::Sae::load(sae_path);
    std::map<std::int64_t, std::string> names;
    std::ifstream rows(labels.empty() && model_path == "examples/data/demo" ? model_path + "/labels.jsonl" : labels);
    for (std::string row; std::getline(rows, row);)
      if (const auto json = nlohmann::json::parse(row); json.contains("description"))
        names.emplace(std::stoll(json.at("index").get<std::string>()), json.at("description"));
    std::vector<steer::Message> chat{{steer::Role::user, say}};
    if (!answer.empty()) chat.push_back({steer::Role::assistant, answer});
    const auto seen = inspect(session, sae, chat, {.label = [&](std::int64_t feature) { return names[feature]; }});
    seen.write(out);
    for (const auto& feature : seen.features)
      fmt::print("{:>7}  max {:8.3f}  on {:3.0f} %  {}\n", feature.feature, feature.max, 100 * feature.active,
                 feature.label);
    fmt::print("{}\n", out);
  } catch (const std::exception& error) {
    return fmt::print(stderr, "{}\n", error.what()), 1;
  }
}
