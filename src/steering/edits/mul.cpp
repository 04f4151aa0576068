// f' = value f.
#include "core/format_text.hpp"
#include "steering/edits/feature.hpp"

namespace steer {
namespace steering::detail {
namespace {

struct Mul final : FeatureKind<Mul> {
  static constexpr std::string_view kKind = "mul";
  static constexpr bool kReads = true, kScaled = false;
  double value = 1;

  template <class Self, class V>
  static void numbers(Self& self, const V& v) {
    v("value", self.value);
  }
  void check(std::string_view where) const { require_finite(value, "factor", where); }
  std::string describe() const override { return format_text(" {} by {}", feature, value); }
  bool identity() const override { return value == 1; }
  Change change(double) const { return {.gain = {{static_cast<float>(value - 1)}}}; }
};

}  // namespace

extern const Factory mul_kind;
constinit const Factory mul_kind{Mul::kKind, make_kind<Mul>};

}  // namespace steering::detail

Steering& Steering::mul(const Sae& sae, std::int64_t feature, double factor, const EditOptions& options) {
  steering::detail::Mul op;
  op.value = factor;
  return push(steering::detail::feature_edit(std::move(op), sae, feature, options, "Steering::mul"));
}

}  // namespace steer
