#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <steer/model/hooks.hpp>
#include <steer/sae/sae.hpp>

namespace steer {

/// Names one row of an engine; never used twice.
using RowId = std::int64_t;

/// What some tokens of a row were at a hook point, after the row's steering there.
struct Observation {
  RowId row = 0;
  HookPoint point{};
  std::int64_t position = 0;            ///< of the first of them in the row: prompt and generated tokens count through
  std::span<const std::int64_t> ids{};  ///< [tokens]
  Phase phase = Phase::prompt;
  const at::Tensor& value;  ///< [tokens, width], f32; attn_pattern: [heads, tokens, keys]. Valid during the call: clone
                            ///< what is kept, and change nothing
};

/// Reads a row's activations while it runs. Each token is reported once, in order, when its own pass runs: so the last
/// token drawn, which no pass needs, is not, nor is what `EngineRequest::after` holds.
struct Observer {
  HookPoint point{};
  std::function<void(const Observation&)> on_tokens{};
  bool prompt = true;  ///< the prompt's tokens too, which the row then computes itself instead of taking them from a
                       ///< kept prefix (samples: once for all). false: generated tokens only
};

/// Logits [vocab], f32, of the distribution that one generated token is drawn (or given) from, before bias and
/// penalties. Called on the engine's thread, in order of position. Valid during the call.
struct LogitsObservation {
  RowId row = 0;
  std::int64_t position = 0;  ///< of the token, in the row
  std::span<const float> logits{};
};
using LogitsFunction = std::function<void(const LogitsObservation&)>;

/// SAE features of some tokens of a row.
struct FeatureObservation {
  RowId row = 0;
  std::int64_t position = 0;
  std::span<const std::int64_t> ids{};  ///< [tokens]
  Phase phase = Phase::prompt;
  /// By token: (feature, activation), the largest absolute values first. Valid during the call.
  std::span<const std::vector<std::pair<std::int64_t, float>>> active{};
};

struct ObserveFeaturesOptions {
  std::int64_t top = 0;                  ///< at most so many a token; 0: all that are active
  std::vector<std::int64_t> features{};  ///< these only, active or not, in this order (`top` must be 0)
  std::optional<HookPoint> point{};      ///< instead of the place the SAE was trained at
  bool prompt = true;                    ///< as `Observer::prompt`
};

/// An observer that encodes what it sees. Encodes on the engine's thread: [tokens, d_in] x [d_in, d_sae] a pass.
/// @throws Error(argument | config) for features outside the SAE, or an SAE that does not say where it was trained.
Observer observe_features(const Sae& sae, std::function<void(const FeatureObservation&)> on_features,
                          const ObserveFeaturesOptions& options = {});

}  // namespace steer
