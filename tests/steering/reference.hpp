#pragma once
// Steering as its contracts say it, one token and one edit at a time, in f64: full encode, edit, decode, plus error.

#include <ATen/TensorOperators.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_solve_ex.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <steer/core/random.hpp>
#include <steer/steering/steering.hpp>

#include "steering/edits/operation.hpp"
#include "steering/runtime.hpp"

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
    for (std::int64_t i = 0; i < count; ++i) ids.push_back(5 + (begin + i) % 3);
    runs.push_back({sequence, begin, begin + count, position, prompt_length, phase});
  }
  BatchView view() const { return {ids, runs}; }
  std::int64_t size() const { return static_cast<std::int64_t>(ids.size()); }
};

/// Steerings at work on made-up activations, as a session puts them to work: row r is sequence r.
class Rows {
 public:
  Rows(const ModelConfig& config, const std::optional<Tokenizer>& tokenizer, std::span<const Steering> rows,
       const CompileOptions& options = {}) {
    for (const Steering& steering : rows) {
      const auto same = std::find_if(rows.begin(), rows.begin() + std::ssize(programs_),
                                     [&](const Steering& before) { return before == steering; });
      const auto place = same - rows.begin();
      programs_.push_back(place < std::ssize(programs_) ? programs_[static_cast<std::size_t>(place)]
                                                        : std::make_shared<steering::detail::CompiledSteering>(
                                                              config, tokenizer, steering, options));
      memories_.push_back(programs_.back()->start());
    }
    next_.resize(rows.size());
  }
  /// One pass at one point, in place.
  void run(const HookPoint& point, const FakeStep& step, at::Tensor& value) {
    const BatchView view = step.view();
    std::map<CompiledIntervention*, std::vector<IntervenedRun>> groups;
    for (const TokenRun& run : step.runs) {
      const auto row = static_cast<std::size_t>(run.sequence);
      memories_[row]->see(run.position, view.ids.subspan(static_cast<std::size_t>(run.begin),
                                                         static_cast<std::size_t>(run.end - run.begin)));
      groups[programs_[row].get()].push_back({&run, memories_[row].get()});
      next_[row] = run.position + run.end - run.begin;
    }
    HookContext context{point, value, view};
    for (const auto& [program, runs] : groups) program->run(context, runs);
  }
  at::Tensor apply(const HookPoint& point, const FakeStep& step, const at::Tensor& h) {
    at::Tensor value = h.clone();
    run(point, step, value);
    return value;
  }
  void observe(SequenceId row, const at::Tensor& logits) {
    memory(row).observe(row, next_[static_cast<std::size_t>(row)], logits);
  }
  InterventionMemory& memory(SequenceId row) { return *memories_[static_cast<std::size_t>(row)]; }
  SteeringAudit audit(SequenceId row) { return memory(row).audit(); }
  const steering::detail::CompiledSteering& program(SequenceId row) const {
    return *programs_[static_cast<std::size_t>(row)];
  }
  /// Dot products that a token of a row costs at a point.
  std::int64_t dots(SequenceId row, const HookPoint& point) const {
    const auto* at = program(row).program().at(point);
    return at ? at->dots : 0;
  }

 private:
  std::vector<std::shared_ptr<steering::detail::CompiledSteering>> programs_;
  std::vector<std::unique_ptr<InterventionMemory>> memories_;
  std::vector<std::int64_t> next_;
};

inline bool in_scope(const Scope& s, const TokenRun& run, std::int64_t p, std::int64_t id) {
  if (p == 0 && !s.include_bos) return false;
  const bool generated = run.phase == Phase::generated;
  if (!s.tokens.empty() && std::count(s.tokens.begin(), s.tokens.end(), id) == 0) return false;
  for (Scope except : s.except) {
    except.include_bos = true;
    if (in_scope(except, run, p, id)) return false;
  }
  const std::int64_t from_end = p - run.prompt_length;  // -1: the last token of the prompt
  switch (s.where) {
    case Where::all:
      return true;
    case Where::prompt:
      return !generated;
    case Where::generated:
      return generated;
    case Where::onset:
      return generated && from_end < s.count;
    case Where::last:
      return !generated && from_end == -1;
    case Where::from_last:
      return generated || from_end == -1;
    case Where::span:
      return s.begin < 0 ? s.begin <= from_end && from_end < s.end : s.begin <= p && p < s.end;
    default:
      throw std::logic_error("tags are tested on text");
  }
}

