#pragma once
#include <string_view>

#include <steer/core/error.hpp>
#include <steer/steering/steering.hpp>

namespace steer::steering::detail {

/// No other format has watches.
/// @throws Error(unsupported) for a steering with one.
inline void refuse_watches(const Steering& steering, std::string_view target, std::string_view where) {
  require(steering.watches().empty(), ErrorCode::unsupported, where,
          "expected a steering that {} can express but it watches a condition ({})", target,
          steering.watches().empty() ? "" : steering.watches().front().reason);
}

}  // namespace steer::steering::detail
