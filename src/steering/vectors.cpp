#include <steer/steering/vectors.hpp>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/stack.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

#include <steer/core/error.hpp>
#include <steer/io/gguf_writer.hpp>
#include <steer/io/safetensors_writer.hpp>
#include <steer/io/tensor_reader.hpp>

namespace steer {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::VectorXd;

Matrix examples(const at::Tensor& x, std::string_view what, std::string_view where) {
  require(x.defined() && x.dim() == 2 && x.size(0) > 0 && x.size(1) > 0, ErrorCode::shape, where,
          "expected {} examples [examples, width] but got {} dimensions and {} elements", what,
          x.defined() ? x.dim() : 0, x.defined() ? x.numel() : 0);
  const at::Tensor d = x.detach().to(at::TensorOptions(at::kCPU).dtype(at::kDouble)).contiguous();
  require(at::isfinite(d).all().item<bool>(), ErrorCode::argument, where,
          "expected finite {} examples but got NaN or infinity", what);
  return Eigen::Map<const Matrix>(d.const_data_ptr<double>(), d.size(0), d.size(1));
}

std::pair<Matrix, Matrix> both(const at::Tensor& positive, const at::Tensor& negative, std::string_view where) {
  std::pair<Matrix, Matrix> sides{examples(positive, "positive", where), examples(negative, "negative", where)};
  require(sides.first.cols() == sides.second.cols(), ErrorCode::shape, where,
          "expected examples of one width but got {} and {}", sides.first.cols(), sides.second.cols());
  return sides;
}

at::Tensor to_tensor(const Vector& v) {
  at::Tensor t = at::empty({v.size()}, at::kDouble);
  std::copy_n(v.data(), v.size(), t.data_ptr<double>());
  return t.to(at::kFloat);
}

/// The first right singular vector, from the smaller of the two Gram matrices.
Vector first_component(const Matrix& x) {
  if (x.rows() >= x.cols()) {
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(x.transpose() * x);
    return solver.eigenvectors().col(x.cols() - 1);
  }
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(x * x.transpose());
  const Vector v = x.transpose() * solver.eigenvectors().col(x.rows() - 1);
  return v.norm() > 0 ? Vector(v.normalized()) : v;
}

/// The objective of weighted logistic regression: sum weight log(1 + exp(-y z)) + l2 |w|^2 / 2. The last entry of a
/// parameter vector is the bias.
class Logistic {
 public:
  Logistic(Matrix x, Vector y, Vector weight, double l2)
      : x_(std::move(x)), y_(std::move(y)), weight_(std::move(weight)), l2_(l2) {}

  Vector scores(const Vector& p) const { return (x_ * p.head(x_.cols())).array() + p(x_.cols()); }
  double loss(const Vector& p) const {
    const Vector margin = y_.cwiseProduct(scores(p));
    // log(1 + exp(-m)) without overflow.
    const Vector each =
        margin.unaryExpr([](double m) { return m > 0 ? std::log1p(std::exp(-m)) : std::log1p(std::exp(m)) - m; });
    return weight_.dot(each) + 0.5 * l2_ * p.head(x_.cols()).squaredNorm();
  }
  /// Solves Newton's equation by conjugate gradients: the Hessian of a 4096-wide model is never formed.
  Vector newton_step(const Vector& p, Vector& gradient) const {
    const Vector margin = y_.cwiseProduct(scores(p));
    const Vector sigma =
        margin.unaryExpr([](double m) { return m > 0 ? std::exp(-m) / (1 + std::exp(-m)) : 1 / (1 + std::exp(m)); });
    gradient = lifted(-(weight_.array() * y_.array() * sigma.array()).matrix(), p);
    const Vector curvature = (weight_.array() * sigma.array() * (1 - sigma.array())).matrix();
    const auto hessian = [&](const Vector& v) { return lifted(curvature.cwiseProduct(scores(v)), v); };
    Vector step = Vector::Zero(p.size()), residual = -gradient, direction = residual;
    double size = residual.squaredNorm();
    const double enough = 1e-16 * size;
    for (Eigen::Index i = 0; i < 4 * p.size() && size > enough && size > 1e-30; ++i) {
      const Vector product = hessian(direction);
      const double along = direction.dot(product);
      if (!(along > 0)) break;
      const double length = size / along;
      step += length * direction;
      residual -= length * product;
      const double next = residual.squaredNorm();
      direction = residual + (next / size) * direction;
      size = next;
    }
    return step;
  }

