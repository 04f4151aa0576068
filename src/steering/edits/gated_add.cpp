// h + s gain relu(w.h + b) z.
#include <ATen/TensorOperators.h>

#include "core/format_text.hpp"
#include "steering/edits/operation.hpp"

namespace steer {
namespace steering::detail {
namespace {

struct GatedAdd final : Kind<GatedAdd> {
  static constexpr std::string_view kKind = "gated_add";
  at::Tensor gate, vector;  ///< w, z
  double gate_bias = 0, gain = 1;

  template <class Self, class V>
  static void parameters(Self& self, const V& v) {
    v("gate", self.gate);
    v("gate_bias", self.gate_bias);
    v("vector", self.vector);
    v("gain", self.gain);
  }
  std::string describe() const override { return format_text(" by {}", gain); }
  bool takes(StrengthUnit) const override { return false; }
  void validate(StrengthUnit, std::string_view where) const override {
    require_direction(gate, where);
    require_direction(vector, where);
    require_one_width(gate, vector, where);
    require_finite(gate_bias, "gate bias", where);
    require_finite(gain, "gain", where);
  }
  bool identity() const override { return gain == 0; }
  Lowered lower(const Edit& edit) const override {
    return {.channels = {{.reading = Reading::feature, .read = gate, .write = vector, .offset = gate_bias}},
            .change = {.gain = {{static_cast<float>(gain)}}, .strength = static_cast<float>(edit.strength)}};
  }
  /// The gate stays; what it adds points elsewhere.
  std::optional<Edit> elsewhere(const Edit& edit, Rng& rng) const override {
    GatedAdd other = *this;
    other.vector = gaussian_like(vector, rng);
    return with_operation(edit, std::move(other), "random vector");
  }
  std::optional<Edit> noise(const Edit& edit, Rng& rng) const override { return elsewhere(edit, rng); }
};

}  // namespace

extern const Factory gated_add_kind;
constinit const Factory gated_add_kind{GatedAdd::kKind, make_kind<GatedAdd>};

}  // namespace steering::detail

Steering& Steering::gated_add(const at::Tensor& w, double b, const at::Tensor& z, const HookPoint& at, double a,
                              const EditOptions& options) {
  steering::detail::GatedAdd op;
  op.gate = w;
  op.gate_bias = b;
  op.vector = z;
  op.gain = a;
  return push(steering::detail::edit_at(std::move(op), at, 1, options, "Steering::gated_add"));
}

}  // namespace steer
