#pragma once
// Conversations in OpenAI's shape.

#include <vector>

#include <steer/text/chat_template.hpp>

#include "serve/service.hpp"

namespace steer::serve::detail {

/// A list of {"role", "content"}, content a string or parts of type "text". @throws ApiError(400) naming the message.
std::vector<Message> read_messages(const nlohmann::json& list, const std::string& param);
/// Reads "messages", "add_generation_prompt", "continue_final_message" and "chat_template_kwargs": the prompt's ids in
/// the model's own chat format. @throws ApiError(400).
std::vector<std::int64_t> render_messages(Fields& fields, const Service& service);

}  // namespace steer::serve::detail
