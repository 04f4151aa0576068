#pragma once
// Which hook points some patterns choose.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <steer/model/hooks.hpp>

namespace steer::model::detail {

/// Which of the points, by TransformerLens name, some pattern matches: a glob (`*` any text, `?` any character) or a
/// name that `HookPoint::parse` knows.
/// @param among  said of the points in the message.
/// @throws Error(argument) for a pattern that matches none.
std::vector<bool> matching(std::span<const HookPoint> points, std::span<const std::string> patterns,
                           std::string_view among, std::string_view where);

}  // namespace steer::model::detail
