#include <algorithm>
#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>

#include "io/strict_json.hpp"
#include "io/text_file.hpp"
#include "text/tokenizer_impl.hpp"

namespace steer::text::detail {
namespace {

constexpr std::string_view kTokenizerConfig = "Tokenizer::load";
using nlohmann::json;

constexpr const char* special_keys[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};

json read_object(const std::filesystem::path& path) {
  json out = io::detail::read_json(path, kTokenizerConfig);
  require(out.is_object(), ErrorCode::format, kTokenizerConfig, "expected a JSON object but got something else ({})",
          path.string());
  return out;
}

// A token is written as its text, or as an object that holds it. What an earlier file said stays.
void read_special_names(const json& config, Tokenizer::Impl& out) {
  for (const char* key : special_keys) {
    const auto found = config.find(key);
    if (found == config.end()) continue;
    const json& text = found->is_object() && found->contains("content") ? (*found)["content"] : *found;
    if (!text.is_string()) continue;
    const auto known = [&](const auto& name) { return name.first == key; };
    if (std::ranges::none_of(out.special_names, known)) out.special_names.emplace_back(key, text.get<std::string>());
  }
}

// A template is a string, or one of several by name.
void read_chat_templates(const json& config, Tokenizer::Impl& out) {
  const auto found = config.find("chat_template");
  if (found == config.end()) return;
  if (found->is_string()) out.add_chat_template("default", found->get<std::string>());
  if (!found->is_array()) return;
  for (const json& item : *found) {
    const bool named = item.is_object() && item.contains("name") && item["name"].is_string() &&
                       item.contains("template") && item["template"].is_string();
    if (named) out.add_chat_template(item["name"].get<std::string>(), item["template"].get<std::string>());
  }
}

}  // namespace

// In the order in which transformers lets one file stand over another: chat_template.jinja, tokenizer_config.json, then
// chat_template.json, which older multimodal models have.
void read_tokenizer_config(const std::filesystem::path& folder, Tokenizer::Impl& out) {
  std::error_code ignored;
  const auto exists = [&](const char* name) { return std::filesystem::is_regular_file(folder / name, ignored); };
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"})
    if (exists(name)) read_special_names(read_object(folder / name), out);
  const auto id_of = [&](const char* key, std::optional<std::int64_t>& id) {
    for (const auto& [name, token] : out.special_names)
      if (const std::int32_t found = name == key ? out.vocabulary.find(token) : Vocabulary::none;
          found != Vocabulary::none)
        id = found;
  };
  id_of("bos_token", out.bos);
  id_of("eos_token", out.eos);
  for (const char* name : {"chat_template.json", "tokenizer_config.json"})
    if (exists(name)) read_chat_templates(read_object(folder / name), out);
  if (exists("chat_template.jinja"))
    out.add_chat_template("default", io::detail::read_text_file(folder / "chat_template.jinja", kTokenizerConfig));
  const auto more = folder / "additional_chat_templates";
  if (std::filesystem::is_directory(more, ignored))
    for (const auto& entry : std::filesystem::directory_iterator(more, ignored))
      if (entry.path().extension() == ".jinja")
        out.add_chat_template(entry.path().stem().string(), io::detail::read_text_file(entry.path(), kTokenizerConfig));
}

}  // namespace steer::text::detail
