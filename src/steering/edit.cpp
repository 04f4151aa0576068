#include <steer/steering/edit.hpp>

#include <cmath>

#include <steer/core/error.hpp>

#include "steering/checks.hpp"

namespace steer {
namespace {

template <class... F>
struct Match : F... {
  using F::operator()...;
};

/// The largest share of one direction in the other that still spans a plane.
constexpr double kParallel = 1 - 1e-6;

void require_direction(const at::Tensor& vector, std::string_view what, std::string_view where) {
  const at::Tensor own = steering::detail::own_vector(vector, what, where);
  require(steering::detail::norm_of(own) > 0, ErrorCode::argument, where,
          "expected {} other than 0 but got the zero vector", what);
}

void require_width(const at::Tensor& a, const at::Tensor& b, std::string_view where) {
  require(a.numel() == b.numel(), ErrorCode::shape, where, "expected two vectors of one width but got {} and {}",
          a.numel(), b.numel());
}

void validate_feature(const op::Feature& f, Unit unit, std::string_view where) {
  steering::detail::require_feature(f.sae, f.index, where);
  steering::detail::require_finite(f.value, "value", where);
  if (f.action == FeatureAction::clamp || f.action == FeatureAction::cap)
    require(!std::isnan(f.low) && !std::isnan(f.high) && f.low <= f.high, ErrorCode::argument, where,
            "expected bounds with low <= high but got [{}, {}]", f.low, f.high);
  if (unit == Unit::max_activation)
    require(std::isfinite(f.max_activation) && f.max_activation > 0, ErrorCode::argument, where,
            "expected the maximum activation of feature {} for Unit::max_activation but got {}; set "
            "EditOptions::max_activation",
            f.index, f.max_activation);
}

/// Units that a kind can be measured in, besides raw.
bool takes_unit(const Op& op, Unit unit) {
  if (unit == Unit::raw) return true;
  return std::visit(
      Match{[&](const op::Add&) { return unit == Unit::residual_norm; },
            [&](const op::Feature& f) { return f.action != FeatureAction::mul && f.action != FeatureAction::ablate; },
            [&](const op::ProjectTo&) { return unit == Unit::residual_norm; },
            [&](const op::NormCap&) { return unit == Unit::residual_norm; }, [](const auto&) { return false; }},
      op);
}

bool same_op(const op::Add& a, const op::Add& b) { return steering::detail::same_tensor(a.vector, b.vector); }
bool same_op(const op::Feature& a, const op::Feature& b) {
  return a.index == b.index && a.action == b.action && a.value == b.value && a.low == b.low && a.high == b.high &&
         a.max_activation == b.max_activation && a.sae.hash() == b.sae.hash();
}
bool same_op(const op::ScaleAlong& a, const op::ScaleAlong& b) {
  return a.factor == b.factor && steering::detail::same_tensor(a.vector, b.vector);
}
bool same_op(const op::ProjectTo& a, const op::ProjectTo& b) {
  return a.target == b.target && a.side == b.side && steering::detail::same_tensor(a.vector, b.vector);
}
bool same_op(const op::Rotate& a, const op::Rotate& b) {
  return a.angle == b.angle && steering::detail::same_tensor(a.a, b.a) && steering::detail::same_tensor(a.b, b.b);
}
bool same_op(const op::GatedAdd& a, const op::GatedAdd& b) {
  return a.b == b.b && a.a == b.a && steering::detail::same_tensor(a.w, b.w) && steering::detail::same_tensor(a.z, b.z);
}
bool same_op(const op::Splice& a, const op::Splice& b) {
  return a.with_error == b.with_error && a.sae.hash() == b.sae.hash();
}
bool same_op(const op::NormCap& a, const op::NormCap& b) { return a.limit == b.limit; }
bool same_op(const op::KeepNorm&, const op::KeepNorm&) { return true; }
bool same_op(const op::Custom& a, const op::Custom& b) { return a.name == b.name && a.function == b.function; }

}  // namespace

void Scope::validate(std::string_view where) const {
  require(this->where != Where::onset || count > 0, ErrorCode::argument, where,
          "expected an onset of 1 or more tokens but got {}: the scope can match nothing", count);
  require(this->where != Where::span || (begin >= 0 && begin < end), ErrorCode::argument, where,
          "expected a span [begin, end) that holds a position but got [{}, {}): the scope can match nothing", begin,
          end);
  require(this->where != Where::span || end > 1 || include_bos, ErrorCode::argument, where,
          "expected a span beyond position 0 but got [{}, {}) without include_bos: the scope can match nothing", begin,
          end);
  const bool tagged = this->where == Where::inside_tag || this->where == Where::outside_tag;
  require(!tagged || !tag.empty(), ErrorCode::argument, where, "expected a tag name but got none");
  require(tag.find_first_of("<>/ \t\n") == std::string::npos, ErrorCode::argument, where,
          "expected a bare tag name such as \"thinking\" but got \"{}\"", tag);
}

std::string Scope::describe() const {
  std::string text(to_string(where));
  if (where == Where::onset) text += fmt::format(" {}", count);
  if (where == Where::span) text += fmt::format(" [{}, {})", begin, end);
  if (where == Where::inside_tag || where == Where::outside_tag) text += " " + tag;
  if (include_bos) text += " with BOS";
  return text;
}

std::string_view Edit::kind() const {
  return std::visit(
      Match{[](const op::Add&) -> std::string_view { return "add"; },
            [](const op::Feature& f) { return to_string(f.action); },
            [](const op::ScaleAlong& s) -> std::string_view { return s.factor == 0 ? "project_out" : "scale_along"; },
            [](const op::ProjectTo&) -> std::string_view { return "project_to"; },
            [](const op::Rotate&) -> std::string_view { return "rotate"; },
            [](const op::GatedAdd&) -> std::string_view { return "gated_add"; },
            [](const op::Splice&) -> std::string_view { return "splice"; },
            [](const op::NormCap&) -> std::string_view { return "cap_norm"; },
            [](const op::KeepNorm&) -> std::string_view { return "keep_norm"; },
            [](const op::Custom&) -> std::string_view { return "custom"; }},
      op);
}

std::string Edit::describe() const {
  std::string text(kind());
  std::visit(Match{[&](const op::Feature& f) {
                     text += fmt::format(" {}", f.index);
                     switch (f.action) {
                       case FeatureAction::nudge:
                         text += fmt::format(" by {}", f.value);
                         break;
                       case FeatureAction::pin:
                         text += fmt::format(" to {}", f.value);
                         break;
                       case FeatureAction::mul:
                         text += fmt::format(" by {}", f.value);
                         break;
                       case FeatureAction::clamp:
                         text += fmt::format(" to [{}, {}]", f.low, f.high);
                         break;
                       case FeatureAction::cap:
                         text += fmt::format(" at {}", f.high);
                         break;
                       case FeatureAction::ablate:
                         break;
                     }
                   },
                   [&](const op::ScaleAlong& s) {
                     if (s.factor != 0) text += fmt::format(" by {}", s.factor);
                   },
                   [&](const op::ProjectTo& p) { text += fmt::format(" {} from {}", p.target, to_string(p.side)); },
                   [&](const op::Rotate& r) { text += fmt::format(" by {} rad", r.angle); },
                   [&](const op::GatedAdd& g) { text += fmt::format(" by {}", g.a); },
                   [&](const op::Splice& s) { text += s.with_error ? " with error" : ""; },
                   [&](const op::NormCap& n) { text += fmt::format(" at {}", n.limit); },
                   [&](const op::Custom& c) { text += " " + c.name; }, [](const auto&) {}},
             op);
  if (unit != Unit::raw) text += fmt::format(" {}", to_string(unit));
  if (strength != 1) text += fmt::format(" x {}", strength);
  text += " at " + point.name();
  if (scope != Scope{}) text += ", " + scope.describe();
  if (when) text += ", when " + when->describe();
  return text;
}

void Edit::validate(std::string_view where) const {
  steering::detail::require_finite(strength, "strength", where);
  require(takes_unit(op, unit), ErrorCode::argument, where, "expected a unit that {} can be measured in but got {}",
          kind(), to_string(unit));
  scope.validate(where);
  if (when) when->validate(where);
  std::visit(Match{[&](const op::Add& a) {
                     if (unit == Unit::raw)
                       steering::detail::own_vector(a.vector, "a vector", where);
                     else
                       require_direction(a.vector, "a vector", where);
                   },
                   [&](const op::Feature& f) { validate_feature(f, unit, where); },
                   [&](const op::ScaleAlong& s) {
                     require_direction(s.vector, "a direction", where);
                     steering::detail::require_finite(s.factor, "factor", where);
                   },
                   [&](const op::ProjectTo& p) {
                     require_direction(p.vector, "a direction", where);
                     steering::detail::require_finite(p.target, "target", where);
                   },
                   [&](const op::Rotate& r) {
                     require_direction(r.a, "a direction", where);
                     require_direction(r.b, "a direction", where);
                     require_width(r.a, r.b, where);
                     steering::detail::require_finite(r.angle, "angle", where);
                     const double cosine = at::dot(r.a.to(at::kDouble), r.b.to(at::kDouble)).item<double>() /
                                           (steering::detail::norm_of(r.a) * steering::detail::norm_of(r.b));
                     require(std::abs(cosine) < kParallel, ErrorCode::argument, where,
                             "expected two vectors that span a plane but got parallel ones (cosine {})", cosine);
                   },
                   [&](const op::GatedAdd& g) {
                     require_direction(g.w, "a gate", where);
                     require_direction(g.z, "a vector", where);
                     require_width(g.w, g.z, where);
                     steering::detail::require_finite(g.b, "gate bias", where);
                     steering::detail::require_finite(g.a, "gain", where);
                   },
                   [&](const op::Splice& s) {
                     require(!s.sae.config().transcoder, ErrorCode::unsupported, where,
                             "expected an SAE that reconstructs its input but got a transcoder");
                   },
                   [&](const op::NormCap& n) {
                     require(std::isfinite(n.limit) && n.limit > 0, ErrorCode::argument, where,
                             "expected a norm limit above 0 but got {}", n.limit);
                   },
                   [](const op::KeepNorm&) {},
                   [&](const op::Custom& c) {
                     require(c.function && *c.function, ErrorCode::argument, where,
                             "expected a function for custom edit \"{}\" but got none", c.name);
                   }},
             op);
}

bool operator==(const Edit& a, const Edit& b) {
  return a.point == b.point && a.strength == b.strength && a.unit == b.unit && a.scope == b.scope && a.name == b.name &&
         a.op.index() == b.op.index() && a.when == b.when &&
         std::visit([&](const auto& x) { return same_op(x, std::get<std::decay_t<decltype(x)>>(b.op)); }, a.op);
}

}  // namespace steer
