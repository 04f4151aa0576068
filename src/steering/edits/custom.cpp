// h + s (f(h) - h) for a function of the caller's.
#include <ATen/TensorOperators.h>

#include "steering/edits/operation.hpp"

namespace steer {
namespace steering::detail {
namespace {

struct Custom final : Kind<Custom> {
  static constexpr std::string_view kKind = "custom";
  std::shared_ptr<const CustomFunction> function;

  template <class Self, class V>
  static void parameters(Self& self, const V& v) {
    v("function", self.function);
  }
  std::string describe() const override { return ""; }
  bool takes(StrengthUnit) const override { return false; }
  void validate(StrengthUnit, std::string_view where) const override {
    require(function && *function, ErrorCode::argument, where, "expected a function for a custom edit but got none");
  }
  bool identity() const override { return false; }
  Lowered lower(const Edit& edit) const override {
    return {.change = {.strength = static_cast<float>(edit.strength)}, .function = function};
  }
  std::optional<Edit> elsewhere(const Edit&, Rng&) const override { return std::nullopt; }
  std::optional<Edit> noise(const Edit&, Rng&) const override { return std::nullopt; }
};

}  // namespace

extern const Factory custom_kind;
constinit const Factory custom_kind{Custom::kKind, make_kind<Custom>};

}  // namespace steering::detail

Steering& Steering::custom(CustomFunction function, const HookPoint& at, const EditOptions& options) {
  steering::detail::Custom op;
  op.function = std::make_shared<const CustomFunction>(std::move(function));
  return push(steering::detail::edit_at(std::move(op), at, 1, options, "Steering::custom"));
}

}  // namespace steer
