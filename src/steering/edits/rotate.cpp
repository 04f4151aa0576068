// Rotates the part of h in the plane of a and b by s * radians, a towards b; the rest and |h| stay.
#include <ATen/TensorOperators.h>
#include <ATen/ops/dot.h>

#include <cmath>

#include "core/format_text.hpp"
#include "steering/edits/operation.hpp"

namespace steer {
namespace steering::detail {
namespace {

struct Rotate final : Kind<Rotate> {
  static constexpr std::string_view kKind = "rotate";
  at::Tensor a, b;  ///< span the plane; need not be orthogonal
  double radians = 0;

  template <class Self, class V>
  static void parameters(Self& self, const V& v) {
    v("a", self.a);
    v("b", self.b);
    v("radians", self.radians);
  }
  std::string describe() const override { return format_text(" by {} rad", radians); }
  bool takes(StrengthUnit) const override { return false; }
  void validate(StrengthUnit, std::string_view where) const override {
    require_plane(a, b, where);
    require_finite(radians, "angle", where);
  }
  bool identity() const override { return radians == 0; }
  Lowered lower(const Edit& edit) const override {
    const at::Tensor u = unit_vector(a), raw = b.to(at::kDouble);
    const at::Tensor w = unit_vector(raw - at::dot(u, raw) * u);
    const double angle = edit.strength * radians;
    const auto c = static_cast<float>(std::cos(angle) - 1), s = static_cast<float>(std::sin(angle));
    return {.channels = {{.reading = Reading::dot, .read = u, .write = u},
                         {.reading = Reading::dot, .read = w, .write = w}},
            .change = {.pair = true, .gain = {{c, -s}, {s, c}}}};
  }
  std::optional<Edit> elsewhere(const Edit& edit, Rng& rng) const override {
    Rotate other = *this;
    other.a = gaussian_like(a, rng);
    other.b = gaussian_like(b, rng);
    return with_operation(edit, std::move(other), "random plane");
  }
  std::optional<Edit> noise(const Edit& edit, Rng& rng) const override { return elsewhere(edit, rng); }
};

}  // namespace

extern const Factory rotate_kind;
constinit const Factory rotate_kind{Rotate::kKind, make_kind<Rotate>};

}  // namespace steering::detail

Steering& Steering::rotate(const at::Tensor& a, const at::Tensor& b, const HookPoint& at, double radians,
                           const EditOptions& options) {
  steering::detail::Rotate op;
  op.a = a;
  op.b = b;
  op.radians = radians;
  return push(steering::detail::edit_at(std::move(op), at, 1, options, "Steering::rotate"));
}

}  // namespace steer
