// f' = 0.
#include "core/format_text.hpp"
#include "steering/edits/feature.hpp"

namespace steer {
namespace steering::detail {
namespace {

struct Ablate final : FeatureKind<Ablate> {
  static constexpr std::string_view kKind = "ablate";
  static constexpr bool kReads = true, kScaled = false;

  template <class Self, class V>
  static void numbers(Self&, const V&) {}
  void check(std::string_view) const {}
  std::string describe() const override { return format_text(" {}", feature); }
  bool identity() const override { return false; }
  Change change(double) const { return {.gain = {{-1}}}; }
};

}  // namespace

extern const Factory ablate_kind;
constinit const Factory ablate_kind{Ablate::kKind, make_kind<Ablate>};

}  // namespace steering::detail

Steering& Steering::ablate(const Sae& sae, std::int64_t feature, const EditOptions& options) {
  steering::detail::Ablate op;
  return push(steering::detail::feature_edit(std::move(op), sae, feature, options, "Steering::ablate"));
}

}  // namespace steer
