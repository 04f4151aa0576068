// f' = min(max(f, low), high).
#include "core/format_text.hpp"
#include "steering/edits/feature.hpp"

namespace steer {
namespace steering::detail {
namespace {

struct Clamp final : FeatureKind<Clamp> {
  static constexpr std::string_view kKind = "clamp";
  static constexpr bool kReads = true, kScaled = true;
  double low = -kUnbounded, high = kUnbounded;

  template <class Self, class V>
  static void numbers(Self& self, const V& v) {
    v.sparse("low", self.low, -kUnbounded);
    v.sparse("high", self.high, kUnbounded);
  }
  void check(std::string_view where) const {
    require(!std::isnan(low) && !std::isnan(high) && low <= high, ErrorCode::argument, where,
            "expected bounds with low <= high but got [{}, {}]", low, high);
  }
  std::string describe() const override { return format_text(" {} to [{}, {}]", feature, low, high); }
  bool identity() const override { return false; }
  Change change(double unit) const {
    return {.low = static_cast<float>(low * unit), .high = static_cast<float>(high * unit)};
  }
};

}  // namespace

extern const Factory clamp_kind;
constinit const Factory clamp_kind{Clamp::kKind, make_kind<Clamp>};

}  // namespace steering::detail

Steering& Steering::clamp(const Sae& sae, std::int64_t feature, double low, double high, const EditOptions& options) {
  steering::detail::Clamp op;
  op.low = low;
  op.high = high;
  return push(steering::detail::feature_edit(std::move(op), sae, feature, options, "Steering::clamp"));
}

}  // namespace steer
