#pragma once
// The formats of ChatFormat as templates of steer's own.

#include <string>

#include <steer/text/chat_template.hpp>

namespace steer::text::detail {

std::string stock_template(ChatFormat format);

}  // namespace steer::text::detail
