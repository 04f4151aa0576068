// steer inspect: what a weight file holds, on one screen. Reads headers only, whatever the file's size.
//
//   $ inspect model-q4_k_m.gguf
//   model-q4_k_m.gguf: gguf, 236 tensors, 268.1 M values, 235.2 MiB
//
//   metadata
//     general.architecture                       "gemma3"
//   ...
//   tensors
//     token_embd.weight                               Q8_0     [262144, 640]             170 MiB
//     blk.*.attn_q.weight                         18x Q5_0     [1024, 640]               7.7 MiB
//   ...
#include <steer/core/error.hpp>
#include <steer/io/tensor_reader.hpp>

#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

namespace {

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

// In a folder without model.safetensors, as SAEs come: its one weight file.
std::filesystem::path weights_of(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path) || std::filesystem::exists(path / "model.safetensors") ||
      std::filesystem::exists(path / "model.safetensors.index.json"))
    return path;
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(path))
    for (const auto* ending : {".safetensors", ".gguf", ".npz", ".npy", ".pt", ".pth"})
      if (entry.path().extension() == ending) found.push_back(entry.path());
  return found.size() == 1 ? found.front() : path;
}

// The configuration that lies beside Hugging Face and SAE weights.
void print_config(const std::filesystem::path& file, std::size_t most, std::size_t width) {
  const auto folder = std::filesystem::is_directory(file) ? file : file.parent_path();
  for (const auto* name : {"config.json", "cfg.json", "hyperparams.json"}) {
    std::ifstream stream(folder / name);
    if (!stream) continue;
    const auto config = nlohmann::json::parse(stream, nullptr, false);
    if (config.is_object()) print_json(config, name, most, width);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Shows what a weight file holds: its format, metadata, and the names, types and shapes of its tensors. Reads "
      "safetensors (single, sharded, or the folder), GGUF, npz, npy and PyTorch files; never runs code from them."};
  std::filesystem::path file;
  bool all = false, as_json = false;
  app.add_option("FILE", file,
                 "The file, a *.safetensors.index.json, or a folder with model.safetensors or one weight file")
      ->required();
  app.add_flag("-a,--all", all, "Every tensor and key on its own line, instead of one screen");
  app.add_flag("--json", as_json, "Everything as JSON");
  CLI11_PARSE(app, argc, argv);

  try {
    const auto reader = steer::open_tensors(weights_of(file));
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
    const std::size_t lines = all ? SIZE_MAX : 18, width = all ? 2000 : 60;
    print_json(reader->metadata(), "metadata", lines, width);
    print_config(file, lines, width);
    print_tensors(tensors, all, 24);
  } catch (const steer::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
