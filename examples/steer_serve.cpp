// A model over HTTP: OpenAI's API, with a steering in each request that wants one (docs/serving.md).
//
//   steer_serve --model PATH [--sae [NAME=]PATH]... [--labels PATH]... [--steering NAME=FILE]... [--vectors
//   NAME=FILE]...
//
// Without --model it serves the demo.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <steer/core/error.hpp>
#include <steer/core/signals.hpp>
#include <steer/serve/server.hpp>
#include <thread>

#include <unistd.h>

namespace {

namespace fs = std::filesystem;

/// "NAME=PATH", or a path alone that is its own name.
std::pair<std::string, fs::path> named(const std::string& text) {
  const auto equals = text.find('=');
  if (equals == std::string::npos) return {fs::path(text).stem().string(), text};
  return {text.substr(0, equals), text.substr(equals + 1)};
}

/// A label store, or an export that is made one first, in a temporary folder.
steer::FeatureLabels read_labels(const fs::path& path) {
  if (!fs::is_directory(path) && path.extension() != ".jsonl" && path.extension() != ".gz")
    return steer::FeatureLabels::open(path);
  const fs::path store = fs::temp_directory_path() / fmt::format("steer_serve_{}.labels", ::getpid());
  auto labels = steer::FeatureLabels::import_neuronpedia(path, store);
  fs::remove(store);  // it stays mapped
  return labels;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Serves a language model over HTTP, each request steered in its own way"};
  std::string model_path, compute = "f32";
  std::vector<std::string> saes, labels, steerings, vectors, names;
  steer::ServerOptions options{.log = [](std::string_view line) { fmt::print(stderr, "{}\n", line); }};
  double grace = 30;
  app.add_option("--model", model_path, "folder or GGUF file (default: the demo)");
  app.add_option("--compute", compute, "what activations are rounded to: f32 (not), bf16 or int8")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "bf16", "int8"}));
  app.add_option("--sae", saes, "[NAME=]PATH of an SAE that requests may name");
  app.add_option("--labels", labels, "labels of the SAEs, in their order: a store, or a Neuronpedia export");
  app.add_option("--steering", steerings, "NAME=FILE of a steering that requests may name");
  app.add_option("--vectors", vectors, "NAME=FILE of steering vectors that requests may name");
  app.add_option("--name", names, "the model's name in requests; further ones are aliases");
  app.add_flag("--any-name", options.any_name, "answer whatever model a request names");
  app.add_option("--host", options.host, "address to listen on; other than this machine's own only with STEER_API_KEY");
  app.add_option("--port", options.port, "port to listen on; 0: any free one")->capture_default_str();
  app.add_option("--cors", options.cors, "origin whose pages may call, or *");
  app.add_option("--rows", options.engine.max_rows, "rows computed at once")->capture_default_str();
  app.add_option("--cache-bytes", options.engine.max_cache_bytes, "of keys and values; 0: no limit");
  app.add_option("--max-waiting", options.max_waiting, "rows under way and waiting")->capture_default_str();
  app.add_option("--max-tokens", options.max_tokens, "new tokens of a row; 0: what the context holds");
  app.add_option("--max-body", options.max_body_bytes, "bytes of a request")->capture_default_str();
  app.add_option("--max-seconds", options.max_seconds, "for one answer")->capture_default_str();
  app.add_option("--grace", grace, "seconds that answers under way have when the server is stopped")
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  try {
    if (model_path.empty()) {
      model_path = "examples/data/demo";
      if (saes.empty())
        saes = {"demo=examples/data/demo/sae.safetensors"}, labels = {"examples/data/demo/labels.jsonl"};
      if (names.empty()) names = {"demo"};
    }
    const auto model =
        steer::Model::load(model_path, {.compute = steer::parse_enum<steer::ComputeFormat>(compute, "steer_serve")});
    for (const auto& warning : model.warnings()) fmt::print(stderr, "warning: {}\n", warning);
    std::vector<steer::Sae> loaded;
    for (std::size_t i = 0; i < saes.size(); ++i) {
      const auto [name, path] = named(saes[i]);
      options.saes.push_back({.name = name, .sae = steer::Sae::load(path)});
      if (i < labels.size()) options.saes.back().labels = read_labels(labels[i]);
      loaded.push_back(options.saes.back().sae);
    }
    for (const auto& text : steerings) {
      const auto [name, path] = named(text);
      options.steerings.emplace(name, steer::Steering::load(path, {.saes = loaded}));
    }
    for (const auto& text : vectors) {
      const auto [name, path] = named(text);
      options.vectors.emplace(name, steer::load_vectors(path));
    }
    if (names.empty()) names = {fs::path(model_path).stem().string()};
    options.names = names;
    if (const char* key = std::getenv("STEER_API_KEY")) options.key = key;

    const steer::StopSignals signals;
    const std::string host = options.host;
    steer::Server server(model, std::move(options));
    fmt::print("serving {} at http://{}:{}\n", names.front(), host, server.port());
    std::fflush(stdout);
    while (signals.received() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    const auto cut = server.stop(grace);
    if (cut > 0) fmt::print(stderr, "{} answers were cut off\n", cut);
    return 0;
  } catch (const steer::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