 private:
  /// X^T r with the bias's row, plus the penalty's gradient at p.
  Vector lifted(const Vector& r, const Vector& p) const {
    Vector result(p.size());
    result.head(x_.cols()) = x_.transpose() * r + l2_ * p.head(x_.cols());
    result(x_.cols()) = r.sum();
    return result;
  }
  Matrix x_;
  Vector y_, weight_;
  double l2_;
};

Vector fit(const Matrix& positive, const Matrix& negative, VectorMethod method) {
  const auto tensor = [](const Matrix& m) {
    at::Tensor t = at::empty({m.rows(), m.cols()}, at::kDouble);
    std::copy_n(m.data(), m.size(), t.data_ptr<double>());
    return t;
  };
  const at::Tensor p = tensor(positive), n = tensor(negative);
  at::Tensor v;
  switch (method) {
    case VectorMethod::difference_of_means:
      v = difference_of_means(p, n);
      break;
    case VectorMethod::principal_direction:
      v = principal_direction(p, n);
      break;
    case VectorMethod::logistic_probe:
      v = logistic_probe(p, n).w;
      break;
  }
  v = v.to(at::kDouble);
  return Eigen::Map<const Vector>(v.const_data_ptr<double>(), v.numel());
}

Matrix rows_of(const Matrix& x, int fold, int folds, bool held_out) {
  std::vector<Eigen::Index> rows;
  for (Eigen::Index i = 0; i < x.rows(); ++i)
    if ((i % folds == fold) == held_out) rows.push_back(i);
  return x(rows, Eigen::all);
}

/// Share of pairs in order over held-out examples; projections of different folds are not compared.
double held_out_order(const Matrix& positive, const Matrix& negative, VectorMethod method) {
  const int folds = static_cast<int>(std::min<Eigen::Index>(5, std::min(positive.rows(), negative.rows())));
  double ordered = 0, pairs = 0;
  for (int fold = 0; fold < folds; ++fold) {
    const Vector v = fit(rows_of(positive, fold, folds, false), rows_of(negative, fold, folds, false), method);
    const Vector p = rows_of(positive, fold, folds, true) * v, n = rows_of(negative, fold, folds, true) * v;
    for (double a : p)
      for (double b : n) ordered += a > b ? 1 : a == b ? 0.5 : 0, pairs += 1;
  }
  return ordered / pairs;
}

}  // namespace

at::Tensor difference_of_means(const at::Tensor& positive, const at::Tensor& negative) {
  const auto [p, n] = both(positive, negative, "difference_of_means");
  return to_tensor(p.colwise().mean().transpose() - n.colwise().mean().transpose());
}

at::Tensor principal_direction(const at::Tensor& positive, const at::Tensor& negative) {
  const auto [p, n] = both(positive, negative, "principal_direction");
  const Vector difference = p.colwise().mean().transpose() - n.colwise().mean().transpose();
  Matrix x;
  if (p.rows() == n.rows()) {
    x = p - n;
  } else {
    const Eigen::RowVectorXd middle = 0.5 * (p.colwise().mean() + n.colwise().mean());
    x.resize(p.rows() + n.rows(), p.cols());
    x << p.rowwise() - middle, n.rowwise() - middle;
  }
  const Vector v = first_component(x);
  require(v.norm() > 0, ErrorCode::argument, "principal_direction", "expected examples that differ but got equal ones");
  return to_tensor(v.dot(difference) < 0 ? Vector(-v) : v);
}

LinearProbe logistic_probe(const at::Tensor& positive, const at::Tensor& negative, const ProbeOptions& options) {
  constexpr std::string_view where = "logistic_probe";
  require(std::isfinite(options.l2) && options.l2 > 0, ErrorCode::argument, where, "expected an l2 above 0 but got {}",
          options.l2);
  const auto [p, n] = both(positive, negative, where);
  const Eigen::Index width = p.cols(), count = p.rows() + n.rows();
  Matrix x(count, width);
  x << p, n;
  const Eigen::RowVectorXd mean = x.colwise().mean();
  x.rowwise() -= mean;
  // One scale for all columns: directions keep their meaning.
  const double scale = std::sqrt(x.squaredNorm() / static_cast<double>(x.size()));
  if (scale > 0) x /= scale;
  Vector y(count), weight(count);
  y << Vector::Ones(p.rows()), -Vector::Ones(n.rows());
  weight << Vector::Constant(p.rows(), 0.5 / static_cast<double>(p.rows())),
      Vector::Constant(n.rows(), 0.5 / static_cast<double>(n.rows()));
  const Logistic problem(x, y, weight, options.l2);
  Vector parameters = Vector::Zero(width + 1), gradient;
  double loss = problem.loss(parameters);
  for (std::int64_t i = 0; i < options.max_steps; ++i) {
    const Vector step = problem.newton_step(parameters, gradient);
    if (gradient.norm() < 1e-9) break;
    double length = 1, next = problem.loss(parameters + step);
    while (!(next <= loss + 1e-4 * length * gradient.dot(step)) && length > 1e-10)
      next = problem.loss(parameters + (length *= 0.5) * step);
    if (length <= 1e-10) break;
    parameters += length * step;
    loss = next;
  }
  const Vector score = problem.scores(parameters);
  LinearProbe probe;
  const Vector w = parameters.head(width) / (scale > 0 ? scale : 1);
  probe.w = to_tensor(w);
  probe.b = parameters(width) - mean.dot(w);
  probe.accuracy = static_cast<double>((score.array() * y.array() > 0).count()) / static_cast<double>(count);
  return probe;
}

