// The list of kinds, and what several of them share.
#include <ATen/TensorOperators.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/norm.h>

#include <algorithm>
#include <cmath>

#include "steering/edits/operation.hpp"

namespace steer::steering::detail {

extern const Factory add_kind, nudge_kind, pin_kind, mul_kind, clamp_kind, cap_kind, ablate_kind, project_out_kind,
    scale_along_kind, project_to_kind, set_along_metric_kind, swap_kind, rotate_kind, gated_add_kind, splice_kind,
    cap_norm_kind, keep_norm_kind, custom_kind;

std::span<const Factory* const> kinds() {
  static const Factory* const all[] = {&add_kind,
                                       &nudge_kind,
                                       &pin_kind,
                                       &mul_kind,
                                       &clamp_kind,
                                       &cap_kind,
                                       &ablate_kind,
                                       &project_out_kind,
                                       &scale_along_kind,
                                       &project_to_kind,
                                       &set_along_metric_kind,
                                       &swap_kind,
                                       &rotate_kind,
                                       &gated_add_kind,
                                       &splice_kind,
                                       &cap_norm_kind,
                                       &keep_norm_kind,
                                       &custom_kind};
  return all;
}

const Factory& kind_named(std::string_view kind, std::string_view what, std::string_view where) {
  const auto all = kinds();
  const auto found = std::find_if(all.begin(), all.end(), [&](const Factory* f) { return f->kind == kind; });
  if (found != all.end()) return **found;
  std::string names;
  for (const Factory* f : all) names += (names.empty() ? "" : ", ") + std::string(f->kind);
  fail(ErrorCode::format, where, "expected a kind of edit in {} ({}) but got \"{}\"", what, names, kind);
}

bool same(const Value& a, const Value& b) {
  if (a.index() != b.index()) return false;
  return std::visit(
      [&](const auto& x) {
        using T = std::decay_t<decltype(x)>;
        const auto& y = std::get<T>(b);
        if constexpr (std::is_same_v<T, at::Tensor>)
          return same_tensor(x, y);
        else if constexpr (std::is_same_v<T, Sae>)
          return x.hash() == y.hash();
        else
          return x == y;
      },
      a);
}

void require_direction(const at::Tensor& vector, std::string_view where) {
  require(norm_of(own_vector(vector, "a direction", where)) > 0, ErrorCode::argument, where,
          "expected a direction other than 0 but got the zero vector");
}

void require_one_width(const at::Tensor& a, const at::Tensor& b, std::string_view where) {
  require(a.numel() == b.numel(), ErrorCode::shape, where, "expected two vectors of one width but got {} and {}",
          a.numel(), b.numel());
}

void require_plane(const at::Tensor& a, const at::Tensor& b, std::string_view where) {
  constexpr double parallel = 1 - 1e-6;  // the largest share of one direction in the other that still spans a plane
  require_direction(a, where);
  require_direction(b, where);
  require_one_width(a, b, where);
  const double cosine = at::dot(unit_vector(a), unit_vector(b)).item<double>();
  require(std::abs(cosine) < parallel, ErrorCode::argument, where,
          "expected two vectors that span a plane but got parallel ones (cosine {})", cosine);
}

at::Tensor unit_vector(const at::Tensor& v) {
  const at::Tensor d = v.to(at::kDouble);
  return d / at::norm(d);
}

at::Tensor gaussian(std::int64_t width, double norm, Rng& rng) {
  at::Tensor vector = at::empty({width}, at::kFloat);
  float* values = vector.data_ptr<float>();
  for (std::int64_t i = 0; i < width; ++i) values[i] = static_cast<float>(rng.normal());
  return vector.mul_(norm / vector.norm().item<double>());
}

at::Tensor gaussian_like(const at::Tensor& like, Rng& rng) {
  return gaussian(like.numel(), like.norm().item<double>(), rng);
}

Edit noise_of_size(const Edit& edit, std::int64_t width, double length, Rng& rng) {
  EditOptions options{.scope = edit.scope, .when = edit.when, .unit = edit.unit, .name = "noise"};
  double strength = edit.strength;
  // By norm the unit vector counts: the share is the strength.
  if (edit.unit == StrengthUnit::residual_norm)
    strength *= std::exchange(length, 1);
  else
    options.unit = StrengthUnit::raw;
  return Steering().add(gaussian(width, length, rng), edit.point, strength, options).edits().front();
}

}  // namespace steer::steering::detail
