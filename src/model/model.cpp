#include <steer/model/model.hpp>

#include <ATen/Context.h>
#include <ATen/Functions.h>

#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>
#include <steer/io/tensor_reader.hpp>

#include "io/strict_json.hpp"
#include "io/text_file.hpp"
#include "model/assemble.hpp"
#include "model/transformer.hpp"

namespace steer {
namespace {

namespace fs = std::filesystem;
constexpr auto kWhere = "Model::load";

void check_device(const std::string& name) {
  bool cuda = name.starts_with("cuda:") && name.size() > 5 && name.size() < 9;
  for (std::size_t i = 5; cuda && i < name.size(); ++i) cuda = name[i] >= '0' && name[i] <= '9';
  require(name == "cpu" || cuda, ErrorCode::argument, kWhere,
          "expected the device cpu or cuda:N but got \"{}\"; correct it", name);
  if (!cuda) return;
  require(at::hasCUDA(), ErrorCode::unsupported, kWhere,
          "expected a CUDA device for \"{}\" but this libtorch or machine has none; use device \"cpu\"", name);
  const int index = std::stoi(name.substr(5)), count = static_cast<int>(at::getNumGPUs());
  require(index < count, ErrorCode::argument, kWhere,
          "expected a device below cuda:{} but got \"{}\"; choose one that exists", count, name);
}

void check_options(const LoadOptions& options) {
  check_device(options.device);
  require(options.context >= 0 && options.max_memory >= 0, ErrorCode::argument, kWhere,
          "expected context and max_memory of at least 0 but got {} and {}; 0 means the model's own and no limit",
          options.context, options.max_memory);
}

/// The configuration with the caller's shorter context.
ModelConfig limited(ModelConfig config, const LoadOptions& options) {
  require(options.context <= config.context, ErrorCode::argument, kWhere,
          "expected a context of at most {} but got {}; the model was not made for more", config.context,
          options.context);
  return config;
}

void finish(model::detail::Transformer& model, const LoadOptions& options) {
  if (options.context > 0) model.config.context = options.context;
  // A tokenizer may know fewer ids than the padded embedding has rows, never more.
  if (model.tokenizer)
    require(model.tokenizer->vocab_size() <= model.config.vocab_size, ErrorCode::config, kWhere,
            "expected a tokenizer of at most {} tokens but got {}; tokenizer and weights do not belong together",
            model.config.vocab_size, model.tokenizer->vocab_size());
}

/// The template's source: a string, or a list of named ones of which "default" is meant.
std::optional<std::string> chat_template_source(const fs::path& folder) {
  if (fs::exists(folder / "chat_template.jinja"))
    return io::detail::read_text_file(folder / "chat_template.jinja", kWhere);
  if (!fs::exists(folder / "tokenizer_config.json")) return {};
  const auto config = io::detail::read_json(folder / "tokenizer_config.json", kWhere);
  const auto found = config.find("chat_template");
  if (found == config.end()) return {};
  if (found->is_string()) return found->get<std::string>();
  if (found->is_array())
    for (const auto& entry : *found)
      if (entry.is_object() && entry.value("name", "") == "default" && entry.contains("template") &&
          entry["template"].is_string())
        return entry["template"].get<std::string>();
  return {};
}

void set_chat(model::detail::Transformer& model, const std::optional<std::string>& source) {
  if (!model.tokenizer) return;
  try {
    model.chat.emplace(source ? ChatTemplate::recognise(*source) : ChatFormat::plain, *model.tokenizer);
  } catch (const Error& error) {
    model.chat_problem = error.what();  // the model itself is fine: only chat() refuses
  }
}

std::shared_ptr<model::detail::Transformer> load_folder(const fs::path& folder, const LoadOptions& options) {
  require(fs::exists(folder / "config.json"), ErrorCode::io, kWhere,
          "expected config.json in {} but got none; give the folder of a Hugging Face model or a GGUF file",
          folder.string());
  auto config = ModelConfig::from_hugging_face(io::detail::read_json(folder / "config.json", kWhere));
  // Chat models end a turn with tokens that only the generation configuration lists.
  if (fs::exists(folder / "generation_config.json")) {
    const auto generation = io::detail::read_json(folder / "generation_config.json", kWhere);
    const auto eos = generation.is_object() ? generation.value("eos_token_id", nlohmann::json()) : nlohmann::json();
    for (const auto& id : eos.is_array() ? eos : nlohmann::json::array({eos}))
      if (id.is_number_integer() &&
          std::find(config.eos_ids.begin(), config.eos_ids.end(), id.get<std::int64_t>()) == config.eos_ids.end())
        config.eos_ids.push_back(id.get<std::int64_t>());
  }
  const auto tensors = open_tensors(folder);
  auto model = model::detail::build(limited(config, options), *tensors, options, model::detail::assemble_hugging_face,
                                    model::detail::ignored_hugging_face);
  if (fs::exists(folder / "tokenizer.json") || fs::exists(folder / "tokenizer.model"))
    model->tokenizer = Tokenizer::load(folder);
  set_chat(*model, chat_template_source(folder));
  return model;
}

std::shared_ptr<model::detail::Transformer> load_gguf(const fs::path& path, const LoadOptions& options) {
  const auto file = open_tensors(path);
  require(file->format() == "gguf", ErrorCode::unsupported, kWhere,
          "expected a GGUF file or a Hugging Face folder but got a {} file ({}); name the folder that holds it",
          file->format(), path.string());
  auto model = model::detail::build(limited(ModelConfig::from_gguf(*file), options), *file, options,
                                    model::detail::assemble_gguf, model::detail::ignored_gguf);
  const auto& metadata = file->metadata();
  if (metadata.contains("tokenizer.ggml.model")) model->tokenizer = Tokenizer::from_gguf(*file);
  const auto chat = metadata.find("tokenizer.chat_template");
  set_chat(*model,
           chat != metadata.end() && chat->is_string() ? std::optional(chat->get<std::string>()) : std::nullopt);
  return model;
}

}  // namespace

Model Model::load(const fs::path& path, const LoadOptions& options) {
  check_options(options);
  std::error_code ignored;
  require(fs::exists(path, ignored), ErrorCode::io, kWhere,
          "expected a folder or a file but {} does not exist; check the path", path.string());
  auto model = fs::is_directory(path, ignored) ? load_folder(path, options) : load_gguf(path, options);
  finish(*model, options);
  return Model(std::move(model));
}

Model Model::from_tensors(const ModelConfig& config, const TensorReader& tensors, const LoadOptions& options,
                          std::optional<Tokenizer> tokenizer) {
  check_options(options);
  auto model = model::detail::build(limited(config, options), tensors, options, model::detail::assemble_hugging_face,
                                    model::detail::ignored_hugging_face);
  model->tokenizer = std::move(tokenizer);
  set_chat(*model, std::nullopt);
  finish(*model, options);
  return Model(std::move(model));
}

const ModelConfig& Model::config() const { return impl_->config; }
bool Model::has_tokenizer() const { return impl_->tokenizer.has_value(); }

const Tokenizer& Model::tokenizer() const {
  require(has_tokenizer(), ErrorCode::config, "Model::tokenizer",
          "expected a model with a tokenizer but its files hold none; put tokenizer.json beside the weights");
  return *impl_->tokenizer;
}

const ChatTemplate& Model::chat() const {
  require(has_tokenizer(), ErrorCode::config, "Model::chat",
          "expected a model with a tokenizer but its files hold none; put tokenizer.json beside the weights");
  require(
      impl_->chat.has_value(), ErrorCode::unsupported, "Model::chat",
      "expected a chat template that steer knows but got another one: {}; make a ChatTemplate of the format you want",
      impl_->chat_problem);
  return *impl_->chat;
}

at::Device Model::device() const { return impl_->device; }
std::int64_t Model::weight_bytes() const { return impl_->weight_bytes; }
const std::string& Model::hash() const { return impl_->hash; }
at::Tensor Model::unembedding() const { return impl_->unembed.to_f32(); }
at::Tensor Model::final_norm_gain() const { return impl_->final_norm.gain; }

}  // namespace steer
