#include "serve/reading_input.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/format_text.hpp"
#include "serve/chat_messages.hpp"

namespace steer::serve::detail {

using nlohmann::json;

namespace {

std::vector<std::int64_t> checked(std::vector<std::int64_t> ids, const Service& service, const std::string& param) {
  if (ids.empty()) throw ApiError(400, format_text("expected at least one token in \"{}\"", param), param);
  if (std::ssize(ids) > service.model.config().context)
    throw ApiError(400,
                   format_text("\"{}\" has {} tokens, and this model's context holds {}", param, ids.size(),
                               service.model.config().context),
                   param, "context_length_exceeded");
  return ids;
}

std::vector<std::int64_t> one_text(const json& value, const Service& service, const std::string& param) {
  if (value.is_string()) return checked(service.encode(value.get_ref<const std::string&>()), service, param);
  const bool chat = value.is_array() && !value.empty() && value.front().is_object();
  if (chat) {
    const ChatOptions options{.generation_prompt = false};
    const auto messages = read_messages(value, param);
    std::size_t bytes = 0;
    for (const auto& message : messages) bytes += message.content.size();
    service.check_length(bytes, param);
    return checked(service.model.chat().render(messages, options).ids, service, param);
  }
  const json wrapped{{"ids", value}};
  return checked(Fields(wrapped, param).integers("ids", 0, service.model.config().vocab_size - 1), service, param);
}

}  // namespace

std::vector<std::int64_t> read_text(Fields& fields, const Service& service) {
  if (fields.has("messages") == fields.has("prompt"))
    fields.fail("prompt", "expected either \"prompt\" (text or token ids) or \"messages\"");
  const char* key = fields.has("messages") ? "messages" : "prompt";
  return one_text(fields.at(key), service, key);
}

std::vector<TokenizedText> read_texts(Fields& fields, std::string_view key, const Service& service) {
  std::vector<TokenizedText> texts;
  const json& list = fields.array(key);
  for (std::size_t i = 0; i < list.size(); ++i)
    texts.push_back({.ids = one_text(list[i], service, format_text("{}[{}]", fields.name(key), i))});
  return texts;
}

const ServedSae& read_sae(Fields& fields, const Service& service) {
  return service.sae(fields.text("sae", ""), fields.name("sae"));
}

std::int64_t read_feature(Fields& fields, const ServedSae& served) {
  return fields.integer("feature", 0, served.sae.d_sae() - 1);
}

std::vector<std::int64_t> all_positions(std::int64_t count) {
  std::vector<std::int64_t> positions(static_cast<std::size_t>(count));
  std::iota(positions.begin(), positions.end(), 0);
  return positions;
}

std::vector<std::int64_t> read_positions(Fields& fields, std::int64_t tokens, std::vector<std::int64_t> fallback) {
  if (!fields.has("positions")) return fallback;
  auto positions = fields.integers("positions", -tokens, tokens - 1);
  for (auto& position : positions) position += position < 0 ? tokens : 0;
  std::ranges::sort(positions);
  positions.erase(std::ranges::unique(positions).begin(), positions.end());
  return positions;
}

json tokens_json(const Service& service, const std::vector<std::int64_t>& ids,
                 const std::vector<std::int64_t>& positions) {
  json tokens = json::array();
  for (const auto position : positions) {
    const auto id = ids[static_cast<std::size_t>(position)];
    tokens.push_back({{"position", position}, {"id", id}, {"text", service.token_text(id)}});
  }
  return tokens;
}

json feature_json(const ServedSae& served, std::int64_t feature) {
  json result{{"feature", feature}};
  if (served.labels) result["label"] = std::string(served.labels->label(feature));
  return result;
}

}  // namespace steer::serve::detail
