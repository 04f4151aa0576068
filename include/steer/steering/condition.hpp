#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include <steer/core/enum.hpp>
#include <steer/model/hooks.hpp>
#include <steer/sae/sae.hpp>

namespace steer {

/// What a condition looks at.
enum class ConditionSource {
  feature,  ///< the activation of one SAE feature
  probe,    ///< w.h + b
  entropy,  ///< of the distribution the token was drawn from, in nats; unknown for prompt tokens
  all_of,   ///< every part holds
  any_of,   ///< one part holds
};

template <>
struct EnumTable<ConditionSource> {
  static constexpr std::string_view name = "condition";
  static constexpr EnumEntry<ConditionSource> entries[] = {{ConditionSource::feature, "feature"},
                                                           {ConditionSource::probe, "probe"},
                                                           {ConditionSource::entropy, "entropy"},
                                                           {ConditionSource::all_of, "all_of"},
                                                           {ConditionSource::any_of, "any_of"}};
};

/// How a condition remembers.
struct ConditionOptions {
  std::optional<HookPoint> point{};  ///< read here; default: where the SAE was trained
  double release = 0;                ///< hysteresis: once on, stays on until the value is this far outside the band
  bool sticky = false;               ///< once on, stays on for the rest of the sequence
};

/// When an edit acts, decided token by token: the value read lies in the band `above < value <= at_most`.
///
/// A feature or a probe reads the token's activation as it arrives at `point`, before this plan edits it there; the
/// point must not lie behind the edit it governs. An unknown value (the entropy of a prompt token) is outside every
/// band. Hysteresis and stickiness remember per sequence, in the order of its tokens, whether or not the edit's
/// scope covers them.
struct Condition {
  ConditionSource source = ConditionSource::feature;
  HookPoint point;           ///< feature, probe
  std::optional<Sae> sae;    ///< feature
  std::int64_t feature = 0;  ///< feature
  at::Tensor probe;          ///< probe: w [width], f32
  double bias = 0;           ///< probe: b
  double above = -std::numeric_limits<double>::infinity();
  double at_most = std::numeric_limits<double>::infinity();
  double release = 0;
  bool sticky = false;
  std::vector<Condition> parts;  ///< all_of, any_of

  /// The feature's activation exceeds `threshold`.
  /// @throws Error(argument) for a feature outside the SAE (the message gives the range) or a threshold that is not
  ///         finite; Error(config) when neither the SAE nor `options` names a hook point.
  static Condition feature_above(const Sae& sae, std::int64_t feature, double threshold,
                                 const ConditionOptions& options = {});
  /// The feature's activation is at most `threshold`. @throws as above.
  static Condition feature_at_most(const Sae& sae, std::int64_t feature, double threshold,
                                   const ConditionOptions& options = {});
  /// w.h + b > 0, with w [width of the point]. `options.point` is required.
  /// @throws Error(shape | argument) unless w is a finite, non-empty vector.
  static Condition probe_above(const at::Tensor& w, double b, const ConditionOptions& options);
  /// The next-token entropy lies in [low, high], in nats. @throws Error(argument) for an empty band.
  static Condition entropy_between(double low, double high, const ConditionOptions& options = {});
  /// @throws Error(argument) for no parts.
  static Condition all_of(std::vector<Condition> parts);
  static Condition any_of(std::vector<Condition> parts);

  /// @throws Error as the builders do, on behalf of `where`.
  void validate(std::string_view where) const;
  /// In words, for messages and the audit: "feature 12 > 0.5 at blocks.6.hook_resid_post".
  std::string describe() const;
  friend bool operator==(const Condition&, const Condition&);
};

}  // namespace steer