std::vector<SweepResult> sweep_layers(Session& session, std::span<const std::vector<std::int64_t>> positive,
                                      std::span<const std::vector<std::int64_t>> negative,
                                      const SweepOptions& options) {
  constexpr std::string_view where = "sweep_layers";
  require(positive.size() >= 2 && negative.size() >= 2, ErrorCode::argument, where,
          "expected two or more prompts on each side but got {} and {}", positive.size(), negative.size());
  require(options.site != Site::embed && options.site != Site::ln_final && options.site != Site::attn_pattern,
          ErrorCode::unsupported, where, "expected a site that every layer has, one row a token, but got {}",
          to_string(options.site));
  const at::NoGradGuard no_grad;
  const std::int64_t layers = session.model().config().n_layers;
  std::vector<std::string> names;
  for (std::int64_t l = 0; l < layers; ++l) names.push_back(HookPoint{options.site, l}.name());
  const auto collect = [&](std::span<const std::vector<std::int64_t>> prompts) {
    std::vector<std::vector<at::Tensor>> by_layer(layers);
    for (const auto& ids : prompts) {
      require(!ids.empty(), ErrorCode::argument, where, "expected prompts of one token or more but got an empty one");
      const ActivationCache cache = session.run_with_cache(ids, names);
      for (std::int64_t l = 0; l < layers; ++l) {
        const at::Tensor x = cache[names[l]].to(at::kFloat);
        const bool mean = options.tokens == ExampleTokens::mean && x.size(0) > 1;
        by_layer[l].push_back(mean ? x.slice(0, 1).mean(0) : x[x.size(0) - 1].clone());
      }
      Progress(options.progress).advance();
    }
    return by_layer;
  };
  const auto p = collect(positive), n = collect(negative);
  std::vector<SweepResult> results;
  for (std::int64_t l = 0; l < layers; ++l) {
    const Matrix ps = examples(at::stack(p[l]), "positive", where), ns = examples(at::stack(n[l]), "negative", where);
    results.push_back(
        {{options.site, l}, to_tensor(fit(ps, ns, options.method)), held_out_order(ps, ns, options.method)});
  }
  return results;
}

void save_vectors(const std::filesystem::path& path, const VectorSet& vectors) {
  constexpr std::string_view where = "save_vectors";
  require(!vectors.empty(), ErrorCode::argument, where, "expected at least one vector but got none");
  if (path.extension() != ".gguf") {
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (const auto& [point, vector] : vectors) tensors.emplace_back(point.name(), vector);
    return save_safetensors(path, tensors);
  }
  ControlVector control;
  for (const auto& [point, vector] : vectors) {
    require(point.site == Site::resid_post && point.layer >= 1, ErrorCode::argument, where,
            "expected hook_resid_post of layer 1 or above for a control vector but got {}", point.name());
    control.directions[point.layer] = vector;
  }
  save_control_vector(path, control);
}

VectorSet load_vectors(const std::filesystem::path& path) {
  VectorSet result;
  const auto reader = open_tensors(path);
  if (reader->format() == "gguf") {
    for (const auto& [layer, direction] : load_control_vector(path).directions)
      result[{Site::resid_post, layer}] = direction;
    return result;
  }
  for (const TensorInfo& info : reader->tensors()) {
    const HookPoint point = HookPoint::parse(info.name);
    require(info.shape.size() == 1, ErrorCode::format, "load_vectors",
            "expected tensor {} of {} to be a vector but it has {} dimensions", info.name, path.string(),
            info.shape.size());
    result[point] = reader->read(info.name).to(at::kFloat).clone();
  }
  return result;
}

}  // namespace steer
