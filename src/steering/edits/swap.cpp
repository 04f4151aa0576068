// Exchanges the parts of h along a^ and b^: what pointed along one points along the other, the rest and |h| stay. That
// is the reflection h - 2 s (h.n) n about n = (a^ - b^) / |a^ - b^|; for orthogonal a and b the two projections trade
// places.
#include <ATen/TensorOperators.h>

#include "steering/edits/operation.hpp"

namespace steer {
namespace steering::detail {
namespace {

struct Swap final : Kind<Swap> {
  static constexpr std::string_view kKind = "swap";
  at::Tensor a, b;

  template <class Self, class V>
  static void parameters(Self& self, const V& v) {
    v("a", self.a);
    v("b", self.b);
  }
  std::string describe() const override { return ""; }
  bool takes(StrengthUnit) const override { return false; }
  void validate(StrengthUnit, std::string_view where) const override { require_plane(a, b, where); }
  bool identity() const override { return false; }
  Lowered lower(const Edit& edit) const override {
    const at::Tensor n = unit_vector(unit_vector(a) - unit_vector(b));
    return {.channels = {{.reading = Reading::dot, .read = n, .write = n}},
            .change = {.gain = {{-2}}, .strength = static_cast<float>(edit.strength)}};
  }
  std::optional<Edit> elsewhere(const Edit& edit, Rng& rng) const override {
    Swap other = *this;
    other.a = gaussian_like(a, rng);
    other.b = gaussian_like(b, rng);
    return with_operation(edit, std::move(other), "random directions");
  }
  std::optional<Edit> noise(const Edit& edit, Rng& rng) const override { return elsewhere(edit, rng); }
};

}  // namespace

extern const Factory swap_kind;
constinit const Factory swap_kind{Swap::kKind, make_kind<Swap>};

}  // namespace steering::detail

Steering& Steering::swap(const at::Tensor& a, const at::Tensor& b, const HookPoint& at, const EditOptions& options) {
  steering::detail::Swap op;
  op.a = a;
  op.b = b;
  return push(steering::detail::edit_at(std::move(op), at, 1, options, "Steering::swap"));
}

}  // namespace steer
