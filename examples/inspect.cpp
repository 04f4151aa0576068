// steer inspect: can this be loaded, as what, and what is in it; on one screen. Reads headers only, whatever the size.
//
//   $ inspect model-q4_k_m.gguf
//   model-q4_k_m.gguf: gguf, 236 tensors, 268.1 M values, 235.2 MiB
//   loads as a model (Model::load): gemma3, 18 layers of width 640, 262144 tokens, 235.2 MiB, with its tokenizer
//   loads as a tokenizer (Tokenizer::load): 262144 tokens
//
//   metadata
//     general.architecture                       "gemma3"
//   ...
//   tensors
//     token_embd.weight                               Q8_0     [262144, 640]             170 MiB
//     blk.*.attn_q.weight                         18x Q5_0     [1024, 640]               7.7 MiB
//   ...
#include <steer/core/error.hpp>
#include <steer/eval/questions.hpp>
#include <steer/eval/results.hpp>
#include <steer/io/tensor_reader.hpp>
#include <steer/model/check.hpp>
#include <steer/sae/cross_layer.hpp>
#include <steer/sae/labels.hpp>
#include <steer/sae/sae.hpp>
#include <steer/sae/temporal.hpp>
#include <steer/steering/steering.hpp>
#include <steer/text/tokenizer.hpp>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

