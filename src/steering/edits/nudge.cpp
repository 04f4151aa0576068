// f' = f + value.
#include "core/format_text.hpp"
#include "steering/edits/feature.hpp"

namespace steer {
namespace steering::detail {
namespace {

struct Nudge final : FeatureKind<Nudge> {
  static constexpr std::string_view kKind = "nudge";
  static constexpr bool kReads = false, kScaled = true;
  double value = 0;

  template <class Self, class V>
  static void numbers(Self& self, const V& v) {
    v("value", self.value);
  }
  void check(std::string_view where) const { require_finite(value, "value", where); }
  std::string describe() const override { return format_text(" {} by {}", feature, value); }
  bool identity() const override { return value == 0; }
  Change change(double unit) const { return {.constant = static_cast<float>(value * unit)}; }
  std::optional<Edit> noise(const Edit& edit, Rng& rng) const override {
    const double unit = edit.unit == StrengthUnit::max_activation ? max_activation : 1;
    const double length = edit.unit == StrengthUnit::residual_norm ? 1 : unit * row_norm(feature);
    return noise_of_size(edit, sae->d_out(), std::abs(value) * length, rng);
  }
};

}  // namespace

extern const Factory nudge_kind;
constinit const Factory nudge_kind{Nudge::kKind, make_kind<Nudge>};

}  // namespace steering::detail

Steering& Steering::nudge(const Sae& sae, std::int64_t feature, double value, const EditOptions& options) {
  steering::detail::Nudge op;
  op.value = value;
  return push(steering::detail::feature_edit(std::move(op), sae, feature, options, "Steering::nudge"));
}

}  // namespace steer
