// One hook point's pass on the CPU over f32 activations: each token is read and written in place, stage after stage,
// while it lies in the nearest cache.

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include <steer/core/error.hpp>

#include "steering/kernels.hpp"
#include "steering/plan_state.hpp"

namespace steer {
namespace steering::detail {
namespace {

/// Room for one token's features and coefficients; one per thread.
struct Scratch {
  std::vector<float> before, after, coefficients;
  std::vector<const float*> rows;
  std::vector<int> which;
  void resize(std::size_t n) {
    if (before.size() >= n) return;
    before.resize(n);
    after.resize(n);
    coefficients.resize(n);
    rows.resize(n);
    which.resize(n);
  }
};
thread_local Scratch scratch;

/// An SAE's input normalisation of one token: x~ = (x - shift) / in, undone by * out.
struct TokenNorm {
  float shift = 0, in = 1, out = 1;
};

TokenNorm measure(const float* h, std::int64_t width, SaeNormalization kind) {
  if (kind == SaeNormalization::none) return {};
  double sum = 0, squares = 0;
  for (std::int64_t i = 0; i < width; ++i) sum += h[i];
  const double mean = kind == SaeNormalization::layer_norm ? sum / static_cast<double>(width) : 0;
  for (std::int64_t i = 0; i < width; ++i) squares += (h[i] - mean) * (h[i] - mean);
  if (kind == SaeNormalization::constant_norm_rescale) {
    const double norm = squares > 0 ? std::sqrt(squares) : 1;
    const auto scale = static_cast<float>(norm / std::sqrt(static_cast<double>(width)));
    return {0, scale, scale};
  }
  const double deviation = std::sqrt(squares / static_cast<double>(width - 1));
  return {static_cast<float>(mean), static_cast<float>(deviation + 1e-5), static_cast<float>(deviation)};
}

/// Runs stages on tokens of one table's width.
class TokenRunner {
 public:
  explicit TokenRunner(const ConstantTable& table) : table_(table), width_(table.width) {}

  /// All stages up to the next that needs many tokens at once, or the end.
  void advance(TokenWork& token) const {
    const auto& stages = token.item->point->stages;
    const int count = static_cast<int>(stages.size());
    while (token.stage < count && !stages[token.stage].bulk()) run(stages[token.stage++], token);
  }

  /// A stage of feature edits. @param read  the activations by feature of the stage where a full encode gave them.
  void features(const Stage& stage, TokenWork& token, const float* read) const {
    Scratch& s = scratch;
    const std::size_t n = stage.features.size();
    s.resize(n);
    bool any = false;
    for (const Member& m : stage.members) any |= enter(m, token);
    if (!any) return;
    arrive(token);
    const TokenNorm norm = measure(token.h, width_, stage.normalization);
    if (read)
      std::copy_n(read, n, s.before.begin());
    else
      read_features(stage, token, norm, s);
    std::copy_n(s.before.begin(), n, s.after.begin());
    for (const Member& m : stage.members) {
      float& change = token.change[m.line];
      if (change == kOutOfScope) continue;
      const FeatureRow& feature = stage.features[m.feature];
      const float reach = feature.decoder_norm * norm.out;  // what one unit of the feature moves h by
      const float unit = m.by_norm ? (reach > 0 ? token.norm / reach : 0.f) : 1.f;
      const float delta = m.strength * (edited(m, s.after[m.feature], unit) - s.after[m.feature]);
      s.after[m.feature] += delta;
      change = relative(std::abs(delta) * reach, token);
    }
    std::int64_t count = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const float c = (s.after[i] - s.before[i]) * norm.out;
      if (c == 0) continue;
      s.coefficients[count] = c;
      s.rows[count++] = table_.row(stage.features[i].decoder);
    }
    if (count == 0) return;
    add_scaled(token.h, s.rows.data(), s.coefficients.data(), count, width_);
    token.changed = true;
  }

  /// Marks a member's line; whether it selects the token.
  static bool enter(const Member& m, TokenWork& token) {
    const bool selected = selects(m, *token.item->state, *token.item->run, token.position);
    token.change[m.line] = selected ? 0 : kOutOfScope;
    return selected;
  }

  /// Measures |h| on arrival, once.
  void arrive(TokenWork& token) const {
    if (token.norm < 0) token.norm = std::sqrt(moments(token.h, width_).sum_squares);
  }

  static float relative(float change, const TokenWork& token) {
    return token.norm > 0 ? change / token.norm : (change > 0 ? 1.f : 0.f);
  }

