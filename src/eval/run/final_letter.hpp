#pragma once

#include <optional>
#include <string_view>

namespace steer::eval::detail {

/// The letter that a careful reader takes as a response's final answer, or nothing. Wrong is worse than none: what is a
/// list, a hedge, an article, a thought or a quotation gives nothing.
/// @param choices  how many letters are valid, from 'A'.
std::optional<char> final_letter(std::string_view response, int choices);

}  // namespace steer::eval::detail
