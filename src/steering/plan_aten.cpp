// One hook point's pass through libtorch's operators: other devices, other dtypes, and runs under autograd. The same
// stages as plan_cpu.cpp, one tensor of tokens for each distinct program. Counting waits on the device until someone
// asks for the audit, so that a step does not.

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <cmath>
#include <map>

#include <steer/core/error.hpp>

#include "steering/plan_state.hpp"

namespace steer {
namespace steering::detail {
namespace {

/// A feature stage's numbers as tensors where the activations are, [features] each.
struct FeatureTensors {
  at::Tensor encoder, decoder;  ///< [features, width]; rows of features that are not read are zero
  at::Tensor offset, gain, bias, gate_bias, threshold, encoder_sum;
};

at::Tensor column(const Stage& stage, float FeatureRow::*field, at::Device device) {
  at::Tensor values = at::empty({static_cast<std::int64_t>(stage.features.size())});
  for (std::size_t i = 0; i < stage.features.size(); ++i)
    values[static_cast<std::int64_t>(i)] = stage.features[i].*field;
  return values.to(device);
}

FeatureTensors feature_tensors(const Stage& stage, const at::Tensor& table) {
  std::vector<at::Tensor> encoder, decoder;
  for (const FeatureRow& f : stage.features) {
    encoder.push_back(f.encoder >= 0 ? table[f.encoder] : at::zeros({table.size(1)}, table.options()));
    decoder.push_back(table[f.decoder]);
  }
  const auto device = table.device();
  return {at::stack(encoder),
          at::stack(decoder),
          column(stage, &FeatureRow::offset, device),
          column(stage, &FeatureRow::gain, device),
          column(stage, &FeatureRow::bias, device),
          column(stage, &FeatureRow::gate_bias, device),
          column(stage, &FeatureRow::threshold, device),
          column(stage, &FeatureRow::encoder_sum, device)};
}

/// All runs of one program at one point, as one tensor.
class TensorRunner {
 public:
  TensorRunner(const at::Tensor& h, const at::Tensor& table, std::vector<const Item*> items, const HookPoint& point)
      : table_(table), items_(std::move(items)), point_(point), h_(h), arrival_(at::norm(h.detach(), 2, {1}, true)) {
    const auto lines = items_.front()->point->slots.size();
    changes_.resize(lines, at::full({h.size(0)}, kOutOfScope, h.options().requires_grad(false)));
  }

  void run() {
    for (const Stage& stage : items_.front()->point->stages) run(stage);
  }
  /// The activations after all stages, f32.
  const at::Tensor& result() const { return h_; }
  /// [tokens, lines], as TokenWork::change.
  at::Tensor changes() const { return at::stack(changes_, 1); }

 private:
  /// [tokens, 1] of bool: whom the member selects; undefined when nobody.
  at::Tensor selected(const Member& m) const {
    at::Tensor mask = at::empty({h_.size(0), 1}, at::kBool);
    bool* out = mask.data_ptr<bool>();
    bool any = false;
    for (const Item* item : items_)
      for (std::int64_t t = item->run->begin; t < item->run->end; ++t)
        any |= * out++ = selects(m, *item->state, *item->run, item->run->position + t - item->run->begin);
    return any ? mask.to(h_.device()) : at::Tensor();
  }

  /// Notes by how much (|change|, [tokens, 1]) a member moved its tokens.
  void note(const Member& m, const at::Tensor& mask, const at::Tensor& moved) {
    const at::Tensor size = moved.detach();
    const at::Tensor relative = at::where(arrival_ > 0, size / arrival_, (size > 0).to(at::kFloat));
    changes_[m.line] = at::where(mask, relative, static_cast<double>(kOutOfScope)).squeeze(1);
  }

  /// h += c row for the masked tokens whose coefficient c [tokens, 1] is not 0; the others keep their bits.
  void add(const at::Tensor& mask, const at::Tensor& c, const at::Tensor& row) {
    h_ = at::where(at::logical_and(mask, c != 0), h_ + c * row, h_);
  }

  void run(const Stage& stage) {
    if (stage.kind == StageKind::features) return features(stage);
    if (stage.kind == StageKind::constant) return constant(stage);
    const Member& m = stage.members.front();
    const at::Tensor mask = selected(m);
    if (!mask.defined()) return;
    switch (stage.kind) {
      case StageKind::project:
        return project(stage, m, mask);
      case StageKind::rotate:
        return rotate(stage, m, mask);
      case StageKind::gated:
        return gated(stage, m, mask);
      case StageKind::cap_norm: {
        const at::Tensor limit = m.by_norm ? arrival_ * stage.target : at::full_like(arrival_, stage.target);
        const at::Tensor n = at::norm(h_, 2, {1}, true);
        return replace(m, at::logical_and(mask, n > limit), mask, h_ * (limit / n));
      }
      case StageKind::keep_norm: {
        const at::Tensor n = at::norm(h_, 2, {1}, true);
        return replace(m, at::logical_and(at::logical_and(mask, n > 0), n != arrival_), mask, h_ * (arrival_ / n));
      }
      case StageKind::splice: {
        const at::Tensor x = stage.sae->reconstruct(h_.to(stage.sae->device())).to(h_.device()).reshape(h_.sizes());
        return replace(m, mask, mask, stage.with_error ? x + (h_ - x) : x);
      }
      default:
        return custom(stage, m, mask);
    }
  }

