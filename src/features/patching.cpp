#include <steer/features/patching.hpp>

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_map>

#include <steer/core/error.hpp>

namespace steer {
namespace {

constexpr std::string_view kPatchSweep = "patch_sweep";

std::vector<std::int64_t> chosen(const std::vector<std::int64_t>& wanted, std::int64_t count, std::string_view what) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(count));
  std::iota(all.begin(), all.end(), 0);
  for (const std::int64_t one : wanted)
    require(one >= 0 && one < count, ErrorCode::argument, kPatchSweep, "expected {} below {} but got {}", what, count,
            one);
  return wanted.empty() ? all : wanted;
}

/// One sweep: the runs of a layer differ in the position that is patched.
class Sweep {
 public:
  Sweep(Session& session, std::span<const std::int64_t> clean, std::span<const std::int64_t> corrupt, Site site,
        const PatchMetric& metric, const PatchOptions& options)
      : session_(session), corrupt_(corrupt), site_(site), metric_(metric), options_(options) {
    clean_values_ = record(clean, result_.clean);
    record(corrupt, result_.corrupt);
  }

  PatchSweep run(std::vector<std::int64_t> layers, std::vector<std::int64_t> positions) {
    result_.layers = std::move(layers);
    result_.positions = std::move(positions);
    std::vector<double> metrics;
    for (const std::int64_t layer : result_.layers)
      for (std::size_t from = 0; from < result_.positions.size();) {
        const std::size_t count = std::min(result_.positions.size() - from, static_cast<std::size_t>(options_.rows));
        patch(layer, std::span(result_.positions).subspan(from, count), metrics);
        from += count;
        progress_.advance(static_cast<std::int64_t>(count));
      }
    result_.metric =
        at::tensor(metrics, at::kDouble).reshape({std::ssize(result_.layers), std::ssize(result_.positions)});
    return std::move(result_);
  }

 private:
  double measured(const at::Tensor& logits) const {
    const double value = metric_(logits);
    require(std::isfinite(value), ErrorCode::argument, kPatchSweep, "expected a finite metric but got {}", value);
    return value;
  }

  /// The site's activations in every layer, [tokens, width], and the run's metric.
  std::vector<at::Tensor> record(std::span<const std::int64_t> ids, double& metric) {
    std::vector<std::string> names;
    for (std::int64_t l = 0; l < session_.model().config().n_layers; ++l) {
      names.push_back(HookPoint{site_, l}.name());
      if (site_ != Site::resid_pre) names.push_back(HookPoint{Site::resid_pre, l}.name());
    }
    const ActivationCache cache = session_.run_with_cache(ids, std::span<const std::string>(names));
    metric = measured(cache.logits[-1]);
    std::vector<at::Tensor> values;
    residuals_.clear();
    for (std::int64_t l = 0; l < session_.model().config().n_layers; ++l) {
      values.push_back(cache[HookPoint{site_, l}.name()]);
      residuals_.push_back(cache[HookPoint{Site::resid_pre, l}.name()]);
    }
    return values;
  }

  /// Appends one metric a position. Layers below start from the corrupt run's residual stream.
  void patch(std::int64_t layer, std::span<const std::int64_t> positions, std::vector<double>& metrics) {
    std::unordered_map<SequenceId, std::int64_t> position_of;
    std::vector<StepInput> inputs;
    for (const std::int64_t position : positions) {
      const SequenceId sequence = session_.open();
      position_of.emplace(sequence, position);
      inputs.push_back({sequence, corrupt_, Phase::prompt});
    }
    const at::Tensor& clean = clean_values_[static_cast<std::size_t>(layer)];
    const HookHandle hook = session_.hook(HookPoint{site_, layer}, [&](HookContext& at) {
      for (const TokenRun& run : at.batch.runs)
        if (const auto it = position_of.find(run.sequence); it != position_of.end())
          if (it->second >= run.position && it->second < run.position + run.end - run.begin)
            at.value[run.begin + it->second - run.position].copy_(clean[it->second]);
    });
    LayerRange layers;
    if (layer > 0)
      layers = {.first = layer,
                .residual = residuals_[static_cast<std::size_t>(layer)].repeat({std::ssize(inputs), 1})};
    const at::Tensor logits = session_.step(inputs, Logits::last, layers);
    for (const StepInput& input : inputs) session_.close(input.sequence);
    for (std::int64_t i = 0; i < logits.size(0); ++i) metrics.push_back(measured(logits[i]));
  }

  Session& session_;
  std::span<const std::int64_t> corrupt_;
  Site site_;
  const PatchMetric& metric_;
  const PatchOptions& options_;
  Progress progress_{options_.progress};
  PatchSweep result_;
  std::vector<at::Tensor> clean_values_, residuals_;  ///< by layer; residuals of the corrupt run
};

}  // namespace

at::Tensor PatchSweep::restored() const {
  require(clean != corrupt, ErrorCode::argument, "PatchSweep::restored",
          "expected clean and corrupt runs that differ in the metric but both have {}; choose other prompts", clean);
  return (metric - corrupt) / (clean - corrupt);
}

PatchSweep patch_sweep(Session& session, Site site, std::span<const std::int64_t> clean,
                       std::span<const std::int64_t> corrupt, const PatchMetric& metric, const PatchOptions& options) {
  require(!clean.empty() && clean.size() == corrupt.size(), ErrorCode::argument, kPatchSweep,
          "expected prompts of one length, with at least a token, but got {} and {} tokens: a position must mean the "
          "same in both",
          clean.size(), corrupt.size());
  require(site != Site::embed && site != Site::ln_final && site != Site::attn_pattern, ErrorCode::argument, kPatchSweep,
          "expected a site that every layer has for every token but got {}", to_string(site));
  require(options.rows > 0, ErrorCode::argument, kPatchSweep, "expected at least one row a pass but got {}",
          options.rows);
  auto layers = chosen(options.layers, session.model().config().n_layers, "a layer");
  auto positions = chosen(options.positions, std::ssize(clean), "a position");
  const at::NoGradGuard no_grad;
  return Sweep(session, clean, corrupt, site, metric, options).run(std::move(layers), std::move(positions));
}

}  // namespace steer
