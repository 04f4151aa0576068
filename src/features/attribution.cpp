#include <steer/features/attribution.hpp>

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include <steer/core/error.hpp>
#include <steer/features/activations.hpp>

#include "core/format_text.hpp"

namespace steer {
namespace {

double scalar(const at::Tensor& value, std::string_view where) {
  require(value.defined() && value.numel() == 1, ErrorCode::argument, where,
          "expected a metric that returns one number but it returned {}",
          value.defined() ? format_text("{} numbers", value.numel()) : "nothing");
  const double number = value.item<double>();
  require(std::isfinite(number), ErrorCode::argument, where, "expected a finite metric but it is {}", number);
  return number;
}

/// The activation at the hook point when nothing is edited, [tokens, d_in].
at::Tensor activation_at(Session& session, const HookPoint& point, std::span<const std::int64_t> ids) {
  const std::string names[] = {point.name()};
  return session.run_with_cache(ids, std::span<const std::string>(names), {.stop_after_layer = point.layer})[point];
}

/// The logits when the hook point's activation is replaced.
at::Tensor logits_with(Session& session, const HookPoint& point, std::span<const std::int64_t> ids,
                       const at::Tensor& value) {
  std::int64_t done = 0;
  const auto hook = session.hook(point, [&](HookContext& at) {
    const auto tokens = at.value.size(0);
    at.value = value.slice(0, done, done + tokens).to(at.value.dtype());
    done += tokens;
  });
  return session.forward(ids);
}

}  // namespace

LogitMetric logit_difference(std::int64_t a, std::int64_t b) {
  return [a, b](const at::Tensor& logits) { return logits[-1][a] - logits[-1][b]; };
}

LogitMetric sequence_log_probability(std::vector<std::int64_t> ids, std::int64_t begin, std::int64_t end) {
  require(begin > 0 && begin < end && end <= static_cast<std::int64_t>(ids.size()), ErrorCode::argument,
          "sequence_log_probability", "expected a range within [1, {}) but got [{}, {})", ids.size() + 1, begin, end);
  const at::Tensor targets = at::tensor(std::vector<std::int64_t>(ids.begin() + begin, ids.begin() + end));
  return [targets, begin, end](const at::Tensor& logits) {
    const at::Tensor predicted = at::log_softmax(logits.slice(0, begin - 1, end - 1), -1);
    return predicted.gather(1, targets.to(logits.device()).unsqueeze(1)).sum();
  };
}

Attribution attribute_features(Session& session, const Sae& sae, std::span<const std::int64_t> ids,
                               const LogitMetric& metric) {
  constexpr auto where = "attribute";
  const HookPoint point = sae_point(session.model(), sae);
  at::AutoGradMode with_grad(true);
  std::vector<at::Tensor> pieces;
  const auto hook = session.hook(point, [&](HookContext& at) {
    pieces.push_back(at.value.detach().clone().requires_grad_(true));
    at.value = pieces.back();
  });
  const at::Tensor value = metric(session.forward(ids));
  Attribution result{.metric = scalar(value, where), .effect = {}, .gradient = {}};
  require(value.requires_grad(), ErrorCode::argument, where,
          "expected a metric that depends on the logits by differentiable operations");
  value.backward();
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& piece : pieces)
    gradients.push_back(piece.grad().defined() ? piece.grad() : at::zeros_like(piece));
  at::AutoGradMode without_grad(false);
  result.gradient = at::cat(gradients).to(at::kFloat);
  const at::Tensor activation = at::cat(pieces).detach().to(at::kFloat);
  // Position 0 is an attention sink whose activation dwarfs all others and means nothing.
  const at::Tensor features = sae.encode(activation);
  features[0].zero_();
  result.effect = (features * at::matmul(result.gradient, sae.W_dec().t())).sum(0);
  return result;
}

