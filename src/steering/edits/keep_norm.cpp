// Scales h to the norm it arrived with, undoing what the edits before did to |h|.
#include <ATen/TensorOperators.h>

#include "steering/edits/operation.hpp"

namespace steer {
namespace steering::detail {
namespace {

struct KeepNorm final : Kind<KeepNorm> {
  static constexpr std::string_view kKind = "keep_norm";

  template <class Self, class V>
  static void parameters(Self&, const V&) {}
  std::string describe() const override { return ""; }
  bool takes(StrengthUnit) const override { return false; }
  void validate(StrengthUnit, std::string_view) const override {}
  bool identity() const override { return false; }
  Lowered lower(const Edit& edit) const override {
    return {.channels = {{.reading = Reading::norm}},
            .change = {.by_norm = true, .gain = {{-1}}, .constant = 1, .strength = static_cast<float>(edit.strength)}};
  }
  std::optional<Edit> elsewhere(const Edit&, Rng&) const override { return std::nullopt; }
  std::optional<Edit> noise(const Edit&, Rng&) const override { return std::nullopt; }
};

}  // namespace

extern const Factory keep_norm_kind;
constinit const Factory keep_norm_kind{KeepNorm::kKind, make_kind<KeepNorm>};

}  // namespace steering::detail

Steering& Steering::keep_norm(const HookPoint& at, const EditOptions& options) {
  return push(steering::detail::edit_at(steering::detail::KeepNorm(), at, 1, options, "Steering::keep_norm"));
}

}  // namespace steer
