// f' = value.
#include "core/format_text.hpp"
#include "steering/edits/feature.hpp"

namespace steer {
namespace steering::detail {
namespace {

struct Pin final : FeatureKind<Pin> {
  static constexpr std::string_view kKind = "pin";
  static constexpr bool kReads = true, kScaled = true;
  double value = 0;

  template <class Self, class V>
  static void numbers(Self& self, const V& v) {
    v("value", self.value);
  }
  void check(std::string_view where) const { require_finite(value, "value", where); }
  std::string describe() const override { return format_text(" {} to {}", feature, value); }
  bool identity() const override { return false; }
  Change change(double unit) const { return {.gain = {{-1}}, .constant = static_cast<float>(value * unit)}; }
};

}  // namespace

extern const Factory pin_kind;
constinit const Factory pin_kind{Pin::kKind, make_kind<Pin>};

}  // namespace steering::detail

Steering& Steering::pin(const Sae& sae, std::int64_t feature, double value, const EditOptions& options) {
  steering::detail::Pin op;
  op.value = value;
  return push(steering::detail::feature_edit(std::move(op), sae, feature, options, "Steering::pin"));
}

}  // namespace steer