  void constant(const Stage& stage) {
    const at::Tensor mask = selected(stage.members.front());
    if (!mask.defined()) return;
    const bool by_norm = stage.members.front().by_norm;
    const at::Tensor c = by_norm ? arrival_ : at::ones_like(arrival_);
    add(mask, c, table_[stage.combined]);
    for (const Member& m : stage.members) note(m, mask, c * static_cast<double>(m.row_norm));
  }

  void features(const Stage& stage) {
    std::vector<at::Tensor> masks;
    bool any = false;
    for (const Member& m : stage.members) any |= masks.emplace_back(selected(m)).defined();
    if (!any) return;
    const FeatureTensors t = feature_tensors(stage, table_);
    at::Tensor shift, in, out;
    measure(stage.normalization, shift, in, out);
    const at::Tensor before = stage.full ? read_all(stage) : read_each(t, shift, in);
    std::vector<at::Tensor> after = at::unbind(before, 1);
    for (std::size_t i = 0; i < stage.members.size(); ++i) {
      if (!masks[i].defined()) continue;
      const Member& m = stage.members[i];
      const at::Tensor f = after[m.feature].unsqueeze(1);
      const at::Tensor reach = out * static_cast<double>(stage.features[m.feature].decoder_norm);
      const at::Tensor unit = m.by_norm ? at::where(reach > 0, arrival_ / reach, 0.0) : at::ones_like(arrival_);
      const at::Tensor delta = at::where(masks[i], (edited(m, f, unit) - f) * static_cast<double>(m.strength), 0.0);
      after[m.feature] = (f + delta).squeeze(1);
      note(m, masks[i], delta.abs() * reach);
    }
    const at::Tensor c = (at::stack(after, 1) - before) * out;
    h_ = at::where((c != 0).any(1, /*keepdim=*/true), h_ + at::matmul(c, t.decoder), h_);
  }

  void measure(SaeNormalization kind, at::Tensor& shift, at::Tensor& in, at::Tensor& out) const {
    const at::Tensor one = at::ones_like(arrival_);
    shift = at::zeros_like(arrival_);
    in = out = one;
    if (kind == SaeNormalization::constant_norm_rescale) {
      const at::Tensor n = at::norm(h_, 2, {1}, true);
      in = out = at::where(n > 0, n, one) / std::sqrt(static_cast<double>(h_.size(1)));
    } else if (kind == SaeNormalization::layer_norm) {
      shift = h_.mean(1, true);
      out = (h_ - shift).std(1, /*unbiased=*/true, /*keepdim=*/true);
      in = out + 1e-5;
    }
  }

  at::Tensor read_each(const FeatureTensors& t, const at::Tensor& shift, const at::Tensor& in) const {
    const at::Tensor y = (at::matmul(h_, t.encoder.t()) - shift * t.encoder_sum) / in + t.offset;
    return at::where(y + t.gate_bias > t.threshold, at::relu(y * t.gain + t.bias), 0.0) * read_mask(t);
  }
  /// Features that are only nudged count from 0.
  static at::Tensor read_mask(const FeatureTensors& t) { return t.encoder.ne(0).any(1).to(at::kFloat); }
  at::Tensor read_all(const Stage& stage) const {
    std::vector<std::int64_t> features;
    for (const FeatureRow& f : stage.features) features.push_back(f.index);
    return stage.sae->encode_subset(h_.to(stage.sae->device()), features).to(h_.device());
  }

  static at::Tensor edited(const Member& m, const at::Tensor& f, const at::Tensor& unit) {
    const auto bound = [&](float b) { return std::isinf(b) ? at::full_like(f, b) : unit * static_cast<double>(b); };
    switch (m.action) {
      case FeatureAction::nudge:
        return f + unit * static_cast<double>(m.value);
      case FeatureAction::pin:
        return unit * static_cast<double>(m.value) + at::zeros_like(f);
      case FeatureAction::mul:
        return f * static_cast<double>(m.value);
      case FeatureAction::clamp:
        return at::minimum(at::maximum(f, bound(m.low)), bound(m.high));
      case FeatureAction::cap:
        return at::minimum(f, bound(m.high));
      case FeatureAction::ablate:
        return at::zeros_like(f);
    }
    return f;
  }

  at::Tensor dot(int row) const { return at::mv(h_, table_[row]).unsqueeze(1); }

