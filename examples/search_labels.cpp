// Which SAE features have given words in their label, and which features lie nearest to the first of them.
//
//   search_labels "funny writing"

#include <CLI/CLI.hpp>
#include <steer/core/error.hpp>
#include <steer/features/neighbours.hpp>
#include <steer/features/search.hpp>

int main(int argc, char** argv) {
  CLI::App app("Which SAE features have these words in their label, the best first");
  std::string query = "funny writing", labels_path = "examples/data/demo/labels.jsonl",
              sae_path = "examples/data/demo/sae.safetensors",
              store = (std::filesystem::temp_directory_path() / "steer-labels").string();
  std::int64_t limit = 10;
  app.add_option("query", query, "words, beginnings of words, or a feature's number")->capture_default_str();
  app.add_option("--labels", labels_path, "a Neuronpedia export: its folder, or one file of JSON lines")
      ->capture_default_str();
  app.add_option("--sae", sae_path, "the SAE they belong to")->capture_default_str();
  app.add_option("--store", store, "the labels' compact form is written here")->capture_default_str();
  app.add_option("--limit", limit, "features shown")->capture_default_str()->check(CLI::Range(1, 1'000'000));
  CLI11_PARSE(app, argc, argv);
  try {
    const auto sae = steer::Sae::load(sae_path);
    const auto labels = steer::FeatureLabels::import_neuronpedia(labels_path, store);
    labels.require_of(sae);
    const auto hits = steer::search_labels(labels, query, limit);
    for (const auto& hit : hits) fmt::print("{:>7}  {:5.2f}  {}\n", hit.feature, hit.score, hit.label);
    if (hits.empty()) return fmt::print("no label has \"{}\"\n", query), 0;
    fmt::print("\nnearest to {} by decoder direction:\n", hits.front().feature);
    for (const auto& near : steer::neighbours_by_decoder(sae, hits.front().feature, 5))
      fmt::print("{:>7}  {:5.2f}  {}\n", near.feature, near.similarity, labels.label(near.feature));
  } catch (const std::exception& error) {
    return fmt::print(stderr, "{}\n", error.what()), 1;
  }
}
