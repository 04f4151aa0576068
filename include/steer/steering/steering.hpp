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

#include <steer/model/intervention.hpp>
#include <steer/sae/sae.hpp>
#include <steer/steering/condition.hpp>
#include <steer/steering/edit.hpp>

namespace steer {

/// What every builder of `Steering` takes besides its own arguments. One that a kind does not look at is an error.
struct EditOptions {
  Scope scope{};
  std::optional<Condition> when{};
  StrengthUnit unit = StrengthUnit::raw;
  double max_activation = 0;         ///< feature edits: the feature's, e.g. from FeatureLabels. What
                                     ///< StrengthUnit::max_activation multiplies; kept in files under any unit
  std::optional<HookPoint> point{};  ///< feature edits and splices: instead of the place the SAE was trained at
  std::string name{};                ///< for the audit
};

/// What happened when a handler's condition became true.
struct SteeringEvent {
  SequenceId sequence = 0;
  std::int64_t position = 0;  ///< of the token
  std::string_view reason;
};

using SteeringHandler = std::function<void(const SteeringEvent&)>;

/// Something to do when a condition becomes true (again): tell, and perhaps end the row.
struct Watch {
  Condition when{};
  std::string reason{};
  bool abort = false;
  std::shared_ptr<const SteeringHandler> handler{};  ///< copies share it
  friend bool operator==(const Watch&, const Watch&);
};

/// How files refer to SAEs.
struct SteeringSaveOptions {
  /// By Sae::hash(); relative to the JSON file or absolute. For others `save` writes the path that they were loaded
  /// from, `to_json` none: JSON that is compared must not depend on where files lie.
  std::map<std::string, std::filesystem::path> sae_paths{};
};
struct SteeringLoadOptions {
  std::vector<Sae> saes{};  ///< used for references with the same hash; others are loaded from their path
};

/// A positive definite matrix S that says how far apart two activations are.
struct ActivationMetric {
  at::Tensor matrix{};          ///< S [width, width], or W [rank, width] with S^-1 = W' W
  bool inverse_factor = false;  ///< which of the two
  /// S itself [width, width], e.g. the covariance of activations.
  static ActivationMetric of(const at::Tensor& s);
  /// From W [rank, width], e.g. a matrix that whitens activations.
  static ActivationMetric from_inverse_factor(const at::Tensor& w);
};

/// An ordered list of edits: the one way steering is described, for one row. A value; copies are cheap (tensors and
/// SAEs are shared). Every builder checks its arguments at once and throws as `Edit::validate` does; all take what is
/// written or read, then where, then how much, then options. Features act where their SAE was trained unless the
/// options say otherwise.
///
/// In what follows h is one token's activation at the hook point, |h| its norm on arrival there (before any edit), v^ =
/// v / |v| and s the edit's strength: 1 where the builder takes none, changed by `scaled`. Vectors are [width of the
/// point] of any float dtype, kept as f32 on the CPU.
class Steering {
 public:
  /// h + s v; with StrengthUnit::residual_norm h + s |h| v^.
  /// Activation addition (Turner et al. 2023, arXiv:2308.10248; CAA, Rimsky et al. 2023, arXiv:2312.06681).
  Steering& add(const at::Tensor& vector, const HookPoint& at, double strength, const EditOptions& options = {});

  // Edits of one SAE feature: h + s (f' - f) d, with f its activation and d its decoder row. Consecutive ones of one
  // SAE at one point share one encode: f is read before the first of them, they act on it in order, and the whole
  // change is decoded at the end, which equals "encode, edit, decode, add the error back" (SAELens `use_error_term`,
  // the hosted Goodfire service) without computing any other feature. Where the SAE normalises its input, the change is
  // scaled back as its decoder's output is. StrengthUnit::residual_norm makes |f' d| the share of |h|.

  /// f' = f + value. Alone, it needs no encode.
  Steering& nudge(const Sae& sae, std::int64_t feature, double value, const EditOptions& options = {});
  /// f' = value.
  Steering& pin(const Sae& sae, std::int64_t feature, double value, const EditOptions& options = {});
  /// f' = factor f.
  Steering& mul(const Sae& sae, std::int64_t feature, double factor, const EditOptions& options = {});
  /// f' = min(max(f, low), high).
  Steering& clamp(const Sae& sae, std::int64_t feature, double low, double high, const EditOptions& options = {});
  /// f' = min(f, high).
  Steering& cap(const Sae& sae, std::int64_t feature, double high, const EditOptions& options = {});
  /// f' = 0.
  Steering& ablate(const Sae& sae, std::int64_t feature, const EditOptions& options = {});

