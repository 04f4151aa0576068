#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include <steer/core/enum.hpp>
#include <steer/model/hooks.hpp>
#include <steer/sae/sae.hpp>
#include <steer/steering/condition.hpp>

namespace steer {

/// What a strength is measured in.
enum class Unit {
  raw,             ///< multiplies the vector or decoder row as it is
  max_activation,  ///< of the feature's maximum activation
  residual_norm,   ///< share of the token's |h|, along the unit vector
};

template <>
struct EnumTable<Unit> {
  static constexpr std::string_view name = "strength unit";
  static constexpr EnumEntry<Unit> entries[] = {
      {Unit::raw, "raw"}, {Unit::max_activation, "max_activation"}, {Unit::residual_norm, "residual_norm"}};
};

/// Which positions an edit touches.
enum class Where {
  all,
  prompt,
  generated,
  onset,       ///< the first `count` generated tokens
  last,        ///< the last token of the prompt
  span,        ///< positions [begin, end)
  inside_tag,  ///< between `<tag>` and `</tag>`
  outside_tag,
};

template <>
struct EnumTable<Where> {
  static constexpr std::string_view name = "scope";
  static constexpr EnumEntry<Where> entries[] = {{Where::all, "all"},
                                                 {Where::prompt, "prompt"},
                                                 {Where::generated, "generated"},
                                                 {Where::onset, "onset"},
                                                 {Where::last, "last"},
                                                 {Where::span, "span"},
                                                 {Where::inside_tag, "inside_tag"},
                                                 {Where::outside_tag, "outside_tag"}};
};

/// Positions, as a value.
///
/// Tags are found in the sequence's text, prompt included. A token counts as inside when the text up to and with it
/// ends inside the tag: the token that completes `<tag>` is inside (what it predicts is), the one that completes
/// `</tag>` is outside.
struct Scope {
  Where where = Where::all;
  std::int64_t count = 0;           ///< onset: how many generated tokens
  std::int64_t begin = 0, end = 0;  ///< span
  std::string tag{};                ///< inside_tag, outside_tag: e.g. "thinking"
  bool include_bos = false;         ///< position 0 is an attention sink: left alone unless asked
  friend bool operator==(const Scope&, const Scope&) = default;
  /// @throws Error(argument) for a scope that can match nothing.
  void validate(std::string_view where) const;
  /// In words: "onset 3", "span [4, 9)".
  std::string describe() const;
};

/// What happens to one feature's activation f.
enum class FeatureAction {
  nudge,   ///< f + value
  pin,     ///< value
  mul,     ///< f * value
  clamp,   ///< min(max(f, low), high)
  cap,     ///< min(f, high)
  ablate,  ///< 0
};

template <>
struct EnumTable<FeatureAction> {
  static constexpr std::string_view name = "feature edit";
  static constexpr EnumEntry<FeatureAction> entries[] = {
      {FeatureAction::nudge, "nudge"}, {FeatureAction::pin, "pin"}, {FeatureAction::mul, "mul"},
      {FeatureAction::clamp, "clamp"}, {FeatureAction::cap, "cap"}, {FeatureAction::ablate, "ablate"}};
};

/// On which side of its target a projection is moved.
enum class Side {
  below,  ///< raised to the target when below it
  above,  ///< lowered to the target when above it
  both,   ///< set to the target always
};

template <>
struct EnumTable<Side> {
  static constexpr std::string_view name = "side";
  static constexpr EnumEntry<Side> entries[] = {{Side::below, "below"}, {Side::above, "above"}, {Side::both, "both"}};
};

/// What a custom edit gets: the tokens of one row that its scope and condition select.
struct CustomContext {
  HookPoint point;
  at::Tensor h;         ///< [tokens, width], f32, a copy
  at::Tensor position;  ///< [tokens], i64
  SequenceId sequence = 0;
};

using CustomFunction = std::function<at::Tensor(const CustomContext&)>;

/// The edits. h is one token's activation at the hook point, |h| its norm on arrival there (before any edit), v^ =
/// v/|v| and s `Edit::strength`.
namespace op {

/// h + s v; with Unit::residual_norm h + s |h| v^.
/// Activation addition (Turner et al. 2023, arXiv:2308.10248; CAA, Rimsky et al. 2023, arXiv:2312.06681).
struct Add {
  at::Tensor vector;  ///< v [width], f32
};

/// h + s (f' - f) d: f is the feature's activation, d its decoder row. Consecutive feature edits of one SAE at one
/// point share one encode: f is read before the first of them, they act on it in order, and the whole change is
/// decoded at the end, which equals "encode, edit, decode, add the error back" (SAELens `use_error_term`, the hosted
/// Goodfire service) without computing any other feature. `nudge` alone needs no encode. Where the SAE normalises its
/// input, the change is scaled back as its decoder's output is. Unit::residual_norm makes |f' d| the share of |h|.
struct Feature {
  Sae sae;
  std::int64_t index = 0;
  FeatureAction action = FeatureAction::nudge;
  double value = 0;  ///< nudge, pin, mul
  double low = -std::numeric_limits<double>::infinity(),
         high = std::numeric_limits<double>::infinity();  ///< clamp, cap
  double max_activation = 0;  ///< what Unit::max_activation multiplies `value`, `low` and `high` by
};

/// h + s (c - 1)(h.v^) v^: orthogonal-decomposition scaling (Neuronpedia ORTHOGONAL_DECOMP); c = 0 projects v out
/// (directional ablation, Arditi et al. 2024, arXiv:2406.11717).
struct ScaleAlong {
  at::Tensor vector;
  double factor = 0;
};

/// h + s (t - h.v^) v^ where h.v^ lies on `side` of the target t. `below` is activation capping (Lu et al. 2026, "The
/// Assistant Axis"), `above` Neuronpedia's PROJECTION_CAP. With Unit::residual_norm t is a share of |h|.
struct ProjectTo {
  at::Tensor vector;
  double target = 0;
  Side side = Side::below;
};

/// Rotates the part of h in the plane of a and b by s * angle, a towards b; the rest and |h| stay. (Angular Steering,
/// Vu and Nguyen 2025, with the angle given and not the direction.)
struct Rotate {
  at::Tensor a, b;   ///< span the plane; need not be orthogonal
  double angle = 0;  ///< radians
};

/// h + s a relu(w.h + b) z.
struct GatedAdd {
  at::Tensor w;
  double b = 0;
  at::Tensor z;
  double a = 1;
};

/// h + s (decode(encode(h)) - h); with the error term, plus h - decode(encode(h)), which leaves h up to rounding.
/// Reads every feature: a full encode a token.
struct Splice {
  Sae sae;
  bool with_error = false;
};

/// Scales h down to |h| = limit where it is longer; with Unit::residual_norm the limit is a multiple of the norm the
/// token had when it arrived at the hook point.
struct NormCap {
  double limit = 0;
};

/// Scales h to the norm the token had when it arrived at the hook point, undoing what the edits before it did to |h|.
struct KeepNorm {};

/// h + s (f(h) - h) for a function of the caller's; h' = f(h) at s = 1.
struct Custom {
  std::string name;                                ///< for the audit and messages
  std::shared_ptr<const CustomFunction> function;  ///< returns [tokens, width]; copies of an edit share it
};

}  // namespace op

using Op = std::variant<op::Add, op::Feature, op::ScaleAlong, op::ProjectTo, op::Rotate, op::GatedAdd, op::Splice,
                        op::NormCap, op::KeepNorm, op::Custom>;

/// One edit, a value.
struct Edit {
  HookPoint point;
  Op op;
  double strength = 1;  ///< multiplies what the edit changes; 0 leaves every bit alone
  Unit unit = Unit::raw;
  Scope scope{};
  std::optional<Condition> when{};
  std::string name{};  ///< what the audit calls it; empty: `describe()`

  /// The kind, as JSON and messages name it: "add", "nudge", ..., "project_out", "custom".
  std::string_view kind() const;
  /// In words: "nudge 1234 by 0.6".
  std::string describe() const;
  /// @throws Error(argument | shape | config) for what can be wrong without knowing the model: NaN or infinite
  ///         numbers, an empty, NaN or zero vector, a feature outside its SAE (giving the range), a unit the kind
  ///         does not take, a scope that can match nothing, an SAE whose width does not fit itself.
  void validate(std::string_view where) const;
  /// Same kind, numbers, vectors (by content) and SAEs (by hash). Custom functions differ always, but from their copy.
  friend bool operator==(const Edit&, const Edit&);
};

}  // namespace steer
