#include "steering/checks.hpp"

#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/norm.h>

#include <cmath>

#include <steer/core/error.hpp>

namespace steer::steering::detail {

at::Tensor own_vector(const at::Tensor& vector, std::string_view what, std::string_view where) {
  require(vector.defined(), ErrorCode::argument, where, "expected {} but got an undefined tensor", what);
  require(vector.is_floating_point(), ErrorCode::argument, where, "expected {} of a floating dtype but got {}", what,
          at::toString(vector.scalar_type()));
  require(vector.dim() == 1 && vector.numel() > 0, ErrorCode::shape, where,
          "expected {} of shape [width] but got {} dimensions and {} elements", what, vector.dim(), vector.numel());
  at::Tensor own = vector.detach().to(at::TensorOptions(at::kCPU).dtype(at::kFloat), false, /*copy=*/true).contiguous();
  require(at::isfinite(own).all().item<bool>(), ErrorCode::argument, where,
          "expected finite numbers in {} but got NaN or infinity", what);
  return own;
}

void require_finite(double value, std::string_view what, std::string_view where) {
  require(std::isfinite(value), ErrorCode::argument, where, "expected a finite {} but got {}", what, value);
}

void require_feature(const Sae& sae, std::int64_t feature, std::string_view where) {
  require(feature >= 0 && feature < sae.d_sae(), ErrorCode::argument, where,
          "expected a feature index in [0, {}) but got {}", sae.d_sae(), feature);
}

bool same_tensor(const at::Tensor& a, const at::Tensor& b) {
  if (a.defined() != b.defined()) return false;
  return !a.defined() || a.is_same(b) || (a.sizes() == b.sizes() && at::equal(a, b));
}

double norm_of(const at::Tensor& vector) { return at::norm(vector.to(at::kDouble)).item<double>(); }

HookPoint place_of(const Sae& sae, const std::optional<HookPoint>& given, bool output, std::string_view where) {
  if (given) return *given;
  const auto& own = output && sae.config().hook_out ? sae.config().hook_out : sae.config().hook_in;
  require(own.has_value(), ErrorCode::config, where,
          "expected an SAE that says where it was trained but got one without a hook point; name it in the options");
  return *own;
}

}  // namespace steer::steering::detail
