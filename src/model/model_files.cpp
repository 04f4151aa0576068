#include "model/model_files.hpp"

#include <ATen/Context.h>

#include <nlohmann/json.hpp>
#include <set>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"
#include "io/shards.hpp"
#include "io/strict_json.hpp"
#include "io/text_file.hpp"
#include "model/lora.hpp"

namespace steer::model::detail {
namespace {

constexpr auto kModelFiles = "Model::load";
namespace fs = std::filesystem;

void check_device(const at::Device& device) {
  require(device.is_cpu() || device.is_cuda(), ErrorCode::unsupported, kModelFiles,
          "expected the CPU or a CUDA device but got {}", device.str());
  if (device.is_cpu()) return;
  require(at::hasCUDA(), ErrorCode::unsupported, kModelFiles,
          "expected a CUDA device for \"{}\" but this libtorch or machine has none; use the CPU", device.str());
  require(static_cast<std::size_t>(std::max<int>(device.index(), 0)) < at::getNumGPUs(), ErrorCode::argument,
          kModelFiles, "expected a device below cuda:{} but got \"{}\"; choose one that exists", at::getNumGPUs(),
          device.str());
}

/// Chat models end a turn with tokens that only the generation configuration lists.
void add_end_of_turn(const fs::path& folder, ModelConfig& config) {
  if (!fs::exists(folder / "generation_config.json")) return;
  const auto generation = io::detail::read_json(folder / "generation_config.json", kModelFiles);
  const auto eos = generation.is_object() ? generation.value("eos_token_id", nlohmann::json()) : nlohmann::json();
  for (const auto& id : eos.is_array() ? eos : nlohmann::json::array({eos}))
    if (id.is_number_integer() &&
        std::find(config.eos_ids.begin(), config.eos_ids.end(), id.get<std::int64_t>()) == config.eos_ids.end())
      config.eos_ids.push_back(id.get<std::int64_t>());
}

ModelConfig read_config(const fs::path& path, std::span<const std::string> allow_unknown) {
  const auto json = io::detail::read_json(path, kModelFiles);
  try {
    return ModelConfig::from_hugging_face(json, allow_unknown);
  } catch (const Error& error) {  // which knows of no file
    throw Error(error.code(), format_text("{} ({})", error.what(), path.string()));
  }
}

ModelFiles open_hugging_face(const fs::path& folder, std::shared_ptr<const TensorReader> tensors,
                             const LoadOptions& options) {
  ModelFiles files;
  files.config = read_config(folder / "config.json", options.allow_unknown_config);
  add_end_of_turn(folder, files.config);
  files.tensors = tensors ? std::move(tensors) : open_tensors(folder);
  if (!options.adapter.empty()) files.tensors = merge_adapter(std::move(files.tensors), options.adapter, kModelFiles);
  if (fs::exists(folder / "tokenizer.json") || fs::exists(folder / "tokenizer.model"))
    files.tokenizer = Tokenizer::load(folder);
  return files;
}

ModelFiles open_gguf(std::shared_ptr<const TensorReader> tensors, const LoadOptions& options) {
  ModelFiles files;
  files.tensors = std::move(tensors);
  if (!options.adapter.empty()) files.tensors = merge_adapter(std::move(files.tensors), options.adapter, kModelFiles);
  files.config = ModelConfig::from_gguf(*files.tensors);
  const auto& metadata = files.tensors->metadata();
  if (metadata.contains("tokenizer.ggml.model")) files.tokenizer = Tokenizer::from_gguf(*files.tensors);
  return files;
}

/// The GGUF models of a folder: files, and first parts of split ones.
std::set<std::string> gguf_models(const fs::path& folder) {
  std::set<std::string> names;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const auto name = entry.path().filename().string();
    if (entry.path().extension() != ".gguf") continue;
    const auto part = io::detail::parse_shard_name(name);
    names.insert(part ? part->of(1) : name);
  }
  return names;
}

/// What to do about a folder that holds no model.
std::string advice_for(const fs::path& folder) {
  if (fs::exists(folder / "cfg.json")) return "this looks like an SAE, which Sae::load reads";
  if (fs::exists(folder / "params.json"))
    return "this looks like a model's original release: download the one in the Hugging Face layout";
  // One level too high: a folder around the model, or a hub's cache, which keeps it under snapshots/REVISION.
  std::set<std::string> deeper;
  std::error_code ignored;
  for (const auto& around : {folder, folder / "snapshots"})
    for (const auto& entry : fs::directory_iterator(around, ignored))
      if (fs::exists(entry.path() / "config.json", ignored)) deeper.insert(entry.path().string());
  if (!deeper.empty()) return format_text("give the path of a folder in it that has one, such as {}", *deeper.begin());
  return "check the path, or download the model's config.json into it";
}

ModelFiles open_folder(const fs::path& folder, const LoadOptions& options) {
  if (fs::exists(folder / "config.json")) return open_hugging_face(folder, nullptr, options);
  if (is_adapter(folder)) refuse_adapter_alone(folder, kModelFiles);
  const auto models = gguf_models(folder);
  if (models.size() == 1) return open_gguf(open_tensors(folder / *models.begin()), options);
  require(models.empty(), ErrorCode::argument, kModelFiles,
          "expected one model but the folder holds {} GGUF files ({}); give the path of one, such as {}", models.size(),
          folder.string(), models.empty() ? std::string() : *models.begin());
  fail(ErrorCode::io, kModelFiles,
       "expected config.json in the folder, as a Hugging Face model has, or a GGUF file but got neither ({}); {}",
       folder.string(), advice_for(folder));
}

ModelFiles open_file(const fs::path& path, const LoadOptions& options) {
  const auto folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (path.filename() == "config.json") return open_folder(folder, options);
  const auto shard = io::detail::parse_shard_name(path.filename().string());
  auto tensors = shard && shard->ending != ".gguf" ? io::detail::open_shards(path) : open_tensors(path);
  if (tensors->format() == "gguf") return open_gguf(std::move(tensors), options);
  require(fs::exists(folder / "config.json"), ErrorCode::io, kModelFiles,
          "expected config.json beside the weights but got {} alone, in {} format; put the model's config.json and "
          "tokenizer into its folder, or give a GGUF file",
          path.string(), tensors->format());
  return open_hugging_face(folder, std::move(tensors), options);
}

}  // namespace

