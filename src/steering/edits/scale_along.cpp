// h + s (factor - 1)(h.v^) v^: orthogonal-decomposition scaling (Neuronpedia ORTHOGONAL_DECOMP).
#include <ATen/TensorOperators.h>

#include "core/format_text.hpp"
#include "steering/edits/operation.hpp"

namespace steer {
namespace steering::detail {
namespace {

struct ScaleAlong final : Kind<ScaleAlong> {
  static constexpr std::string_view kKind = "scale_along";
  at::Tensor vector;
  double factor = 0;

  template <class Self, class V>
  static void parameters(Self& self, const V& v) {
    v("vector", self.vector);
    v("factor", self.factor);
  }
  std::string describe() const override { return format_text(" by {}", factor); }
  bool takes(StrengthUnit) const override { return false; }
  void validate(StrengthUnit, std::string_view where) const override {
    require_direction(vector, where);
    require_finite(factor, "factor", where);
  }
  bool identity() const override { return factor == 1; }
  Lowered lower(const Edit& edit) const override {
    const at::Tensor v = unit_vector(vector);
    return {.channels = {{.reading = Reading::dot, .read = v, .write = v}},
            .change = {.gain = {{static_cast<float>(factor - 1)}}, .strength = static_cast<float>(edit.strength)}};
  }
  /// Target and strength stay, along a random direction.
  std::optional<Edit> elsewhere(const Edit& edit, Rng& rng) const override {
    ScaleAlong other = *this;
    other.vector = gaussian_like(vector, rng);
    return with_operation(edit, std::move(other), "random direction");
  }
  std::optional<Edit> noise(const Edit& edit, Rng& rng) const override { return elsewhere(edit, rng); }
};

}  // namespace

extern const Factory scale_along_kind;
constinit const Factory scale_along_kind{ScaleAlong::kKind, make_kind<ScaleAlong>};

}  // namespace steering::detail

Steering& Steering::scale_along(const at::Tensor& vector, const HookPoint& at, double factor,
                                const EditOptions& options) {
  steering::detail::ScaleAlong op;
  op.vector = vector;
  op.factor = factor;
  return push(steering::detail::edit_at(std::move(op), at, 1, options, "Steering::scale_along"));
}

}  // namespace steer
