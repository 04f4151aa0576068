#pragma once
// Steerings in the shapes of other servers.

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include <steer/steering/steering.hpp>

#include "serve/service.hpp"

namespace steer::serve::detail {

/// EasySteer's `SteeringSpec` (its API of 2026): {"vectors": [{"source", "scale", "layers", "normalize", "apply"}],
/// "conflict"}; a source is the name of vectors registered here, the algorithm "direct", `apply` whole phases or the
/// first generated tokens. @throws ApiError(400 | 404) for the rest, by name.
Steering easy_steer(const nlohmann::json& spec, const std::string& path, const Service& service);

/// vllm-lens' arguments: "apply_steering_vectors" and "output_residual_stream".
struct LensRequest {
  Steering steering{};
  std::vector<std::int64_t> residual_layers{};
};
/// Each may be JSON or text that holds it. @throws ApiError(400).
LensRequest read_lens(const nlohmann::json& arguments, const std::string& path, const Service& service);

/// Collects the outputs of layers while a row runs: prompt and generated tokens, as vllm-lens returns them.
class ResidualCapture {
 public:
  ResidualCapture(std::vector<std::int64_t> layers, std::int64_t width);
  /// For EngineRequest::observers.
  std::vector<Observer> observers();
  /// {"residual_stream": {"data": base64 of f32, "dtype", "original_dtype", "shape": [layers, tokens, width]}}. Call
  /// when the row is done.
  nlohmann::json to_json() const;

 private:
  std::vector<std::int64_t> layers_;
  std::int64_t width_;
  std::shared_ptr<std::vector<std::vector<float>>> values_;  ///< by layer
};

}  // namespace steer::serve::detail