void check_options(const LoadOptions& options) {
  check_device(options.device);
  require(options.context >= 0 && options.max_memory >= 0, ErrorCode::argument, kModelFiles,
          "expected context and max_memory of at least 0 but got {} and {}; 0 means the model's own and no limit",
          options.context, options.max_memory);
}

ModelConfig limited(ModelConfig config, const LoadOptions& options) {
  require(options.context <= config.context, ErrorCode::argument, kModelFiles,
          "expected a context of at most {} but got {}; the model was not made for more", config.context,
          options.context);
  if (options.context > 0) config.context = options.context;
  return config;
}

std::optional<std::string> tokenizer_warning(const ModelConfig& config, const std::optional<Tokenizer>& tokenizer) {
  // Fewer are common: embeddings are padded. Published Gemma 3 files have one more.
  if (!tokenizer || tokenizer->vocab_size() <= config.vocab_size) return {};
  return format_text("the tokenizer knows {} ids but the embedding has {} rows: ids from {} on are refused",
                     tokenizer->vocab_size(), config.vocab_size, config.vocab_size);
}

ModelFiles open_model_files(const fs::path& path, const LoadOptions& options) {
  check_options(options);
  std::error_code ignored;
  require(
      fs::exists(path, ignored), ErrorCode::io, kModelFiles,
      "expected a model's folder or file but {} does not exist; check the path (what has only a name on a hub is to "
      "be downloaded first)",
      path.string());
  ModelFiles files = fs::is_directory(path, ignored) ? open_folder(path, options) : open_file(path, options);
  files.config = limited(std::move(files.config), options);
  if (auto warning = tokenizer_warning(files.config, files.tokenizer))
    files.config.warnings.push_back(std::move(*warning));
  return files;
}

}  // namespace steer::model::detail
