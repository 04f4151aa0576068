// h + s (t - v.h) d with d = S^-1 v / (v' S^-1 v): of all changes that bring v.h to t, the one that is least in the
// metric S, |S^-1/2 change| (arXiv:2605.01167). With the covariance of activations as S it moves h the way activations
// vary together; with S = 1 it is project_to from both sides, on v as it is.
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/cholesky_solve.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/mv.h>

#include <cmath>

#include "core/format_text.hpp"
#include "steering/edits/operation.hpp"

namespace steer {
namespace steering::detail {
namespace {

struct SetAlongMetric final : Kind<SetAlongMetric> {
  static constexpr std::string_view kKind = "set_along_metric";
  at::Tensor vector;  ///< v
  at::Tensor along;   ///< d, with v.d = 1
  double target = 0;  ///< t

  template <class Self, class V>
  static void parameters(Self& self, const V& v) {
    v("vector", self.vector);
    v("along", self.along);
    v("target", self.target);
  }
  std::string describe() const override { return format_text(" {}", target); }
  bool takes(StrengthUnit) const override { return false; }
  void validate(StrengthUnit, std::string_view where) const override {
    require_direction(vector, where);
    require_one_width(vector, along, where);
    require_finite(target, "target", where);
    const double reach = at::dot(vector.to(at::kDouble), along.to(at::kDouble)).item<double>();
    require(std::abs(reach - 1) < 1e-3, ErrorCode::argument, where,
            "expected a change that moves the projection by 1 but got {}", reach);
  }
  bool identity() const override { return false; }
  Lowered lower(const Edit& edit) const override {
    return {.channels = {{.reading = Reading::dot, .read = vector, .write = along}},
            .change = {
                .gain = {{-1}}, .constant = static_cast<float>(target), .strength = static_cast<float>(edit.strength)}};
  }
  /// A random v in place of v, moved the same way: no metric makes it least.
  std::optional<Edit> elsewhere(const Edit& edit, Rng& rng) const override {
    SetAlongMetric other = *this;
    other.vector = gaussian_like(vector, rng);
    const at::Tensor d = other.vector.to(at::kDouble);
    other.along = (d / at::dot(d, d)).to(at::kFloat);
    return with_operation(edit, std::move(other), "random direction");
  }
  std::optional<Edit> noise(const Edit& edit, Rng& rng) const override { return elsewhere(edit, rng); }
};

}  // namespace

extern const Factory set_along_metric_kind;
constinit const Factory set_along_metric_kind{SetAlongMetric::kKind, make_kind<SetAlongMetric>};

}  // namespace steering::detail

ActivationMetric ActivationMetric::of(const at::Tensor& s) { return {s, /*inverse_factor=*/false}; }
ActivationMetric ActivationMetric::from_inverse_factor(const at::Tensor& w) { return {w, /*inverse_factor=*/true}; }

Steering& Steering::set_along_metric(const at::Tensor& vector, const ActivationMetric& metric, const HookPoint& at,
                                     double target, const EditOptions& options) {
  constexpr std::string_view where = "Steering::set_along_metric";
  namespace detail = steering::detail;
  detail::SetAlongMetric op;
  op.vector = detail::own_vector(vector, "a direction", where);
  op.target = target;
  detail::require_direction(op.vector, where);
  const at::Tensor v = op.vector.to(at::kDouble), m = metric.matrix.to(at::kCPU, at::kDouble);
  const std::int64_t width = v.numel();
  require(m.dim() == 2 && m.size(1) == width && (metric.inverse_factor || m.size(0) == width), ErrorCode::shape, where,
          "expected a metric of [{}, {}], or an inverse factor of [rank, {}], but got [{}]", width, width, width,
          fmt::join(m.sizes(), ", "));
  at::Tensor d;
  if (metric.inverse_factor) {
    d = at::mv(m.t(), at::mv(m, v));
  } else {
    require(at::allclose(m, m.t(), 1e-4, 1e-6 * m.abs().max().item<double>()), ErrorCode::argument, where,
            "expected a symmetric metric but got another matrix");
    const auto [factor, failed] = at::linalg_cholesky_ex(m);
    require(failed.item<int>() == 0, ErrorCode::argument, where,
            "expected a positive definite metric but got one that is not; add a small multiple of the identity");
    d = at::cholesky_solve(v.unsqueeze(1), factor).squeeze(1);
  }
  const double reach = at::dot(v, d).item<double>();
  require(std::isfinite(reach) && reach > 0, ErrorCode::argument, where,
          "expected a metric in which the direction has a length but got v' S^-1 v = {}", reach);
  op.along = (d / reach).to(at::kFloat);
  return push(detail::edit_at(std::move(op), at, 1, options, where));
}

}  // namespace steer
