// h + s v; with StrengthUnit::residual_norm h + s |h| v^.
#include <ATen/core/Tensor.h>

#include "steering/edits/operation.hpp"

namespace steer {
namespace steering::detail {
namespace {

struct Add final : Kind<Add> {
  static constexpr std::string_view kKind = "add";
  at::Tensor vector;

  template <class Self, class V>
  static void parameters(Self& self, const V& v) {
    v("vector", self.vector);
  }
  std::string describe() const override { return ""; }
  bool takes(StrengthUnit unit) const override { return unit == StrengthUnit::residual_norm; }
  void validate(StrengthUnit unit, std::string_view where) const override {
    if (unit == StrengthUnit::residual_norm) require_direction(vector, where);
  }
  bool identity() const override { return false; }
  Lowered lower(const Edit& edit) const override {
    return {.channels = {{.write = vector}}, .change = {.constant = 1, .strength = static_cast<float>(edit.strength)}};
  }
  std::optional<Edit> elsewhere(const Edit& edit, Rng& rng) const override {
    Add other;
    other.vector = gaussian_like(vector, rng);
    return with_operation(edit, std::move(other), "random vector");
  }
  std::optional<Edit> noise(const Edit& edit, Rng& rng) const override {
    return noise_of_size(edit, vector.numel(), edit.unit == StrengthUnit::residual_norm ? 1 : norm_of(vector), rng);
  }
};

}  // namespace

extern const Factory add_kind;
constinit const Factory add_kind{Add::kKind, make_kind<Add>};

}  // namespace steering::detail

Steering& Steering::add(const at::Tensor& vector, const HookPoint& at, double strength, const EditOptions& options) {
  constexpr std::string_view where = "Steering::add";
  steering::detail::Add op;
  op.vector = vector;
  return push(steering::detail::edit_at(std::move(op), at, strength, options, where));
}

}  // namespace steer
