#pragma once
// What the kinds that change one SAE feature's activation f share: h + s (f' - f) d, with d its decoder row. They state
// f' as a `Change` of f. Consecutive ones on one SAE are run together: see program.cpp.

#include <cmath>
#include <limits>

#include "core/format_text.hpp"
#include "steering/edits/operation.hpp"

namespace steer::steering::detail {

inline constexpr double kUnbounded = std::numeric_limits<double>::infinity();

/// `Derived` states, besides what every kind does: `numbers` (its parameters besides the feature), `kReads` (whether f
/// matters to f' - f), `kScaled` (whether its numbers are activations, which units multiply), and
/// `change(unit)` with its numbers times `unit`.
template <class Derived>
struct FeatureKind : Kind<Derived> {
  std::optional<Sae> sae;
  std::int64_t feature = 0;
  double max_activation = 0;  ///< what StrengthUnit::max_activation multiplies the numbers by

  template <class Self, class V>
  static void parameters(Self& self, const V& v) {
    v("sae", self.sae);
    v("feature", self.feature);
    Derived::numbers(self, v);
    v.sparse("max_activation", self.max_activation, 0.0);
  }
  bool takes(StrengthUnit) const override { return Derived::kScaled; }
  void validate(StrengthUnit unit, std::string_view where) const override {
    require_feature(*sae, feature, where);
    self().check(where);
    if (unit == StrengthUnit::max_activation)
      require(std::isfinite(max_activation) && max_activation > 0, ErrorCode::argument, where,
              "expected the maximum activation of feature {} for StrengthUnit::max_activation but got {}; set "
              "EditOptions::max_activation",
              feature, max_activation);
  }
  Lowered lower(const Edit& edit) const override {
    Change change = self().change(edit.unit == StrengthUnit::max_activation ? max_activation : 1);
    change.strength = static_cast<float>(edit.strength);
    return {.feature = Lowered::Feature{*sae, feature, Derived::kReads}, .change = change};
  }
  /// The same on another feature, changed so that h moves as much.
  std::optional<Edit> elsewhere(const Edit& edit, Rng& rng) const override {
    std::int64_t other = feature;
    double norm = 0;
    // A dead feature's row may be zero: it would be no control.
    for (int tries = 0; tries < 1000 && (other == feature || !(norm > 0)); ++tries) {
      other = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(sae->d_sae())));
      norm = row_norm(other);
    }
    require(norm > 0 && other != feature, ErrorCode::unsupported, "Arm::apply",
            "expected another feature with a decoder row that is not zero but found none in 1000 draws");
    Derived op = self();
    op.feature = other;
    Edit result = with_operation(edit, std::move(op), format_text("random feature {}", other));
    if (edit.unit != StrengthUnit::residual_norm) result.strength *= row_norm(feature) / norm;
    return result;
  }
  std::optional<Edit> noise(const Edit&, Rng&) const override { return std::nullopt; }

 protected:
  const Derived& self() const { return static_cast<const Derived&>(*this); }
  double row_norm(std::int64_t of) const { return sae->decoder_rows(std::span(&of, 1)).norm().template item<double>(); }
};

/// A builder's work: the index is checked before anything else is looked at.
template <class Derived>
Edit feature_edit(Derived op, const Sae& sae, std::int64_t feature, const EditOptions& options,
                  std::string_view where) {
  require_feature(sae, feature, where);
  op.sae = sae;
  op.feature = feature;
  op.max_activation = options.max_activation;
  return edit_of(std::move(op), place_of(sae, options.point, /*output=*/true, where), 1, options, where);
}

}  // namespace steer::steering::detail