/// The SAE of an edit of one feature.
inline std::optional<Sae> feature_of(const Edit& e) {
  const auto fields = e.op->fields();
  const auto has = [&](std::string_view name) {
    return std::find_if(fields.begin(), fields.end(), [&](const auto& f) { return f.name == name; });
  };
  if (has("feature") == fields.end()) return {};
  return std::get<Sae>(has("sae")->value);
}

/// What a feature edit makes of the activation f. @param share  what makes the decoded change |h|.
inline double reference_feature(const Edit& e, double f, double share) {
  double unit = 1;
  if (e.unit == StrengthUnit::max_activation) unit = e.number("max_activation");
  if (e.unit == StrengthUnit::residual_norm) unit = share;
  if (e.kind() == "nudge") return f + e.number("value") * unit;
  if (e.kind() == "pin") return e.number("value") * unit;
  if (e.kind() == "mul") return f * e.number("value");
  if (e.kind() == "clamp") return std::min(std::max(f, e.number("low") * unit), e.number("high") * unit);
  if (e.kind() == "cap") return std::min(f, e.number("high") * unit);
  if (e.kind() == "ablate") return 0;
  throw std::logic_error("a feature edit that the reference does not know: " + std::string(e.kind()));
}

struct ReferencePlace {
  HookPoint point;
  std::int64_t position;
  SequenceId sequence;
};

/// What any other edit makes of h at strength 1 (rotate: at its own), as the builders' contracts say it.
inline at::Tensor reference_edit(const Edit& e, const at::Tensor& h, double norm0, const ReferencePlace& place) {
  const auto vec = [&](const char* name) { return e.vector(name).to(at::kDouble); };
  const auto unit = [](const at::Tensor& v) { return v / at::norm(v); };
  const bool by_norm = e.unit == StrengthUnit::residual_norm;
  const auto field = [&](std::string_view name) {
    for (const auto& f : e.op->fields())
      if (f.name == name) return f.value;
    throw std::logic_error("no such field");
  };
  if (e.kind() == "add") return h + (by_norm ? norm0 * unit(vec("vector")) : vec("vector"));
  if (e.kind() == "project_out") return h - at::dot(h, unit(vec("vector"))) * unit(vec("vector"));
  if (e.kind() == "scale_along") {
    const at::Tensor v = unit(vec("vector"));
    return h + (e.number("factor") - 1) * at::dot(h, v) * v;
  }
  if (e.kind() == "project_to") {
    const at::Tensor v = unit(vec("vector"));
    const double now = at::dot(h, v).item<double>(), target = e.number("target") * (by_norm ? norm0 : 1);
    const std::string side = std::get<std::string>(field("side"));
    const bool acts = side == "both" || (side == "below" ? now < target : now > target);
    return acts ? h + (target - now) * v : h;
  }
  if (e.kind() == "set_along_metric") return h + (e.number("target") - at::dot(h, vec("vector"))) * vec("along");
  if (e.kind() == "swap") {
    // The linear map that sends a^ to b^, b^ to a^ and leaves what is orthogonal to both: by least squares.
    const at::Tensor basis = at::stack({unit(vec("a")), unit(vec("b"))}, 1);
    const at::Tensor gram = at::matmul(basis.t(), basis);
    const at::Tensor parts = std::get<0>(at::linalg_solve_ex(gram, at::mv(basis.t(), h)));
    return h - at::mv(basis, parts) + at::mv(basis, parts.flip(0));
  }
  if (e.kind() == "rotate") {
    const at::Tensor u = unit(vec("a")), w = unit(vec("b") - at::dot(vec("b"), u) * u);
    const at::Tensor pu = at::dot(h, u), pw = at::dot(h, w);
    const double t = e.strength * e.number("radians");
    const at::Tensor turned =
        h - pu * u - pw * w + (std::cos(t) * pu - std::sin(t) * pw) * u + (std::sin(t) * pu + std::cos(t) * pw) * w;
    return h + (turned - h) / e.strength;
  }
  if (e.kind() == "gated_add") {
    const double gate = at::dot(h, vec("gate")).item<double>() + e.number("gate_bias");
    return gate > 0 ? h + e.number("gain") * gate * vec("vector") : h;
  }
  if (e.kind() == "splice") {
    const at::Tensor x = std::get<Sae>(field("sae")).reconstruct(h.to(at::kFloat).unsqueeze(0))[0].to(at::kDouble);
    return std::get<bool>(field("with_error")) ? h : x;
  }
  const double now = at::norm(h).item<double>();
  if (e.kind() == "cap_norm") {
    const double limit = e.number("limit") * (by_norm ? norm0 : 1);
    return now > limit ? h * (limit / now) : h;
  }
  if (e.kind() == "keep_norm") return now > 0 ? h * (norm0 / now) : h;
  if (e.kind() == "custom") {
    const auto function = std::get<std::shared_ptr<const CustomFunction>>(field("function"));
    const at::Tensor out = (*function)({.point = place.point,
                                        .h = h.to(at::kFloat).unsqueeze(0),
                                        .position = at::full({1}, place.position, at::kLong),
                                        .sequence = place.sequence});
    return out[0].to(at::kDouble);
  }
  throw std::logic_error("an edit that the reference does not know: " + std::string(e.kind()));
}

