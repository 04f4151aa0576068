#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <steer/sae/sae.hpp>
#include <steer/steering/condition.hpp>
#include <steer/steering/edit.hpp>

namespace steer {

/// A hook point, given as such or by its name ("blocks.6.hook_resid_post", "model.layers.6").
struct Place {
  HookPoint point;
  /// Implicit, so that builders take either. @throws Error(argument) for a name that `HookPoint::parse` refuses.
  Place(const HookPoint& p) : point(p) {}
  Place(std::string_view name) : point(HookPoint::parse(name)) {}
  Place(const char* name) : point(HookPoint::parse(name)) {}
  Place(const std::string& name) : point(HookPoint::parse(name)) {}
};

/// What every builder of `Steering` takes besides its own arguments.
struct EditOptions {
  Scope scope{};
  std::optional<Condition> when{};
  Unit unit = Unit::raw;
  double max_activation = 0;         ///< for Unit::max_activation: the feature's, e.g. from FeatureLabels
  std::optional<HookPoint> point{};  ///< feature edits and splices: instead of the place the SAE was trained at
  std::string name{};                ///< for the audit
};

/// What happened when a handler's condition became true.
struct SteeringEvent {
  std::int64_t row = 0;  ///< of the plan
  SequenceId sequence = 0;
  std::int64_t position = 0;  ///< of the token
  std::string_view reason;
};

using SteeringHandler = std::function<void(const SteeringEvent&)>;

/// Something to do when a condition becomes true (again): tell, and perhaps end the row.
struct Watch {
  Condition when;
  std::string reason;
  bool abort = false;
  std::shared_ptr<const SteeringHandler> handler;  ///< copies share it
  friend bool operator==(const Watch&, const Watch&);
};

/// How files refer to SAEs.
struct SteeringSaveOptions {
  std::map<std::string, std::filesystem::path> sae_paths{};  ///< by Sae::hash(); relative to the JSON file or absolute
};
struct SteeringLoadOptions {
  std::vector<Sae> saes{};  ///< used for references with the same hash; others are loaded from their path
};

/// An ordered list of edits: the one way steering is described, for one row. A value; copies are cheap (tensors and
/// SAEs are shared). Every builder checks its arguments at once and throws as `Edit::validate` does.
class Steering {
 public:
  /// h += strength * vector. @param vector [width of the point], any float dtype; kept as f32 on the CPU.
  Steering& add(const at::Tensor& vector, const Place& at, double strength, const EditOptions& options = {});
  /// h += value * decoder[feature].
  Steering& nudge(const Sae& sae, std::int64_t feature, double value, const EditOptions& options = {});
  /// Sets a feature's activation to `value`.
  Steering& pin(const Sae& sae, std::int64_t feature, double value, const EditOptions& options = {});
  /// Multiplies a feature's activation.
  Steering& mul(const Sae& sae, std::int64_t feature, double factor, const EditOptions& options = {});
  /// Keeps a feature's activation in [low, high].
  Steering& clamp(const Sae& sae, std::int64_t feature, double low, double high, const EditOptions& options = {});
  /// Keeps a feature's activation at or below `high`.
  Steering& cap(const Sae& sae, std::int64_t feature, double high, const EditOptions& options = {});
  /// Sets a feature's activation to 0.
  Steering& ablate(const Sae& sae, std::int64_t feature, const EditOptions& options = {});
  /// Removes the part of h along `vector` [width of the point]; its length does not matter.
  Steering& project_out(const at::Tensor& vector, const Place& at, const EditOptions& options = {});
  /// Multiplies the part of h along `vector` [width of the point] by `factor`.
  Steering& scale_along(const at::Tensor& vector, const Place& at, double factor, const EditOptions& options = {});
  /// Moves the projection of h on the unit vector along `vector` [width of the point] to `target` where it lies on
  /// `side` of it.
  Steering& project_to(const at::Tensor& vector, const Place& at, double target, Side side = Side::below,
                       const EditOptions& options = {});
  /// Rotates h in the plane of a and b [width of the point] by `radians`, a towards b.
  Steering& rotate(const at::Tensor& a, const at::Tensor& b, const Place& at, double radians,
                   const EditOptions& options = {});
  /// h += a relu(w.h + b) z, with w and z [width of the point].
  Steering& gated_add(const at::Tensor& w, double b, const at::Tensor& z, double a, const Place& at,
                      const EditOptions& options = {});
  /// Replaces h by its reconstruction, with or without the error term.
  Steering& splice(const Sae& sae, bool with_error = false, const EditOptions& options = {});
  /// Shortens h to at most `limit` (Unit::residual_norm: times its norm on arrival).
  Steering& cap_norm(const Place& at, double limit, const EditOptions& options = {});
  /// Gives h back the norm it arrived with.
  Steering& keep_norm(const Place& at, const EditOptions& options = {});
  /// h' = function(h).
  Steering& custom(std::string name, const Place& at, CustomFunction function, const EditOptions& options = {});
  /// Any edit.
  Steering& edit(Edit edit);

  /// Ends the row when the condition becomes true; `generate` reports the reason.
  Steering& abort_when(Condition when, std::string reason);
  /// Calls a function each time the condition becomes true, from within the forward pass.
  Steering& on(Condition when, SteeringHandler handler);

  std::span<const Edit> edits() const { return edits_; }
  std::span<const Watch> watches() const { return watches_; }
  /// Neither edits nor watches.
  bool empty() const { return edits_.empty() && watches_.empty(); }
  /// Whether some edit can change an activation at or above `layer` (embed counts as layer 0): what a prefix shared
  /// below that layer must not have.
  bool edits_below(std::int64_t layer) const;
  /// The lowest layer any edit or watch looks at; nothing when empty.
  std::optional<std::int64_t> first_layer() const;

  /// The edits of `other` after one's own.
  Steering& operator+=(const Steering& other);
  friend Steering operator+(Steering a, const Steering& b) { return a += b; }
  /// Every edit's strength multiplied: 0 switches off, 1 changes nothing. @throws Error(argument) unless finite.
  Steering scaled(double factor) const;
  friend bool operator==(const Steering&, const Steering&) = default;

  /// What differs, one line an edit: "- nudge 12 by 0.5", "+ nudge 12 by 0.7"; empty when equal.
  std::vector<std::string> diff(const Steering& other) const;
  /// One line an edit.
  std::string describe() const;

  /// Writes `file` (JSON, docs/steering-schema.md) and, where there are vectors, a safetensors file of the same stem
  /// beside it. @throws Error(unsupported) that names the edit for custom functions and handlers; Error(io).
  void save(const std::filesystem::path& file, const SteeringSaveOptions& options = {}) const;
  /// @throws Error(format) for an unknown key, version or kind, naming it; Error(config) when a vector or SAE is not
  ///         the one of that hash; whatever the builders throw.
  static Steering load(const std::filesystem::path& file, const SteeringLoadOptions& options = {});
  /// The JSON alone, with the vectors inline: for logs, journals and requests. @throws as `save`.
  nlohmann::json to_json(const SteeringSaveOptions& options = {}) const;
  /// @param folder  what relative paths are relative to.
  static Steering from_json(const nlohmann::json& json, const SteeringLoadOptions& options = {},
                            const std::filesystem::path& folder = {});

 private:
  std::vector<Edit> edits_;
  std::vector<Watch> watches_;
};

}  // namespace steer
