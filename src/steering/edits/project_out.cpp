// h - s (h.v^) v^: directional ablation (Arditi et al. 2024, arXiv:2406.11717).
#include <ATen/TensorOperators.h>

#include "steering/edits/operation.hpp"

namespace steer {
namespace steering::detail {
namespace {

struct ProjectOut final : Kind<ProjectOut> {
  static constexpr std::string_view kKind = "project_out";
  at::Tensor vector;

  template <class Self, class V>
  static void parameters(Self& self, const V& v) {
    v("vector", self.vector);
  }
  std::string describe() const override { return ""; }
  bool takes(StrengthUnit) const override { return false; }
  void validate(StrengthUnit, std::string_view where) const override { require_direction(vector, where); }
  bool identity() const override { return false; }
  Lowered lower(const Edit& edit) const override {
    const at::Tensor v = unit_vector(vector);
    return {.channels = {{.reading = Reading::dot, .read = v, .write = v}},
            .change = {.gain = {{-1}}, .strength = static_cast<float>(edit.strength)}};
  }
  /// Target and strength stay, along a random direction.
  std::optional<Edit> elsewhere(const Edit& edit, Rng& rng) const override {
    ProjectOut other = *this;
    other.vector = gaussian_like(vector, rng);
    return with_operation(edit, std::move(other), "random direction");
  }
  std::optional<Edit> noise(const Edit& edit, Rng& rng) const override { return elsewhere(edit, rng); }
};

}  // namespace

extern const Factory project_out_kind;
constinit const Factory project_out_kind{ProjectOut::kKind, make_kind<ProjectOut>};

}  // namespace steering::detail

Steering& Steering::project_out(const at::Tensor& vector, const HookPoint& at, const EditOptions& options) {
  steering::detail::ProjectOut op;
  op.vector = vector;
  return push(steering::detail::edit_at(std::move(op), at, 1, options, "Steering::project_out"));
}

}  // namespace steer
