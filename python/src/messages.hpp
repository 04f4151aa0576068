#pragma once

#include <steer/text/chat_template.hpp>

#include "bind.hpp"

namespace steer::python {

/// A conversation, from dicts with "role" and "content". @throws Error(argument) naming the message.
std::vector<Message> messages_of(nb::handle conversation);
ChatOptions chat_options(bool generation_prompt, const std::string& date, nb::handle variables);

}  // namespace steer::python