/// What an edit did to one row, as SteeringAudit counts it.
struct ReferenceAudit {
  std::int64_t in_scope = 0;
  std::vector<double> changes;  ///< |change| / |h on arrival|, of every token in scope
};

/// One token, in f64. @param audit  by edit; may be empty.
inline at::Tensor reference_token(const Steering& steering, const HookPoint& point, const TokenRun& run,
                                  std::int64_t position, std::int64_t id, const at::Tensor& arrived,
                                  std::span<ReferenceAudit> audit) {
  at::Tensor h = arrived.to(at::kDouble).clone();
  const double norm0 = at::norm(h).item<double>();
  const auto edits = steering.edits();
  const auto change = [&](std::size_t edit, double size) {
    if (audit.empty()) return;
    ++audit[edit].in_scope;
    audit[edit].changes.push_back(norm0 > 0 ? size / norm0 : size > 0 ? 1 : 0);
  };
  for (std::size_t i = 0; i < edits.size();) {
    const Edit& e = edits[i];
    if (e.point != point) {
      ++i;
      continue;
    }
    if (const auto first = feature_of(e)) {
      // All feature edits that follow on the same SAE: encode, edit in order, decode, add the error.
      const Sae& sae = *first;
      const at::Tensor x = h.to(at::kFloat).unsqueeze(0);
      const at::Tensor f = sae.encode(x);
      const at::Tensor error = h - sae.decode(f, x)[0].to(at::kDouble);
      at::Tensor g = f.clone();
      for (; i < edits.size() && edits[i].point == point; ++i) {
        const auto same = feature_of(edits[i]);
        if (!same || same->hash() != sae.hash()) break;
        if (!in_scope(edits[i].scope, run, position, id)) continue;
        const auto index = static_cast<std::int64_t>(edits[i].number("feature"));
        at::Tensor probe = at::zeros_like(f);
        probe[0][index] = 1;
        const double reach =
            at::norm((sae.decode(probe, x) - sae.decode(at::zeros_like(f), x)).to(at::kDouble)).item<double>();
        const double old = g[0][index].item<double>();
        const double now = old + edits[i].strength * (reference_feature(edits[i], old, norm0 / reach) - old);
        g[0][index] = now;
        change(i, std::abs(now - old) * reach);
      }
      h = sae.decode(g, x)[0].to(at::kDouble) + error;
      continue;
    }
    const std::size_t number = i++;
    if (!in_scope(e.scope, run, position, id)) continue;
    const at::Tensor next = h + e.strength * (reference_edit(e, h, norm0, {point, position, run.sequence}) - h);
    change(number, at::norm(next - h).item<double>());
    h = next;
  }
  return h;
}

/// A step whose sequence s is steered by `rows[s]`.
inline at::Tensor reference(std::span<const Steering> rows, const HookPoint& point, const FakeStep& step,
                            const at::Tensor& h, std::vector<std::vector<ReferenceAudit>>* audits = nullptr) {
  if (audits) {
    audits->clear();
    for (const Steering& s : rows) audits->emplace_back(s.edits().size());
  }
  at::Tensor result = h.to(at::kDouble).clone();
  for (const TokenRun& run : step.runs)
    for (std::int64_t t = run.begin; t < run.end; ++t)
      result[t] = reference_token(rows[run.sequence], point, run, run.position + t - run.begin, step.ids[t], h[t],
                                  audits ? std::span((*audits)[run.sequence]) : std::span<ReferenceAudit>());
  return result;
}

}  // namespace steer::test
