// f' = min(f, high).
#include "core/format_text.hpp"
#include "steering/edits/feature.hpp"

namespace steer {
namespace steering::detail {
namespace {

struct Cap final : FeatureKind<Cap> {
  static constexpr std::string_view kKind = "cap";
  static constexpr bool kReads = true, kScaled = true;
  double high = kUnbounded;

  template <class Self, class V>
  static void numbers(Self& self, const V& v) {
    v.sparse("high", self.high, kUnbounded);
  }
  void check(std::string_view where) const {
    require(!std::isnan(high), ErrorCode::argument, where, "expected a bound but got NaN");
  }
  std::string describe() const override { return format_text(" {} at {}", feature, high); }
  bool identity() const override { return false; }
  Change change(double unit) const { return {.high = static_cast<float>(high * unit)}; }
};

}  // namespace

extern const Factory cap_kind;
constinit const Factory cap_kind{Cap::kKind, make_kind<Cap>};

}  // namespace steering::detail

Steering& Steering::cap(const Sae& sae, std::int64_t feature, double high, const EditOptions& options) {
  steering::detail::Cap op;
  op.high = high;
  return push(steering::detail::feature_edit(std::move(op), sae, feature, options, "Steering::cap"));
}

}  // namespace steer
