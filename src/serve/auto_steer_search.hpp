#pragma once
// Auto Steer on what is served.

#include <functional>
#include <string_view>
#include <vector>

#include <steer/features/auto_steer.hpp>

#include "serve/service.hpp"

namespace steer::serve::detail {

/// `AutoSteerMode::published` with eight neutral questions, answers of some length and this SAE's labels. One search at
/// a time: later ones wait.
/// @param still  asked before it begins whether anybody still wants it. @throws Error(cancelled) when not.
AutoSteerResult find_published(Service& service, const ServedSae& served, std::string_view behaviour,
                               const Progress& progress = {}, const std::function<bool()>& still = {});

/// /v1/auto_steer: searches as jobs.
std::vector<Route> auto_steer_routes(Service& service);

}  // namespace steer::serve::detail
