#pragma once
// What the head of a request says: which route is meant, and where its body ends.

#include <string>
#include <string_view>
#include <vector>

#include "serve/http.hpp"

namespace steer::serve::detail {

/// Names of headers, ASCII case ignored.
bool same_name(std::string_view a, std::string_view b);
/// Whether a path is the route's, and what stands for its `{}`.
bool matches(std::string_view route, std::string_view path, std::vector<std::string>& captured);
/// The status for a head that does not say plainly where its body ends; 0 for one that does.
int framing_fault(const HttpRequest& request);
/// What is wrong with a request that no handler sees.
std::string_view fault_message(int status);

}  // namespace steer::serve::detail
