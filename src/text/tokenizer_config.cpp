#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>

#include "io/strict_json.hpp"
#include "io/text_file.hpp"
#include "text/tokenizer_impl.hpp"

namespace steer::text::detail {
namespace {

using nlohmann::json;

// A token is written as its text, or as an object that holds it.
std::optional<std::int64_t> token_of(const json& config, const char* key, const Vocabulary& vocabulary) {
  if (!config.contains(key)) return std::nullopt;
  const json& value = config[key];
  const json& text = value.is_object() && value.contains("content") ? value["content"] : value;
  if (!text.is_string()) return std::nullopt;
  const std::int32_t id = vocabulary.find(text.get_ref<const std::string&>());
  if (id == Vocabulary::none) return std::nullopt;
  return id;
}

// A template is a string, or one of several by name.
std::optional<std::string> template_of(const json& config) {
  if (!config.contains("chat_template")) return std::nullopt;
  const json& value = config["chat_template"];
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return std::nullopt;
  for (const json& item : value)
    if (item.is_object() && item.value("name", json()) == "default" && item.contains("template") &&
        item["template"].is_string())
      return item["template"].get<std::string>();
  return std::nullopt;
}

}  // namespace

void read_tokenizer_config(const std::filesystem::path& folder, Tokenizer::Impl& out) {
  std::error_code ignored;
  if (const auto path = folder / "tokenizer_config.json"; std::filesystem::is_regular_file(path, ignored)) {
    const json config = io::detail::read_json(path, "Tokenizer::load");
    require(config.is_object(), ErrorCode::format, "Tokenizer::load",
            "expected a JSON object but got something else ({})", path.string());
    if (const auto id = token_of(config, "bos_token", out.vocabulary)) out.bos = id;
    if (const auto id = token_of(config, "eos_token", out.vocabulary)) out.eos = id;
    out.chat_template = template_of(config);
  }
  if (const auto path = folder / "chat_template.jinja"; std::filesystem::is_regular_file(path, ignored))
    out.chat_template = io::detail::read_text_file(path, "Tokenizer::load");
}

}  // namespace steer::text::detail
