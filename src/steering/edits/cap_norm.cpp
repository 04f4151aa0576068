// Scales h down to |h| = limit where it is longer; in StrengthUnit::residual_norm the limit is a multiple of the norm
// on arrival.
#include <ATen/TensorOperators.h>

#include <cmath>

#include "core/format_text.hpp"
#include "steering/edits/operation.hpp"

namespace steer {
namespace steering::detail {
namespace {

struct CapNorm final : Kind<CapNorm> {
  static constexpr std::string_view kKind = "cap_norm";
  double limit = 0;

  template <class Self, class V>
  static void parameters(Self& self, const V& v) {
    v("limit", self.limit);
  }
  std::string describe() const override { return format_text(" at {}", limit); }
  bool takes(StrengthUnit unit) const override { return unit == StrengthUnit::residual_norm; }
  void validate(StrengthUnit, std::string_view where) const override {
    require(std::isfinite(limit) && limit > 0, ErrorCode::argument, where, "expected a norm limit above 0 but got {}",
            limit);
  }
  bool identity() const override { return false; }
  Lowered lower(const Edit& edit) const override {
    return {.channels = {{.reading = Reading::norm}},
            .change = {.high = static_cast<float>(limit), .strength = static_cast<float>(edit.strength)}};
  }
  std::optional<Edit> elsewhere(const Edit&, Rng&) const override { return std::nullopt; }
  std::optional<Edit> noise(const Edit&, Rng&) const override { return std::nullopt; }
};

}  // namespace

extern const Factory cap_norm_kind;
constinit const Factory cap_norm_kind{CapNorm::kKind, make_kind<CapNorm>};

}  // namespace steering::detail

Steering& Steering::cap_norm(const HookPoint& at, double limit, const EditOptions& options) {
  steering::detail::CapNorm op;
  op.limit = limit;
  return push(steering::detail::edit_at(std::move(op), at, 1, options, "Steering::cap_norm"));
}

}  // namespace steer