  /// h - s (h.v^) v^: directional ablation (Arditi et al. 2024, arXiv:2406.11717).
  Steering& project_out(const at::Tensor& vector, const HookPoint& at, const EditOptions& options = {});
  /// h + s (factor - 1)(h.v^) v^: orthogonal-decomposition scaling (Neuronpedia ORTHOGONAL_DECOMP).
  Steering& scale_along(const at::Tensor& vector, const HookPoint& at, double factor, const EditOptions& options = {});
  /// h + s (t - h.v^) v^ where h.v^ lies on `side` of the target t. `below` is activation capping (Lu et al. 2026, "The
  /// Assistant Axis"), `above` Neuronpedia's PROJECTION_CAP. With StrengthUnit::residual_norm t is a share of |h|.
  Steering& project_to(const at::Tensor& vector, const HookPoint& at, double target,
                       TargetSide side = TargetSide::below, const EditOptions& options = {});
  /// h + s (t - v.h) d, d = S^-1 v / (v' S^-1 v): brings v.h to the target t by the change that is least in the metric
  /// S (arXiv:2605.01167). v as it is, not v^.
  /// @throws Error(shape | argument) unless the metric is symmetric, positive definite and of the vector's width.
  Steering& set_along_metric(const at::Tensor& vector, const ActivationMetric& metric, const HookPoint& at,
                             double target, const EditOptions& options = {});
  /// Exchanges the parts of h along a^ and b^; the rest and |h| stay. The reflection h - 2 s (h.n) n about
  /// n = (a^ - b^) / |a^ - b^|: for orthogonal directions their two projections trade places.
  Steering& swap(const at::Tensor& a, const at::Tensor& b, const HookPoint& at, const EditOptions& options = {});
  /// Rotates the part of h in the plane of a and b, which need not be orthogonal, by s radians, a towards b; the rest
  /// and |h| stay. (Angular Steering, Vu and Nguyen 2025, with the angle given and not the direction.)
  Steering& rotate(const at::Tensor& a, const at::Tensor& b, const HookPoint& at, double radians,
                   const EditOptions& options = {});
  /// h + s a relu(w.h + b) z.
  Steering& gated_add(const at::Tensor& w, double b, const at::Tensor& z, const HookPoint& at, double a,
                      const EditOptions& options = {});
  /// h + s (decode(encode(h)) - h); with the error term, plus h - decode(encode(h)), which leaves h up to rounding.
  /// Reads every feature: a full encode a token.
  Steering& splice(const Sae& sae, bool with_error = false, const EditOptions& options = {});
  /// Scales h down to |h| = limit where it is longer; with StrengthUnit::residual_norm the limit is a multiple of the
  /// norm the token had when it arrived at the hook point.
  Steering& cap_norm(const HookPoint& at, double limit, const EditOptions& options = {});
  /// Scales h to the norm the token had when it arrived at the hook point, undoing what the edits before it did to |h|.
  Steering& keep_norm(const HookPoint& at, const EditOptions& options = {});
  /// h + s (f(h) - h) for a function of the caller's. Files cannot hold it.
  Steering& custom(CustomFunction function, const HookPoint& at, const EditOptions& options = {});
  /// Any edit: a copy of another one, changed.
  Steering& edit(Edit edit);

  /// Ends the row when the condition becomes true; `generate` reports the reason.
  Steering& abort_when(Condition when, std::string reason);
  /// Calls a function each time the condition becomes true, from within the forward pass.
  Steering& on(Condition when, SteeringHandler handler);

  /// As sessions take it (`Session::open`, `forward`). Compiled for the model when a session first sees it: for each
  /// hook point one pass over the step's tokens, with just the encoder rows, decoder rows and vectors the edits need.
  /// Order within a hook point is the order of the edits; arithmetic is f32, cast once to the activation's dtype; a
  /// token no edit selects keeps every bit. Null for an empty one.
  operator InterventionPtr() const;

  std::span<const Edit> edits() const { return edits_; }
  std::span<const Watch> watches() const { return watches_; }
  /// Neither edits nor watches.
  bool empty() const { return edits_.empty() && watches_.empty(); }
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
  Steering& push(Edit checked);
  std::vector<Edit> edits_;
  std::vector<Watch> watches_;
};

}  // namespace steer
