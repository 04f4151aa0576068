#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <steer/eval/arm.hpp>
#include <steer/eval/questions.hpp>
#include <steer/model/model.hpp>

namespace steer::eval::detail {

/// Ids of a conversation up to the assistant's first token, in the model's own chat format.
/// @param system  empty: none.
std::vector<std::int64_t> chat_ids(const Model& model, std::string_view system, std::string_view user);

/// The system prompt of an arm; empty for none.
std::string system_of(const Arm& arm, const Behaviour& behaviour);

}  // namespace steer::eval::detail