 private:
  void run(const Stage& stage, TokenWork& token) const {
    switch (stage.kind) {
      case StageKind::constant:
        return constant(stage, token);
      case StageKind::features:
        return features(stage, token, nullptr);
      default:
        break;
    }
    const Member& m = stage.members.front();
    if (!enter(m, token)) return;
    arrive(token);
    float moved = 0;
    switch (stage.kind) {
      case StageKind::project:
        moved = project(stage, m, token);
        break;
      case StageKind::rotate:
        moved = rotate(stage, token);
        break;
      case StageKind::gated:
        moved = gated(stage, m, token);
        break;
      case StageKind::cap_norm:
        moved = cap_norm(stage, m, token);
        break;
      case StageKind::keep_norm:
        moved = keep_norm(m, token);
        break;
      default:
        break;
    }
    token.change[m.line] = relative(moved, token);
    token.changed |= moved != 0;
  }

  void constant(const Stage& stage, TokenWork& token) const {
    bool any = false;
    for (const Member& m : stage.members) any = enter(m, token);  // all have one scope and condition
    if (!any) return;
    const float* row = table_.row(stage.combined);
    const bool by_norm = stage.members.front().by_norm;
    if (by_norm) {
      arrive(token);
      add_scaled(token.h, &row, &token.norm, 1, width_);
    } else if (token.norm < 0) {
      token.norm = std::sqrt(add_measured(token.h, row, width_));
    } else {
      const float one = 1;
      add_scaled(token.h, &row, &one, 1, width_);
    }
    for (const Member& m : stage.members)
      token.change[m.line] = by_norm ? (token.norm > 0 ? m.row_norm : 0.f) : relative(m.row_norm, token);
    token.changed = true;
  }

  void read_features(const Stage& stage, const TokenWork& token, const TokenNorm& norm, Scratch& s) const {
    std::int64_t count = 0;
    for (std::size_t i = 0; i < stage.features.size(); ++i) {
      s.before[i] = 0;
      if (!stage.features[i].read) continue;
      s.which[count] = static_cast<int>(i);
      s.rows[count++] = table_.row(stage.features[i].encoder);
    }
    dots(token.h, s.rows.data(), count, width_, s.coefficients.data());
    for (std::int64_t j = 0; j < count; ++j) {
      const FeatureRow& feature = stage.features[s.which[j]];
      const float y = (s.coefficients[j] - norm.shift * feature.encoder_sum) / norm.in;
      s.before[s.which[j]] = feature.activation(y);
    }
  }

  /// What the edit makes of activation f.
  static float edited(const Member& m, float f, float unit) {
    switch (m.action) {
      case FeatureAction::nudge:
        return f + m.value * unit;
      case FeatureAction::pin:
        return m.value * unit;
      case FeatureAction::mul:
        return m.value * f;
      case FeatureAction::clamp:
        return std::min(std::max(f, bound(m.low, unit)), bound(m.high, unit));
      case FeatureAction::cap:
        return std::min(f, bound(m.high, unit));
      case FeatureAction::ablate:
        return 0;
    }
    return f;
  }
  static float bound(float b, float unit) { return std::isinf(b) ? b : b * unit; }

  float dot(const TokenWork& token, int row) const {
    const float* r = table_.row(row);
    float result = 0;
    dots(token.h, &r, 1, width_, &result);
    return result;
  }

  float add(TokenWork& token, int row, float c) const {
    if (c == 0) return 0;
    const float* r = table_.row(row);
    add_scaled(token.h, &r, &c, 1, width_);
    return std::abs(c);
  }

  float project(const Stage& stage, const Member& m, TokenWork& token) const {
    const float p = dot(token, stage.a);
    if (!stage.to_target) return add(token, stage.a, m.strength * (stage.factor - 1) * p);
    const float target = stage.target * (m.by_norm ? token.norm : 1.f);
    if ((stage.side == Side::below && !(p < target)) || (stage.side == Side::above && !(p > target))) return 0;
    return add(token, stage.a, m.strength * (target - p));
  }

  float rotate(const Stage& stage, TokenWork& token) const {
    const float* rows[2] = {table_.row(stage.a), table_.row(stage.b)};
    float p[2];
    dots(token.h, rows, 2, width_, p);
    const float c[2] = {(stage.cosine - 1) * p[0] - stage.sine * p[1], stage.sine * p[0] + (stage.cosine - 1) * p[1]};
    if (c[0] == 0 && c[1] == 0) return 0;
    add_scaled(token.h, rows, c, 2, width_);
    return std::hypot(c[0], c[1]);
  }

