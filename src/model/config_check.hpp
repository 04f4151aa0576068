#pragma once

#include <string_view>

#include <steer/model/config.hpp>

namespace steer::model::detail {

/// Fills what is derived (attention scale, rotary width) and refuses configurations that no model can have.
/// @param where  the public function on whose behalf, for messages.
/// @throws Error(config) naming the values that contradict each other.
void complete_and_check(ModelConfig& config, std::string_view where);

}  // namespace steer::model::detail
