#pragma once
// The hosted Goodfire service's wire shapes, as its Python client 0.3.5 speaks them: features by UUID, controllers.

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include <steer/generate/observe.hpp>
#include <steer/steering/steering.hpp>

#include "serve/service.hpp"

namespace steer::serve::detail {

/// The prefix of every path that the client asks.
inline constexpr const char* kGoodfire = "/api/inference/v1";

/// A UUID (version 8) that is the feature's alone, of all SAEs: a hash of the SAE, then the index.
std::string feature_uuid(const ServedSae& served, std::int64_t feature);
/// The feature of that UUID, in any spelling. @throws ApiError(404).
std::pair<const ServedSae*, std::int64_t> feature_of_uuid(const Service& service, std::string_view uuid);
/// {"id" or what `key` says, "label", "index_in_sae"}.
nlohmann::json goodfire_feature(const ServedSae& served, std::int64_t feature, const char* key = "id");
/// @throws ApiError(400) for an SAE that has none.
const FeatureLabels& goodfire_labels(const ServedSae& served);
/// What a strength of 1 stands for: the feature's maximum activation, 1 where the labels know none.
double goodfire_unit(const ServedSae& served, std::int64_t feature);

/// Reads "controller"; none is an empty steering. Strengths of nudges and pins are in units of `goodfire_unit`,
/// thresholds of conditions are activations. Scopes with an event name end the row when their condition holds.
/// @throws ApiError(400).
Steering read_controller(Fields& fields, const Service& service);

/// Reads "messages". The asynchronous client puts a second system message before the caller's; where the model's format
/// refuses that, both become one. @throws ApiError(400).
std::vector<std::int64_t> goodfire_prompt(Fields& fields, const Service& service, bool generation_prompt);

/// Each token's active features; none for position 0, an attention sink. Runs as a row of the engine.
std::vector<std::vector<std::pair<std::int64_t, float>>> observed_features(Service& service, const ServedSae& served,
                                                                           std::vector<std::int64_t> ids,
                                                                           const Steering& steering,
                                                                           ObserveFeaturesOptions options,
                                                                           const std::function<bool()>& gone);

std::vector<Route> goodfire_chat_routes(Service& service);
std::vector<Route> goodfire_feature_routes(Service& service);
std::vector<Route> goodfire_auto_routes(Service& service);

}  // namespace steer::serve::detail
