#include "serve/chat_messages.hpp"

#include <nlohmann/json.hpp>

#include "core/format_text.hpp"

namespace steer::serve::detail {

using nlohmann::json;

namespace {

std::string read_content(Fields& fields) {
  const json& content = fields.at("content");
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) fields.fail("content", "expected \"content\" to be a string or a list of parts");
  std::string text;
  for (const json& entry : content) {
    Fields part(entry, fields.name("content"));
    if (const auto type = part.text("type"); type != "text")
      part.fail("type", format_text("a content part of type \"{}\" is not supported: the model reads text", type));
    text += part.text("text");
    part.ignore({"cache_control"});
    part.done();
  }
  return text;
}

Role read_role(Fields& fields) {
  const std::string role = fields.text("role");
  if (role == "system" || role == "developer") return Role::system;
  if (role == "user") return Role::user;
  if (role == "assistant") return Role::assistant;
  fields.fail("role", format_text("expected a role of system, developer, user or assistant but got \"{}\"", role));
}

}  // namespace

std::vector<Message> read_messages(const json& list, const std::string& param) {
  if (!list.is_array() || list.empty())
    throw ApiError(400, format_text("expected \"{}\" to be a list of at least one message", param), param);
  std::vector<Message> messages;
  for (std::size_t i = 0; i < list.size(); ++i) {
    Fields fields(list[i], format_text("{}[{}]", param, i));
    const Role role = read_role(fields);
    messages.push_back({role, read_content(fields)});
    fields.refuse({"tool_calls", "function_call", "audio"}, "the server calls no tools");
    fields.ignore({"name", "refusal", "annotations", "reasoning_content", "reasoning"});
    fields.done();
  }
  return messages;
}

std::vector<std::int64_t> render_messages(Fields& fields, const Service& service) {
  const auto messages = read_messages(fields.at("messages"), fields.name("messages"));
  std::size_t bytes = 0;
  for (const auto& message : messages) bytes += message.content.size();
  service.check_length(bytes, fields.name("messages"));
  ChatOptions options;
  options.generation_prompt = fields.boolean("add_generation_prompt", true);
  if (const json* variables = fields.find("chat_template_kwargs")) {
    Fields checked(*variables, fields.name("chat_template_kwargs"));
    options.variables = dump(*variables);
  }
  return service.model.chat().render(messages, options).ids;
}

}  // namespace steer::serve::detail
