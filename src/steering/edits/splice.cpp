// h + s (decode(encode(h)) - h); with the error term, plus h - decode(encode(h)), which leaves h up to rounding.
#include <ATen/TensorOperators.h>

#include "steering/edits/operation.hpp"

namespace steer {
namespace steering::detail {
namespace {

struct Splice final : Kind<Splice> {
  static constexpr std::string_view kKind = "splice";
  std::optional<Sae> sae;
  bool with_error = false;

  template <class Self, class V>
  static void parameters(Self& self, const V& v) {
    v("sae", self.sae);
    v("with_error", self.with_error, false);
  }
  std::string describe() const override { return with_error ? " with error" : ""; }
  bool takes(StrengthUnit) const override { return false; }
  void validate(StrengthUnit, std::string_view where) const override {
    require(!sae->config().transcoder, ErrorCode::unsupported, where,
            "expected an SAE that reconstructs its input but got a transcoder");
  }
  bool identity() const override { return false; }
  Lowered lower(const Edit& edit) const override {
    const auto run = [sae = *sae, with_error = with_error](const CustomContext& at) {
      const at::Tensor x = sae.reconstruct(at.h.to(sae.device())).to(at.h.device()).reshape(at.h.sizes());
      return with_error ? x + (at.h - x) : x;
    };
    return {.change = {.strength = static_cast<float>(edit.strength)},
            .function = std::make_shared<const CustomFunction>(run),
            .sae = sae};
  }
  std::optional<Edit> elsewhere(const Edit&, Rng&) const override { return std::nullopt; }
  std::optional<Edit> noise(const Edit&, Rng&) const override { return std::nullopt; }
};

}  // namespace

extern const Factory splice_kind;
constinit const Factory splice_kind{Splice::kKind, make_kind<Splice>};

}  // namespace steering::detail

Steering& Steering::splice(const Sae& sae, bool with_error, const EditOptions& options) {
  constexpr std::string_view where = "Steering::splice";
  require(options.max_activation == 0, ErrorCode::argument, where,
          "expected EditOptions without max_activation, which only edits of one feature look at");
  steering::detail::Splice op;
  op.sae = sae;
  op.with_error = with_error;
  const HookPoint point = steering::detail::place_of(sae, options.point, /*output=*/true, where);
  return push(steering::detail::edit_of(std::move(op), point, 1, options, where));
}

}  // namespace steer
