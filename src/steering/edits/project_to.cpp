// h + s (t - h.v^) v^ where h.v^ lies on `side` of the target t.
#include <ATen/TensorOperators.h>

#include "core/format_text.hpp"
#include "steering/edits/operation.hpp"

namespace steer {
namespace steering::detail {
namespace {

struct ProjectTo final : Kind<ProjectTo> {
  static constexpr std::string_view kKind = "project_to";
  at::Tensor vector;
  double target = 0;
  TargetSide side = TargetSide::below;

  template <class Self, class V>
  static void parameters(Self& self, const V& v) {
    v("vector", self.vector);
    v("target", self.target);
    v("side", self.side, TargetSide::below);
  }
  std::string describe() const override { return format_text(" {} from {}", target, to_string(side)); }
  bool takes(StrengthUnit unit) const override { return unit == StrengthUnit::residual_norm; }
  void validate(StrengthUnit, std::string_view where) const override {
    require_direction(vector, where);
    require_finite(target, "target", where);
  }
  bool identity() const override { return false; }
  Lowered lower(const Edit& edit) const override {
    const at::Tensor v = unit_vector(vector);
    const auto t = static_cast<float>(target);
    Change change{.strength = static_cast<float>(edit.strength)};
    if (side == TargetSide::both) change.gain[0][0] = -1, change.constant = t;
    if (side == TargetSide::below) change.low = t;
    if (side == TargetSide::above) change.high = t;
    return {.channels = {{.reading = Reading::dot, .read = v, .write = v}}, .change = change};
  }
  /// Target and strength stay, along a random direction.
  std::optional<Edit> elsewhere(const Edit& edit, Rng& rng) const override {
    ProjectTo other = *this;
    other.vector = gaussian_like(vector, rng);
    return with_operation(edit, std::move(other), "random direction");
  }
  std::optional<Edit> noise(const Edit& edit, Rng& rng) const override { return elsewhere(edit, rng); }
};

}  // namespace

extern const Factory project_to_kind;
constinit const Factory project_to_kind{ProjectTo::kKind, make_kind<ProjectTo>};

}  // namespace steering::detail

Steering& Steering::project_to(const at::Tensor& vector, const HookPoint& at, double target, TargetSide side,
                               const EditOptions& options) {
  steering::detail::ProjectTo op;
  op.vector = vector;
  op.target = target;
  op.side = side;
  return push(steering::detail::edit_at(std::move(op), at, 1, options, "Steering::project_to"));
}

}  // namespace steer