  float gated(const Stage& stage, const Member& m, TokenWork& token) const {
    const float gate = dot(token, stage.a) + stage.gate_bias;
    return gate > 0 ? add(token, stage.b, m.strength * stage.gain * gate) * stage.b_norm : 0;
  }

  float length(const TokenWork& token) const {
    return token.changed ? std::sqrt(moments(token.h, width_).sum_squares) : token.norm;
  }

  float resize(TokenWork& token, float from, float to, float strength) const {
    const float c = 1 + strength * (to / from - 1);
    if (c == 1) return 0;
    scale(token.h, c, width_);
    return std::abs(c - 1) * from;
  }

  float cap_norm(const Stage& stage, const Member& m, TokenWork& token) const {
    const float limit = stage.target * (m.by_norm ? token.norm : 1.f), n = length(token);
    return n > limit ? resize(token, n, limit, m.strength) : 0;
  }

  float keep_norm(const Member& m, TokenWork& token) const {
    if (!token.changed) return 0;
    const float n = length(token);
    return n > 0 ? resize(token, n, token.norm, m.strength) : 0;
  }

  const ConstantTable& table_;
  std::int64_t width_;
};

/// Tokens that wait for one stage over tensors, and what that stage needs.
struct BulkGroup {
  const Stage* stage = nullptr;
  std::vector<TokenWork*> tokens;
};

at::Tensor gathered(const std::vector<TokenWork*>& tokens, std::int64_t width) {
  at::Tensor h = at::empty({static_cast<std::int64_t>(tokens.size()), width});
  for (std::size_t i = 0; i < tokens.size(); ++i)
    std::memcpy(h.data_ptr<float>() + i * width, tokens[i]->h, width * sizeof(float));
  return h;
}

/// h += s (h' - h) for each token; at s = 1 h' itself.
void replace(const std::vector<TokenWork*>& tokens, const at::Tensor& h, const at::Tensor& changed,
             const Stage& stage) {
  const std::int64_t width = h.size(1);
  const float s = stage.members.front().strength;
  const at::Tensor result = s == 1 ? changed.to(at::kFloat).contiguous() : (h + s * (changed - h)).contiguous();
  const at::Tensor moved = at::norm(result - h, 2, {1}).contiguous();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const float m = moved.const_data_ptr<float>()[i];
    tokens[i]->change[stage.members.front().line] = TokenRunner::relative(m, *tokens[i]);
    if (m == 0) continue;
    std::memcpy(tokens[i]->h, result.const_data_ptr<float>() + i * width, width * sizeof(float));
    tokens[i]->changed = true;
  }
}

void run_custom(const Stage& stage, const std::vector<TokenWork*>& tokens, const at::Tensor& h,
                const HookPoint& point) {
  at::Tensor positions = at::empty({h.size(0)}, at::kLong);
  for (std::size_t i = 0; i < tokens.size(); ++i) positions.data_ptr<std::int64_t>()[i] = tokens[i]->position;
  const at::Tensor result = (*stage.function)(
      {.point = point, .h = h.clone(), .position = positions, .sequence = tokens.front()->item->run->sequence});
  require(result.defined() && result.sizes() == h.sizes(), ErrorCode::shape, "Steering::custom",
          "expected a custom edit to return [{}, {}] but got {} dimensions and {} elements", h.size(0), h.size(1),
          result.defined() ? result.dim() : 0, result.defined() ? result.numel() : 0);
  replace(tokens, h, result.to(at::kCPU), stage);
}

/// Feature edits after one full encode for all waiting tokens, whatever row they belong to.
void run_full_features(const std::vector<TokenWork*>& tokens, const at::Tensor& h, const TokenRunner& runner) {
  std::map<std::int64_t, std::int64_t> column;
  for (const TokenWork* token : tokens)
    for (const FeatureRow& f : token->item->point->stages[token->stage].features) column.emplace(f.index, 0);
  std::vector<std::int64_t> features;
  for (auto& [feature, place] : column) {
    place = static_cast<std::int64_t>(features.size());
    features.push_back(feature);
  }
  const Sae& sae = *tokens.front()->item->point->stages[tokens.front()->stage].sae;
  const at::Tensor f = sae.encode_subset(h.to(sae.device()), features).to(at::kCPU).contiguous();
  std::vector<float> read;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const Stage& stage = tokens[i]->item->point->stages[tokens[i]->stage];
    read.resize(stage.features.size());
    for (std::size_t j = 0; j < read.size(); ++j)
      read[j] = f.const_data_ptr<float>()[i * features.size() + column.at(stage.features[j].index)];
    runner.features(stage, *tokens[i], read.data());
  }
}