at::Tensor ablation_effects(Session& session, const Sae& sae, std::span<const std::int64_t> features,
                            std::span<const std::int64_t> ids, const LogitMetric& metric) {
  at::NoGradGuard no_grad;
  const HookPoint point = sae_point(session.model(), sae);
  const at::Tensor x = activation_at(session, point, ids).to(at::kFloat);
  const at::Tensor f = sae.encode_subset(x, features).clone();
  f[0].zero_();
  const at::Tensor rows = sae.decoder_rows(features);
  const double unedited = scalar(metric(session.forward(ids)), "ablation_effects");
  at::Tensor effects = at::empty({static_cast<std::int64_t>(features.size())}, at::kFloat);
  for (std::int64_t i = 0; i < effects.size(0); ++i) {
    const at::Tensor edited = x - f.select(1, i).unsqueeze(1) * rows[i];
    effects[i] = unedited - scalar(metric(logits_with(session, point, ids, edited)), "ablation_effects");
  }
  return effects;
}

LogitEffects logit_effects(const Model& model, const Sae& sae, std::int64_t feature, std::int64_t top) {
  require(top > 0, ErrorCode::argument, "logit_effects", "expected at least one token but got {}", top);
  const std::int64_t index[] = {feature};
  const at::Tensor direction = sae.decoder_rows(index)[0] * model.final_norm_gain();
  at::Tensor effects = at::mv(model.unembedding(), direction);
  effects = effects - effects.mean();
  const auto take = [&](bool largest) {
    const auto [values, ids] = effects.topk(std::min(top, effects.numel()), -1, largest, true);
    std::vector<TokenEffect> tokens;
    for (std::int64_t i = 0; i < ids.numel(); ++i)
      tokens.push_back({ids[i].item<std::int64_t>(), values[i].item<double>()});
    return tokens;
  };
  return {take(true), take(false)};
}

double output_score(Session& session, const Sae& sae, std::int64_t feature, double strength,
                    std::span<const std::vector<std::int64_t>> prompts, std::int64_t top) {
  constexpr auto where = "output_score";
  require(!prompts.empty(), ErrorCode::argument, where, "expected at least one prompt but got none");
  at::NoGradGuard no_grad;
  std::vector<std::int64_t> promoted;
  for (const auto& token : logit_effects(session.model(), sae, feature, top).promoted) promoted.push_back(token.token);
  const at::Tensor tokens = at::tensor(promoted);
  const std::int64_t index[] = {feature};
  const at::Tensor step = sae.decoder_rows(index)[0] * strength;
  const auto mass = [&](std::span<const std::int64_t> ids) {
    return at::log_softmax(session.forward(ids)[-1], -1)
        .index_select(0, tokens.to(session.model().device()))
        .logsumexp(0)
        .item<double>();
  };
  double change = 0;
  for (const auto& ids : prompts) {
    const double before = mass(ids);
    const auto hook = session.hook(sae_point(session.model(), sae), [&](HookContext& at) {
      for (const TokenRun& run : at.batch.runs)
        at.value.slice(0, run.begin + (run.position == 0 ? 1 : 0), run.end).add_(step.to(at.value.options()));
    });
    change += mass(ids) - before;
  }
  return change / static_cast<double>(prompts.size());
}

std::vector<FeatureValue> filter_by_output_score(Session& session, const Sae& sae,
                                                 std::span<const FeatureValue> candidates,
                                                 std::span<const std::vector<std::int64_t>> prompts,
                                                 std::int64_t keep) {
  require(keep >= 1, ErrorCode::argument, "filter_by_output_score", "expected to keep at least one feature but got {}",
          keep);
  std::vector<std::pair<double, FeatureValue>> scored;
  for (const FeatureValue& candidate : candidates)
    scored.emplace_back(output_score(session, sae, candidate.feature, candidate.value, prompts), candidate);
  std::erase_if(scored, [](const auto& entry) { return !(entry.first > 0); });
  std::ranges::stable_sort(scored, std::greater{}, [](const auto& entry) { return entry.first; });
  std::vector<FeatureValue> kept;
  for (const auto& entry : scored)
    if (std::ssize(kept) < keep) kept.push_back(entry.second);
  return kept;
}

}  // namespace steer
