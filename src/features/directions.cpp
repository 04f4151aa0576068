#include <steer/features/directions.hpp>

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/matmul.h>
#include <c10/core/GradMode.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"

namespace steer {
namespace {

/// As f64 on the CPU, after checking it.
at::Tensor rows_of(const at::Tensor& x, std::int64_t least, std::string_view what, std::string_view where) {
  require(x.defined() && x.dim() == 2 && x.size(0) >= least && x.size(1) > 0, ErrorCode::shape, where,
          "expected {} [rows, width] of at least {} rows but got {}", what, least,
          x.defined() ? format_text("[{}]", fmt::join(x.sizes(), ", ")) : "nothing");
  const at::Tensor d = x.detach().to(at::TensorOptions(at::kCPU).dtype(at::kDouble)).contiguous();
  require(at::isfinite(d).all().item<bool>(), ErrorCode::argument, where, "expected finite {} but got NaN or infinity",
          what);
  return d;
}

}  // namespace

at::Tensor centred_difference(const at::Tensor& examples, std::span<const at::Tensor> others) {
  constexpr auto where = "centred_difference";
  const c10::NoGradGuard no_grad;
  require(!others.empty(), ErrorCode::argument, where,
          "expected examples of at least one other behaviour to centre by but got none");
  at::Tensor difference = rows_of(examples, 1, "examples", where).mean(0);
  const auto width = difference.size(0);
  for (const at::Tensor& other : others) {
    const at::Tensor rows = rows_of(other, 1, "other examples", where);
    require(rows.size(1) == width, ErrorCode::shape, where, "expected examples of one width but got {} and {}", width,
            rows.size(1));
    difference -= rows.mean(0) / static_cast<double>(others.size());
  }
  return difference.to(at::kFloat);
}

EstimatedMetric estimate_metric(const at::Tensor& activations) {
  constexpr auto where = "estimate_metric";
  const c10::NoGradGuard no_grad;
  const at::Tensor x = rows_of(activations, 2, "activations", where);
  const auto n = static_cast<double>(x.size(0)), width = static_cast<double>(x.size(1));
  at::Tensor moments = at::matmul(x.t(), x) / n;
  const double trace = moments.trace().item<double>(), mean = trace / width;
  require(mean > 0, ErrorCode::argument, where, "expected activations that are not all 0");
  // Ledoit and Wolf's d^2 = |S - m I|^2 and b^2 = sum |x x' - S|^2 / n^2, from sums that need no x x'.
  const double squares = moments.square().sum().item<double>();
  const double spread = squares - width * mean * mean;
  const double error = (x.square().sum(1).square().sum().item<double>() / n - squares) / n;
  EstimatedMetric metric{
      .matrix = {}, .shrinkage = spread > 0 ? std::clamp(error / spread, 0.0, 1.0) : 1.0, .rows = x.size(0)};
  moments.mul_(1 - metric.shrinkage).diagonal().add_(metric.shrinkage * mean);
  metric.matrix = moments.to(at::kFloat);
  return metric;
}

at::Tensor least_collateral(const at::Tensor& direction, const EstimatedMetric& metric) {
  constexpr auto where = "least_collateral";
  const c10::NoGradGuard no_grad;
  require(metric.matrix.defined() && direction.defined() && direction.dim() == 1 && metric.matrix.dim() == 2 &&
              metric.matrix.size(0) == direction.size(0) && metric.matrix.size(1) == direction.size(0),
          ErrorCode::shape, where, "expected a direction of the metric's width");
  at::Tensor v = rows_of(direction.unsqueeze(0), 1, "direction", where)[0];
  const double norm = v.norm().item<double>();
  require(norm > 0, ErrorCode::argument, where, "expected a direction but got a vector of length 0");
  v = (v / norm).contiguous();
  const at::Tensor s = metric.matrix.to(at::kCPU, at::kDouble).contiguous();
  using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::LLT<Eigen::MatrixXd> factored(
      Eigen::Map<const Matrix>(s.const_data_ptr<double>(), s.size(0), s.size(1)));
  require(factored.info() == Eigen::Success, ErrorCode::argument, where,
          "expected a positive definite metric; `estimate_metric` makes one");
  const Eigen::Map<const Eigen::VectorXd> unit(v.const_data_ptr<double>(), v.size(0));
  const Eigen::VectorXd solved = factored.solve(unit);
  at::Tensor result = at::empty_like(v);
  Eigen::Map<Eigen::VectorXd>(result.data_ptr<double>(), result.size(0)) = solved / unit.dot(solved);
  return result.to(at::kFloat);
}

}  // namespace steer
