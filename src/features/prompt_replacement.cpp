#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <cmath>

#include <steer/core/error.hpp>
#include <steer/features/directions.hpp>

namespace steer {
namespace {

/// The gate's part of the loss at a fixed z: mean_i (relu(w.x_i + b) - c_i)^2 + l2 |w|^2. Parameters are [width + 1],
/// the last one b.
struct Gate {
  at::Tensor x;  ///< [tokens, width], centred and scaled
  double l2;

  at::Tensor scores(const at::Tensor& p) const { return at::mv(x, p.slice(0, 0, -1)) + p[-1]; }
  at::Tensor lifted(const at::Tensor& residual, const at::Tensor& p) const {
    const at::Tensor w = at::mv(x.t(), residual) / static_cast<double>(x.size(0)) + l2 * p.slice(0, 0, -1);
    return at::cat({w, residual.mean().unsqueeze(0)});
  }
  double loss(const at::Tensor& p, const at::Tensor& wanted) const {
    return ((at::relu(scores(p)) - wanted).square().mean() + l2 * p.slice(0, 0, -1).square().sum()).item<double>();
  }
  /// What `lifted(active * scores(p), p)` multiplies p with. [width + 1, width + 1]
  at::Tensor normal_matrix(const at::Tensor& active) const {
    const auto tokens = static_cast<double>(x.size(0));
    const at::Tensor rows = active.unsqueeze(1) * x, sums = rows.sum(0) / tokens;
    at::Tensor square = at::mm(rows.t(), x) / tokens;
    square.diagonal().add_(l2);
    return at::cat(
        {at::cat({square, sums.unsqueeze(1)}, 1), at::cat({sums, active.sum().unsqueeze(0) / tokens}).unsqueeze(0)});
  }
  /// A Gauss-Newton step: least squares over the tokens in `active`, by conjugate gradients.
  at::Tensor step(const at::Tensor& p, const at::Tensor& wanted, const at::Tensor& active) const {
    at::Tensor residual = -lifted(active * (scores(p) - wanted), p), direction = residual.clone();
    // Of more tokens than parameters the square matrix is the smaller one.
    const at::Tensor matrix = x.size(0) > x.size(1) ? normal_matrix(active) : at::Tensor();
    at::Tensor step = at::zeros_like(p);
    double size = residual.dot(residual).item<double>();
    const double enough = 1e-20 * size;
    for (std::int64_t i = 0; i < 2 * p.size(0) && size > enough && size > 1e-60; ++i) {
      const at::Tensor product =
          matrix.defined() ? at::mv(matrix, direction) : lifted(active * scores(direction), direction);
      const double along = direction.dot(product).item<double>();
      if (!(along > 0)) break;
      step += size / along * direction;
      residual -= size / along * product;
      const double next = residual.dot(residual).item<double>();
      direction = residual + next / size * direction;
      size = next;
    }
    return step;
  }
  /// Lowers the loss from p on.
  void fit(at::Tensor& p, const at::Tensor& wanted, int steps) const {
    double now = loss(p, wanted);
    for (int i = 0; i < steps; ++i) {
      const at::Tensor change = step(p, wanted, scores(p).gt(0).to(at::kDouble));
      double length = 1, next = loss(p + change, wanted);
      while (!(next < now) && length > 1e-4) next = loss(p + (length *= 0.5) * change, wanted);
      if (!(next < now * (1 - 1e-9))) break;
      p = p + length * change;
      now = next;
    }
  }
};

at::Tensor checked(const at::Tensor& x, std::string_view what) {
  constexpr auto where = "fit_prompt_replacement";
  require(x.defined() && x.dim() == 2 && x.size(0) >= 2 && x.size(1) > 0, ErrorCode::shape, where,
          "expected {} activations [tokens, width] of at least 2 tokens", what);
  const at::Tensor d = x.detach().to(at::TensorOptions(at::kCPU).dtype(at::kDouble)).contiguous();
  require(at::isfinite(d).all().item<bool>(), ErrorCode::argument, where,
          "expected finite {} activations but got NaN or infinity", what);
  return d;
}

}  // namespace

PromptReplacement fit_prompt_replacement(const at::Tensor& plain, const at::Tensor& prompted,
                                         const PromptReplacementOptions& options) {
  constexpr auto where = "fit_prompt_replacement";
  const c10::NoGradGuard no_grad;
  require(options.l2 >= 0 && std::isfinite(options.l2) && options.max_rounds > 0, ErrorCode::argument, where,
          "expected an l2 of 0 or more and at least one round but got {} and {}", options.l2, options.max_rounds);
  const at::Tensor h = checked(plain, "plain"), asked = checked(prompted, "prompted");
  require(h.sizes() == asked.sizes(), ErrorCode::shape, where,
          "expected the same tokens twice but got [{}] plain and [{}] prompted", fmt::join(h.sizes(), ", "),
          fmt::join(asked.sizes(), ", "));
  const at::Tensor change = asked - h;
  const double all = change.square().sum().item<double>();
  require(all > 0, ErrorCode::argument, where, "expected activations that asking changes but both are equal");
  // Centred and on one scale for all columns: directions keep their meaning.
  const at::Tensor mean = h.mean(0);
  at::Tensor x = h - mean;
  double scale = std::sqrt(x.square().mean().item<double>());
  if (!(scale > 0)) scale = 1;
  const Gate gate{x / scale, options.l2};

  at::Tensor z = change.mean(0);
  if (!(z.norm().item<double>() > 1e-9 * std::sqrt(all)))
    z = change[change.square().sum(1).argmax().item<std::int64_t>()];
  at::Tensor p = at::zeros({h.size(1) + 1}, h.options());
  const auto coefficients = [&] { return at::mv(change, z) / z.dot(z); };
  // The start: the best gate that is open at every token.
  p = p + gate.step(p, coefficients(), at::ones({h.size(0)}, h.options()));
  at::Tensor open = at::relu(gate.scores(p));
  double left = all;
  for (std::int64_t round = 0; round < options.max_rounds; ++round) {
    gate.fit(p, coefficients(), 8);
    open = at::relu(gate.scores(p));
    const double size = open.dot(open).item<double>();
    if (!(size > 0)) break;
    z = at::mv(change.t(), open) / size;
    const double next = (change - at::outer(open, z)).square().sum().item<double>();
    if (!(next < left * (1 - 1e-7))) break;
    left = next;
  }
  PromptReplacement result;
  const at::Tensor w = p.slice(0, 0, -1) / scale;
  result.w = w.to(at::kFloat);
  result.b = (p[-1] - mean.dot(w)).item<double>();
  result.z = z.to(at::kFloat);
  result.explained = 1 - (change - at::outer(open, z)).square().sum().item<double>() / all;
  result.active = open.gt(0).to(at::kDouble).mean().item<double>();
  return result;
}

}  // namespace steer
