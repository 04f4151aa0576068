#pragma once

#include <string_view>

#include <steer/core/error.hpp>

namespace steer::stats::detail {

/// @throws Error(argument) for a level that is no probability of an interval.
inline void require_level(double level, std::string_view where) {
  require(level > 0 && level < 1, ErrorCode::argument, where, "expected a level between 0 and 1 but got {}", level);
}

}  // namespace steer::stats::detail