  void project(const Stage& stage, const Member& m, const at::Tensor& mask) {
    const at::Tensor p = dot(stage.a);
    at::Tensor c;
    if (stage.to_target) {
      const at::Tensor target = m.by_norm ? arrival_ * stage.target : at::full_like(arrival_, stage.target);
      c = (target - p) * m.strength;
      if (stage.side == Side::below) c = at::where(p < target, c, 0.0);
      if (stage.side == Side::above) c = at::where(p > target, c, 0.0);
    } else {
      c = p * (m.strength * (stage.factor - 1));
    }
    add(mask, c, table_[stage.a]);
    note(m, mask, c.abs());
  }

  void rotate(const Stage& stage, const Member& m, const at::Tensor& mask) {
    const at::Tensor a = dot(stage.a), b = dot(stage.b);
    const at::Tensor ca = a * (stage.cosine - 1) - b * stage.sine, cb = a * stage.sine + b * (stage.cosine - 1);
    add(mask, ca, table_[stage.a]);
    add(mask, cb, table_[stage.b]);
    note(m, mask, at::hypot(ca, cb));
  }

  void gated(const Stage& stage, const Member& m, const at::Tensor& mask) {
    const at::Tensor c = at::relu(dot(stage.a) + stage.gate_bias) * (m.strength * stage.gain);
    add(mask, c, table_[stage.b]);
    note(m, mask, c.abs() * static_cast<double>(stage.b_norm));
  }

  /// h + s (changed - h) for the tokens of `acting`, which are some of `mask`.
  void replace(const Member& m, const at::Tensor& acting, const at::Tensor& mask, const at::Tensor& changed) {
    const at::Tensor result = m.strength == 1 ? changed : h_ + (changed - h_) * m.strength;
    const at::Tensor next = at::where(acting, result, h_);
    note(m, mask, at::norm(next.detach() - h_.detach(), 2, {1}, true));
    h_ = next;
  }

  /// A custom function sees one row at a time, and only the tokens selected.
  void custom(const Stage& stage, const Member& m, const at::Tensor& mask) {
    const at::Tensor host = mask.to(at::kCPU);
    const bool* chosen = host.const_data_ptr<bool>();
    at::Tensor changed = h_;
    std::int64_t row = 0;
    for (const Item* item : items_) {
      std::vector<std::int64_t> rows, positions;
      for (std::int64_t t = item->run->begin; t < item->run->end; ++t, ++row)
        if (chosen[row]) rows.push_back(row), positions.push_back(item->run->position + t - item->run->begin);
      if (rows.empty()) continue;
      const at::Tensor index = at::tensor(rows).to(h_.device());
      const at::Tensor h = h_.index_select(0, index);
      const at::Tensor result = (*stage.function)(
          {.point = point_, .h = h, .position = at::tensor(positions), .sequence = item->run->sequence});
      require(result.defined() && result.sizes() == h.sizes(), ErrorCode::shape, "Steering::custom",
              "expected a custom edit to return [{}, {}] but got {} dimensions", h.size(0), h.size(1),
              result.defined() ? result.dim() : 0);
      changed = changed.index_copy(0, index, result.to(h.options()));
    }
    replace(m, mask, mask, changed);
  }

  const at::Tensor& table_;
  std::vector<const Item*> items_;
  HookPoint point_;
  at::Tensor h_, arrival_;
  std::vector<at::Tensor> changes_;
};

}  // namespace
}  // namespace steering::detail

void SteeringPlan::Impl::run_aten(HookContext& at, int point) {
  std::map<const steering::detail::PointProgram*, std::vector<const steering::detail::Item*>> by_program;
  for (const steering::detail::Item& item : items)
    if (!item.point->stages.empty()) by_program[item.point].push_back(&item);
  const at::Tensor& table = table_on(point, at.value.device());
  for (const auto& [program, its_items] : by_program) {
    std::vector<std::int64_t> rows;
    for (const steering::detail::Item* item : its_items)
      for (std::int64_t t = item->run->begin; t < item->run->end; ++t) rows.push_back(t);
    const at::Tensor index = at::tensor(rows).to(at.value.device());
    steering::detail::TensorRunner runner(at.value.index_select(0, index).to(at::kFloat), table, its_items, at.point);
    runner.run();
    const at::Tensor result = runner.result().to(at.value.scalar_type());
    if (result.requires_grad() || at.value.requires_grad())
      at.value = at.value.index_copy(0, index, result);
    else
      at.value.index_copy_(0, index, result);
    steering::detail::PendingCount& wait = pending.emplace_back();
    wait.changes = runner.changes();
    wait.point = program;
    for (const steering::detail::Item* item : its_items)
      wait.runs.emplace_back(item->state->row, item->run->end - item->run->begin);
  }
  constexpr std::size_t kMostPending = 4096;
  if (pending.size() >= kMostPending) settle();
}

void SteeringPlan::Impl::settle() {
  for (const steering::detail::PendingCount& wait : pending) {
    const at::Tensor host = wait.changes.to(at::kCPU).contiguous();
    const float* change = host.const_data_ptr<float>();
    for (const auto& [row, tokens] : wait.runs) {
      count(row, *wait.point, tokens, change);
      change += tokens * static_cast<std::int64_t>(wait.point->slots.size());
    }
  }
  pending.clear();
}

}  // namespace steer