bool any_selected(const Stage& stage, TokenWork& token) {
  bool any = false;
  for (const Member& m : stage.members) any |= TokenRunner::enter(m, token);
  return any;
}

/// What stages must share to run together: one encode serves all rows; a custom function sees one row at a time.
std::string bulk_key(const TokenWork& token, const Stage& stage) {
  if (stage.kind == StageKind::custom) return fmt::format("c{}.{}", static_cast<const void*>(token.item), token.stage);
  const Member& m = stage.members.front();
  return stage.kind == StageKind::splice
             ? fmt::format("s{}.{}.{}.{}", stage.sae->hash(), stage.with_error, m.strength, m.line)
             : "f" + stage.sae->hash();
}

/// Runs every stage that tokens wait for, and moves those tokens past it.
void run_bulk(std::vector<TokenWork>& tokens, const TokenRunner& runner, std::int64_t width, const HookPoint& point) {
  const at::NoGradGuard no_grad;
  std::map<std::string, BulkGroup> groups;
  for (TokenWork& token : tokens) {
    const auto& stages = token.item->point->stages;
    if (token.stage >= static_cast<int>(stages.size())) continue;
    const Stage& stage = stages[token.stage];
    if (!any_selected(stage, token)) {
      ++token.stage;
      continue;
    }
    runner.arrive(token);
    BulkGroup& group = groups[bulk_key(token, stage)];
    group.stage = &stage;
    group.tokens.push_back(&token);
  }
  for (auto& [key, group] : groups) {
    const at::Tensor h = gathered(group.tokens, width);
    const Stage& stage = *group.stage;
    if (stage.kind == StageKind::custom) {
      run_custom(stage, group.tokens, h, point);
    } else if (stage.kind == StageKind::splice) {
      const at::Tensor x = stage.sae->reconstruct(h.to(stage.sae->device())).to(at::kCPU).reshape(h.sizes());
      replace(group.tokens, h, stage.with_error ? x + (h - x) : x, stage);
    } else {
      run_full_features(group.tokens, h, runner);
    }
    for (TokenWork* token : group.tokens) ++token->stage;
  }
}

}  // namespace
}  // namespace steering::detail

using steering::detail::Item;

void SteeringPlan::Impl::run_cpu(HookContext& at, int point) {
  const steering::detail::ConstantTable& table = plan.tables[point];
  const steering::detail::TokenRunner runner(table);
  tokens.clear();
  std::size_t lines = 0, stages = 0;
  for (const Item& item : items) lines += (item.run->end - item.run->begin) * item.point->slots.size();
  changes.assign(lines, steering::detail::kOutOfScope);
  float* change = changes.data();
  float* h = at.value.data_ptr<float>();
  const std::int64_t stride = at.value.stride(0);
  bool bulk = false;
  for (const Item& item : items) {
    if (item.point->stages.empty()) continue;
    stages = std::max(stages, item.point->stages.size());
    for (const auto& stage : item.point->stages) bulk |= stage.bulk();
    for (std::int64_t t = item.run->begin; t < item.run->end; ++t, change += item.point->slots.size()) {
      steering::detail::TokenWork& token = tokens.emplace_back();
      token.h = h + t * stride;
      token.index = t;
      token.position = item.run->position + t - item.run->begin;
      token.item = &item;
      token.change = change;
    }
  }
  // Below some 100 microseconds of work a second thread costs more than it brings.
  constexpr std::int64_t kFloatsPerThread = 1 << 20;
  const auto n = static_cast<std::int64_t>(tokens.size());
  const std::int64_t grain =
      std::max<std::int64_t>(1, kFloatsPerThread / (table.width * static_cast<std::int64_t>(2 * stages + 1)));
  for (;;) {
    if (n <= grain) {
      for (auto& token : tokens) runner.advance(token);
    } else {
      at::parallel_for(0, n, grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) runner.advance(tokens[i]);
      });
    }
    if (!bulk) break;
    const bool waiting = std::any_of(tokens.begin(), tokens.end(), [](const steering::detail::TokenWork& token) {
      return token.stage < static_cast<int>(token.item->point->stages.size());
    });
    if (!waiting) break;
    steering::detail::run_bulk(tokens, runner, table.width, at.point);
  }
  const float* counted = changes.data();
  for (const Item& item : items) {
    if (item.point->stages.empty()) continue;
    const std::int64_t length = item.run->end - item.run->begin;
    count(item.state->row, *item.point, length, counted);
    counted += length * static_cast<std::int64_t>(item.point->slots.size());
  }
}

}  // namespace steer
