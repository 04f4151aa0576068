#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include <steer/io/gguf_writer.hpp>
#include <steer/sae/sae.hpp>
#include <steer/steering/steering.hpp>

namespace steer {

/// How the values of a hosted variant are read.
struct HostedImportOptions {
  StrengthUnit unit = StrengthUnit::raw;  ///< max_activation: times each feature's `max_activation_strength`
  Scope scope{};                          ///< of every edit; the format has none
};

/// A variant or controller of Goodfire's hosted steering service (SDK 0.2 to 0.5: `Variant.json()`,
/// `Controller.json()`): modes nudge, pin and mul by `index_in_sae`; scopes with conditionals on one feature each,
/// joined by AND or OR; `min_nudge_entropy` and `max_nudge_entropy`; scopes with an event name become `abort_when`.
/// @throws Error(format) for an unknown key or mode, naming it; Error(unsupported) for conditionals between features
///         or on groups, and for `nonzero_strength_threshold`, whose meaning was never published; Error(argument) for a
///         feature outside the SAE.
Steering from_hosted_variant(const nlohmann::json& json, const Sae& sae, const HostedImportOptions& options = {});

/// The same format, `Variant.json()`.
/// @throws Error(unsupported) that names the edit: anything but nudge, pin and mul of raw values at strength 1 over all
///         positions, conditions other than feature thresholds, watches.
nlohmann::json to_hosted_variant(const Steering& steering, const std::string& base_model);

/// Steering JSON of the vLLM steering forks: `vectors` (all positions), `prefill_vectors` (prompt) and
/// `decode_vectors` (generated), each `{"post_mlp": {"L": [..] or {"vector": [..], "scale": s}}}`, where post_mlp L is
/// `blocks.L.hook_resid_post`. BOS included, as there.
/// @throws Error(format) for unknown keys, Error(unsupported) for other hook names.
Steering from_vllm_json(const nlohmann::json& json);

/// The inverse. Constant edits (add; nudge of an SAE without input normalisation) of one layer and phase are summed.
/// @throws Error(unsupported) that names the edit the format cannot express.
nlohmann::json to_vllm_json(const Steering& steering);

/// llama.cpp's control vector (see `load_control_vector`): added to every token, BOS included, at the outputs of its
/// layers.
Steering from_control_vector(const ControlVector& vector, double strength = 1);

/// The inverse, for `save_control_vector`: all edits must be constant ones over all positions with BOS, after layer 1
/// or later. Edits of one layer are summed.
/// @throws Error(unsupported) that names the edit the format cannot express; Error(argument) for no edits.
ControlVector to_control_vector(const Steering& steering, std::string model_hint = {});

}  // namespace steer
