#pragma once
// Auto Steer on what is served.

#include <functional>
#include <string_view>
#include <vector>

#include <steer/features/auto_steer.hpp>

#include "serve/service.hpp"

namespace steer::serve::detail {

struct SearchRequest {
  std::string behaviour{};
  AutoSteerMode mode = AutoSteerMode::published;
  std::vector<std::string> prompts{};       ///< neutral ones; empty: eight of this server's
  std::vector<ChoiceQuestion> questions{};  ///< that steering must not spoil; `safe` needs them
  CertificateSet certificate{};
  std::int64_t max_tokens = 64;
  std::uint64_t seed = 42;
  double enough = AutoSteerOptions().enough;
};

/// Searches with this SAE's labels. One search at a time: later ones wait.
/// @param still  asked while it waits and at every token whether anybody still wants it.
/// @throws Error(cancelled) when not.
AutoSteerResult find_steering(Service& service, const ServedSae& served, const SearchRequest& request,
                              const Progress& progress, const std::function<bool()>& still);

/// /v1/auto_steer: searches as jobs.
std::vector<Route> auto_steer_routes(Service& service);

}  // namespace steer::serve::detail