namespace {

namespace fs = std::filesystem;

std::string size_text(double bytes) {
  const char* unit = "bytes";
  for (const char* larger : {"KiB", "MiB", "GiB", "TiB"}) {
    if (bytes < 1024) break;
    bytes /= 1024;
    unit = larger;
  }
  return fmt::format("{:.{}f} {}", bytes, bytes == std::floor(bytes) ? 0 : 1, unit);
}

// One line for any value: long ones are cut, and so is what a terminal would act on.
std::string short_text(const nlohmann::json& value, std::size_t width) {
  const auto replace = nlohmann::json::error_handler_t::replace;
  if (value.is_array() && value.size() > 8)
    return fmt::format("[{} values] {}, {}, ...", value.size(), short_text(value[0], 20), short_text(value[1], 20));
  auto text = value.dump(-1, ' ', true, replace);
  if (text.size() > width) text = text.substr(0, width - 3) + "...";
  return text;
}

std::string shape_text(const std::vector<std::int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// "layers.17.w" and "layers.3.w" are one kind of tensor: "layers.*.w".
std::string pattern_of(const std::string& name) {
  std::string pattern;
  for (std::size_t i = 0; i < name.size(); ++i) {
    const bool digit = name[i] >= '0' && name[i] <= '9';
    const bool starts_part = i == 0 || name[i - 1] == '.' || name[i - 1] == '_';
    if (!digit || !(starts_part || (!pattern.empty() && pattern.back() == '*'))) {
      pattern += name[i];
      continue;
    }
    if (pattern.empty() || pattern.back() != '*') pattern += '*';
  }
  return pattern;
}

void print_json(const nlohmann::json& object, std::string_view title, std::size_t most, std::size_t width) {
  if (object.empty()) return;
  fmt::print("\n{}\n", title);
  std::size_t lines = 0;
  for (const auto& [key, value] : object.items()) {
    if (lines++ == most) {
      fmt::print("  ... {} more (--all)\n", object.size() - most);
      break;
    }
    fmt::print("  {:<42} {}\n", key, short_text(value, width));
  }
}

void print_tensors(const std::vector<steer::TensorInfo>& tensors, bool all, std::size_t most) {
  struct Kind {
    std::string name;
    const steer::TensorInfo* first;
    std::int64_t count = 0, bytes = 0;
  };
  std::vector<Kind> kinds;
  std::map<std::string, std::size_t> places;  // by pattern, shape and storage
  for (const auto& info : tensors) {
    const auto pattern = all ? info.name : pattern_of(info.name);
    const auto [it, is_new] = places.try_emplace(pattern + shape_text(info.shape) + info.storage, kinds.size());
    if (is_new) kinds.push_back({pattern, &info});
    auto& kind = kinds[it->second];
    ++kind.count;
    kind.bytes += info.bytes;
  }
  const auto name_of = [](const Kind& kind) { return kind.count > 1 ? kind.name : kind.first->name; };
  std::size_t width = 24, lines = 0;
  for (std::size_t i = 0; i < kinds.size() && (all || i < most); ++i)
    width = std::min<std::size_t>(std::max(width, name_of(kinds[i]).size()), 64);
  fmt::print("\ntensors\n");
  for (const auto& kind : kinds) {
    if (!all && lines++ == most) {
      fmt::print("  ... {} more kinds (--all)\n", kinds.size() - most);
      break;
    }
    fmt::print("  {:<{}} {:>4} {:<8} {:<20} {:>12}\n", name_of(kind), width,
               kind.count > 1 ? fmt::format("{}x", kind.count) : "", kind.first->storage, shape_text(kind.first->shape),
               size_text(static_cast<double>(kind.bytes)));
  }
}

// What a path may be loaded as: the way to do so, whether it looks like that, and what loading says of it.
struct Candidate {
  std::string_view what, loader;
  bool likely;
  std::function<std::string()> load;
};

std::string describe_model(const fs::path& path, const fs::path& adapter) {
  const auto model = steer::check_model(path, {.adapter = adapter});
  const auto& c = model.config;
  auto text = fmt::format("{}, {} layers of width {}, {} tokens, {}, {}", c.family, c.n_layers, c.d_model, c.vocab_size,
                          size_text(static_cast<double>(model.weight_bytes)),
                          model.has_tokenizer ? "with its tokenizer" : "without a tokenizer: works with ids only");
  for (const auto& warning : model.warnings) text += "\n  mind: " + warning;
  return text;
}

std::string describe_sae(const fs::path& path) {
  const auto sae = steer::Sae::load(path);
  const auto& c = sae.config();
  return fmt::format("{} layout, {}, {} features, width {}{}, trained at {}", c.format, steer::to_string(c.activation),
                     c.d_sae, c.d_in, c.transcoder ? fmt::format(" to {}, a transcoder", c.d_out) : "",
                     c.hook_name.empty() ? "a point its files do not name" : c.hook_name);
}

std::string describe_questions(const std::vector<steer::Question>& questions) {
  const auto open = std::count_if(questions.begin(), questions.end(), [](const auto& q) { return q.choices.empty(); });
  return fmt::format("{} questions{}", questions.size(), open > 0 ? fmt::format(", {} of them open", open) : "");
}

std::string describe_export(const fs::path& path) {
  const auto store = fs::temp_directory_path() / fmt::format("inspect-{}.labels", ::getpid());
  const auto size = [&] { return steer::FeatureLabels::import_neuronpedia(path, store).size(); };
  try {
    const auto features = size();
    fs::remove(store);
    return fmt::format("labels of {} features", features);
  } catch (const steer::Error&) {
    fs::remove(store);
    throw;
  }
}

// What texts hold: these are read whole, so only where the name says so.
void add_texts(const fs::path& path, std::vector<Candidate>& list) {
  const auto ending = path.extension();
  const bool folder = fs::is_directory(path), lines = ending == ".jsonl", csv = ending == ".csv";
  if (folder && (fs::is_directory(path / "test") || fs::is_directory(path / "dev")))
    list.push_back({"MMLU", "load_mmlu", true, [=] { return describe_questions(steer::load_mmlu(path)); }});
  if (lines || ending == ".json")
    list.push_back(
        {"questions", "load_questions", lines, [=] { return describe_questions(steer::load_questions(path)); }});
  if (lines || csv)
    list.push_back({"results", csv ? "load_results_csv" : "load_results", true, [=] {
                      const auto rows = csv ? steer::load_results_csv(path) : steer::load_results(path);
                      const bool named =
                          std::all_of(rows.begin(), rows.end(), [](const auto& row) { return !row.arm.empty(); });
                      steer::require(named, steer::ErrorCode::format, "load_results", "expected rows with an arm");
                      return fmt::format("{} rows", rows.size());
                    }});
  if (lines || ending == ".json" || ending == ".gz" ||
      (folder && (fs::is_directory(path / "explanations") || fs::is_directory(path / "features"))))
    list.push_back({"a Neuronpedia export", "FeatureLabels::import_neuronpedia", folder || ending == ".gz",
                    [=] { return describe_export(path); }});
}

std::vector<Candidate> candidates(const fs::path& path, const fs::path& adapter) {
  const auto folder = fs::is_directory(path) ? path : path.parent_path();
  const auto has = [&](const char* name) { return fs::exists(folder / name); };
  const auto ending = path.extension();
  const bool is_sae = has("cfg.json") || has("hyperparams.json") || has("ae.pt") || has("params.npz");
  return {
      {"a cross-layer transcoder", "CrossLayerTranscoder::load", fs::is_directory(path) && has("W_enc_0.safetensors"),
       [=] {
         const auto clt = steer::CrossLayerTranscoder::load(path);
         return fmt::format("{} layers, {} features each, width {}", clt.n_layers(), clt.layer(0).d_sae(), clt.d_in());
       }},
      {"a temporal SAE", "TemporalSae::load",
       fs::is_directory(path) && has("conf.yaml") && has("latest_ckpt.safetensors"),
       [=] {
         const auto sae = steer::TemporalSae::load(path);
         return fmt::format("{} features, width {}", sae.d_sae(), sae.d_in());
       }},
      {"an SAE", "Sae::load", is_sae, [=] { return describe_sae(path); }},
      {"a model", "Model::load", ending == ".gguf" || has("config.json") || has("adapter_config.json"),
       [=] { return describe_model(path, adapter); }},
      {"a tokenizer", "Tokenizer::load", path.filename() == "tokenizer.json" || ending == ".model",
       [=] { return fmt::format("{} tokens", steer::Tokenizer::load(path).vocab_size()); }},
      {"a steering", "Steering::load", ending == ".json" && path.filename() != "config.json",
       [=] { return fmt::format("{} edits", steer::Steering::load(path).edits().size()); }},
      {"feature labels", "FeatureLabels::open", ending == ".labels",
       [=] { return fmt::format("{} features", steer::FeatureLabels::open(path).size()); }},
  };
}

// Says what the path loads as, the likeliest first; where it is nothing, why, for what it looks most like.
bool print_verdict(const fs::path& path, const fs::path& adapter) {
  auto list = candidates(path, adapter);
  add_texts(path, list);
  std::stable_partition(list.begin(), list.end(), [](const Candidate& candidate) { return candidate.likely; });
  bool loads = false;
  std::string likely, others;
  for (const auto& candidate : list) {
    try {
      const auto text = candidate.load();
      fmt::print("loads as {} ({}): {}\n", candidate.what, candidate.loader, text);
      loads = true;
    } catch (const steer::Error& error) {
      (candidate.likely ? likely : others) += fmt::format("  not as {}: {}\n", candidate.what, error.what());
    }
  }
  if (!loads) fmt::print("does not load:\n{}", likely.empty() ? others : likely);
  return loads;
}

// In a folder without model.safetensors, as SAEs come: its one weight file.
fs::path weights_of(const fs::path& path) {
  if (!fs::is_directory(path) || fs::exists(path / "model.safetensors") ||
      fs::exists(path / "model.safetensors.index.json"))
    return path;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(path))
    for (const auto* ending : {".safetensors", ".gguf", ".npz", ".npy", ".pt", ".pth"})
      if (entry.path().extension() == ending) found.push_back(entry.path());
  return found.size() == 1 ? found.front() : path;
}

// The configuration that lies beside Hugging Face and SAE weights.
void print_config(const fs::path& file, std::size_t most, std::size_t width) {
  const auto folder = fs::is_directory(file) ? file : file.parent_path();
  for (const auto* name : {"config.json", "cfg.json", "hyperparams.json"}) {
    std::ifstream stream(folder / name);
    if (!stream) continue;
    // Nothing below a few levels is shown, and printing recurses.
    const auto shallow = [](int depth, nlohmann::json::parse_event_t, const nlohmann::json&) { return depth < 8; };
    const auto config = nlohmann::json::parse(stream, shallow, false);
    if (config.is_object()) print_json(config, name, most, width);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Says whether a file or folder can be loaded, as what, and what is missing; then what it holds: format, "
      "metadata, "
      "and the names, types and shapes of its tensors. Reads headers only and never runs code from a file."};
  fs::path file, adapter;
  bool all = false, as_json = false;
  app.add_option(
         "FILE", file,
         "A model, an SAE, an adapter, a tokenizer, a steering, labels, questions, results, or any file of tensors; a "
         "file or a folder")
      ->required();
  app.add_option("--adapter", adapter, "FILE is a model: with this LoRA adapter (a folder) merged into it");
  app.add_flag("-a,--all", all, "Every tensor and key on its own line, instead of one screen");
  app.add_flag("--json", as_json, "Everything as JSON");
  CLI11_PARSE(app, argc, argv);

  if (!fs::exists(file)) {
    fmt::print(stderr, "expected a file or folder but {} does not exist; check the path\n", file.string());
    return 1;
  }
  bool loads = false;
  try {
    std::shared_ptr<const steer::TensorReader> reader;
    try {
      reader = steer::open_tensors(weights_of(file));
    } catch (const steer::Error&) {
      if (as_json) throw;
      fmt::print("{}: no file of tensors\n", file.string());
      return print_verdict(file, adapter) ? 0 : 1;
    }
    const auto& tensors = reader->tensors();
    if (as_json) {
      auto list = nlohmann::json::array();
      for (const auto& info : tensors)
        list.push_back({{"name", info.name}, {"shape", info.shape}, {"storage", info.storage}, {"bytes", info.bytes}});
      const nlohmann::json out = {{"path", reader->path().string()},
                                  {"format", reader->format()},
                                  {"metadata", reader->metadata()},
                                  {"tensors", list}};
      fmt::print("{}\n", out.dump(1, ' ', true, nlohmann::json::error_handler_t::replace));
      return 0;
    }
    double values = 0, bytes = 0;
    for (const auto& info : tensors) {
      double count = 1;
      for (const auto size : info.shape) count *= static_cast<double>(size);
      values += count;
      bytes += static_cast<double>(info.bytes);
    }
    const auto count = values < 1e6 ? fmt::format("{:.0f}", values) : fmt::format("{:.4g} M", values / 1e6);
    fmt::print("{}: {}, {} tensors, {} values, {}\n", file.string(), reader->format(), tensors.size(), count,
               size_text(bytes));
    loads = print_verdict(file, adapter);
    const std::size_t lines = all ? SIZE_MAX : 18, width = all ? 2000 : 60;
    print_json(reader->metadata(), "metadata", lines, width);
    print_config(file, lines, width);
    print_tensors(tensors, all, 24);
  } catch (const steer::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return loads ? 0 : 2;
}
