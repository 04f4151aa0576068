#pragma once
// Steering as its contracts say it, one token and one edit at a time, in f64: full encode, edit, decode, plus error.

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <cmath>
#include <vector>

#include <steer/core/random.hpp>
#include <steer/steering/plan.hpp>

namespace steer::test {

inline at::Tensor random_tensor(Rng& rng, std::vector<std::int64_t> shape, double scale = 1) {
  at::Tensor t = at::empty(shape);
  for (std::int64_t i = 0; i < t.numel(); ++i) t.data_ptr<float>()[i] = static_cast<float>(scale * rng.normal());
  return t;
}

inline ModelConfig small_model(std::int64_t width, std::int64_t layers = 3) {
  ModelConfig config;
  config.family = "llama";
  config.vocab_size = 100;
  config.d_model = width;
  config.n_layers = layers;
  config.n_heads = config.n_kv_heads = 1;
  config.d_head = width;
  config.d_mlp = width;
  config.context = 512;
  return config;
}

inline Sae random_sae(Rng& rng, std::int64_t width, std::int64_t features, SaeActivation activation,
                      SaeNormalization normalization = SaeNormalization::none, bool subtract = false) {
  SaeConfig config;
  config.activation = activation;
  config.normalization = normalization;
  config.subtract_b_dec = subtract;
  config.k = 4;
  config.hook_in = config.hook_out = HookPoint{Site::resid_post, 1};
  SaeWeights w;
  w.W_enc = random_tensor(rng, {width, features}, 1 / std::sqrt(static_cast<double>(width)));
  w.W_dec = random_tensor(rng, {features, width}, 1 / std::sqrt(static_cast<double>(width)));
  w.b_dec = random_tensor(rng, {width}, 0.2);
  if (activation == SaeActivation::gated) {
    w.b_gate = random_tensor(rng, {features}, 0.3);
    w.r_mag = random_tensor(rng, {features}, 0.3);
    w.b_mag = random_tensor(rng, {features}, 0.3);
  } else {
    w.b_enc = random_tensor(rng, {features}, 0.3);
  }
  if (activation == SaeActivation::jumprelu || activation == SaeActivation::batchtopk)
    w.threshold = random_tensor(rng, {features}, 0.3).abs();
  return Sae::from_weights(config, w);
}

/// A step of several sequences: what a session would call the plan with.
struct FakeStep {
  std::vector<std::int64_t> ids;
  std::vector<TokenRun> runs;
  void add(SequenceId sequence, std::int64_t position, std::int64_t count, std::int64_t prompt_length, Phase phase) {
    const auto begin = static_cast<std::int64_t>(ids.size());
    ids.resize(begin + count, 5);
    runs.push_back({sequence, begin, begin + count, position, prompt_length, phase});
  }
  BatchView view() const { return {ids, runs}; }
  std::int64_t size() const { return static_cast<std::int64_t>(ids.size()); }
};

inline at::Tensor apply(SteeringPlan& plan, const HookPoint& point, const FakeStep& step, const at::Tensor& h) {
  at::Tensor value = h.clone();
  const BatchView view = step.view();
  HookContext context{point, value, view};
  plan.apply(context);
  return value;
}

inline bool in_scope(const Scope& s, const TokenRun& run, std::int64_t p) {
  if (p == 0 && !s.include_bos) return false;
  const bool generated = run.phase == Phase::generated;
  switch (s.where) {
    case Where::all:
      return true;
    case Where::prompt:
      return !generated;
    case Where::generated:
      return generated;
    case Where::onset:
      return generated && p < run.prompt_length + s.count;
    case Where::last:
      return !generated && p + 1 == run.prompt_length;
    case Where::span:
      return s.begin <= p && p < s.end;
    default:
      throw std::logic_error("tags are tested on text");
  }
}

/// One token, in f64.
inline at::Tensor reference_token(const Steering& steering, const HookPoint& point, const TokenRun& run,
                                  std::int64_t position, const at::Tensor& arrived) {
  at::Tensor h = arrived.to(at::kDouble).clone();
  const double norm0 = at::norm(h).item<double>();
  const auto edits = steering.edits();
  for (std::size_t i = 0; i < edits.size();) {
    const Edit& e = edits[i];
    if (e.point != point) {
      ++i;
      continue;
    }
    if (const auto* first = std::get_if<op::Feature>(&e.op)) {
      // All feature edits that follow on the same SAE: encode, edit in order, decode, add the error.
      const Sae& sae = first->sae;
      const at::Tensor x = h.to(at::kFloat).unsqueeze(0);
      const at::Tensor f = sae.encode(x);
      const at::Tensor error = h - sae.decode(f, x)[0].to(at::kDouble);
      at::Tensor g = f.clone();
      for (; i < edits.size() && edits[i].point == point; ++i) {
        const auto* op = std::get_if<op::Feature>(&edits[i].op);
        if (!op || op->sae.hash() != sae.hash()) break;
        if (!in_scope(edits[i].scope, run, position)) continue;
        at::Tensor probe = at::zeros_like(f);
        probe[0][op->index] = 1;
        const double reach =
            at::norm((sae.decode(probe, x) - sae.decode(at::zeros_like(f), x)).to(at::kDouble)).item<double>();
        double unit = 1;
        if (edits[i].unit == Unit::max_activation) unit = op->max_activation;
        if (edits[i].unit == Unit::residual_norm) unit = norm0 / reach;
        const double old = g[0][op->index].item<double>();
        double now = old;
        switch (op->action) {
          case FeatureAction::nudge:
            now = old + op->value * unit;
            break;
          case FeatureAction::pin:
            now = op->value * unit;
            break;
          case FeatureAction::mul:
            now = old * op->value;
            break;
          case FeatureAction::clamp:
            now = std::min(std::max(old, op->low * unit), op->high * unit);
            break;
          case FeatureAction::cap:
            now = std::min(old, op->high * unit);
            break;
          case FeatureAction::ablate:
            now = 0;
            break;
        }
        g[0][op->index] = old + edits[i].strength * (now - old);
      }
      h = sae.decode(g, x)[0].to(at::kDouble) + error;
      continue;
    }
    ++i;
    if (!in_scope(e.scope, run, position)) continue;
    const double s = e.strength;
    const auto unit_of = [](const at::Tensor& v) { return v.to(at::kDouble) / at::norm(v.to(at::kDouble)); };
    if (const auto* a = std::get_if<op::Add>(&e.op)) {
      h = e.unit == Unit::raw ? h + s * a->vector.to(at::kDouble) : h + s * norm0 * unit_of(a->vector);
    } else if (const auto* l = std::get_if<op::ScaleAlong>(&e.op)) {
      const at::Tensor v = unit_of(l->vector);
      h = h + s * (l->factor - 1) * at::dot(h, v) * v;
    } else if (const auto* p = std::get_if<op::ProjectTo>(&e.op)) {
      const at::Tensor v = unit_of(p->vector);
      const double now = at::dot(h, v).item<double>();
      const double target = p->target * (e.unit == Unit::residual_norm ? norm0 : 1);
      const bool acts = p->side == Side::both || (p->side == Side::below ? now < target : now > target);
      if (acts) h = h + s * (target - now) * v;
    } else if (const auto* r = std::get_if<op::Rotate>(&e.op)) {
      const at::Tensor u = unit_of(r->a);
      const at::Tensor w = unit_of(r->b.to(at::kDouble) - at::dot(r->b.to(at::kDouble), u) * u);
      const at::Tensor pu = at::dot(h, u), pw = at::dot(h, w);
      const double t = s * r->angle;
      h = h - pu * u - pw * w + (std::cos(t) * pu - std::sin(t) * pw) * u + (std::sin(t) * pu + std::cos(t) * pw) * w;
    } else if (const auto* g = std::get_if<op::GatedAdd>(&e.op)) {
      const double gate = at::dot(h, g->w.to(at::kDouble)).item<double>() + g->b;
      if (gate > 0) h = h + s * g->a * gate * g->z.to(at::kDouble);
    } else if (const auto* sp = std::get_if<op::Splice>(&e.op)) {
      const at::Tensor x = sp->sae.reconstruct(h.to(at::kFloat).unsqueeze(0))[0].to(at::kDouble);
      if (!sp->with_error) h = h + s * (x - h);
    } else if (const auto* n = std::get_if<op::NormCap>(&e.op)) {
      const double limit = n->limit * (e.unit == Unit::residual_norm ? norm0 : 1), now = at::norm(h).item<double>();
      if (now > limit) h = h + s * (h * (limit / now) - h);
    } else if (std::holds_alternative<op::KeepNorm>(e.op)) {
      h = h + s * (h * (norm0 / at::norm(h).item<double>()) - h);
    } else if (const auto* c = std::get_if<op::Custom>(&e.op)) {
      const at::Tensor out = (*c->function)({.point = point,
                                             .h = h.to(at::kFloat).unsqueeze(0),
                                             .position = at::full({1}, position, at::kLong),
                                             .sequence = run.sequence});
      h = h + s * (out[0].to(at::kDouble) - h);
    }
  }
  return h;
}

/// A step whose sequence s is steered by `rows[s]`.
inline at::Tensor reference(std::span<const Steering> rows, const HookPoint& point, const FakeStep& step,
                            const at::Tensor& h) {
  at::Tensor result = h.to(at::kDouble).clone();
  for (const TokenRun& run : step.runs)
    for (std::int64_t t = run.begin; t < run.end; ++t)
      result[t] = reference_token(rows[run.sequence], point, run, run.position + t - run.begin, h[t]);
  return result;
}

}  // namespace steer::test
