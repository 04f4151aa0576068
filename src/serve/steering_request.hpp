#pragma once
// The steering that a request brings or names.

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include <steer/model/audit.hpp>
#include <steer/steering/steering.hpp>

#include "serve/service.hpp"

namespace steer::serve::detail {

struct SteeringRequest {
  Steering steering{};
  bool given = false;                           ///< the request has one, though it may edit nothing
  std::vector<std::int64_t> residual_layers{};  ///< whose outputs the answer holds (vllm-lens)
  bool require_fired = false;                   ///< one that changed no token is an error
};

/// Reads "model", "steering", "vllm_xargs" and "require_fired". A steering is the name of a registered one, our JSON
/// (docs/steering-schema.md) or its short form, or a list of such; files are never read on a request's behalf.
SteeringRequest read_steering(Fields& fields, const Service& service);

/// What a request's steering did to all its rows: {"fired", "edits": [{"edit", "point", "seen", "in_scope", "edited",
/// "mean_change", "max_change"}], "warnings"}.
nlohmann::json audit_json(const std::vector<SteeringAudit>& audits, const std::vector<std::string>& warnings);

}  // namespace steer::serve::detail
