#include "model/rope.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "model/send.hpp"
#include "model/transformer.hpp"

namespace steer::model::detail {
namespace {

/// Long waves are slowed by `factor`, short ones kept, those between blended (Llama 3's reference code).
double llama3(const RopeConfig& rope, double f) {
  const double wave = 2 * std::numbers::pi / f, context = static_cast<double>(rope.original_context);
  const double blend = (context / wave - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  if (wave > context / rope.low_freq_factor) return f / rope.factor;
  if (wave >= context / rope.high_freq_factor) return (1 - blend) * f / rope.factor + blend * f;
  return f;
}

/// The dimension whose wave turns `rotations` times within the trained length (YaRN, arXiv:2309.00071).
double yarn_dimension(const RopeConfig& rope, double rotations, double dims) {
  return dims * std::log(static_cast<double>(rope.original_context) / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(rope.theta));
}

/// Waves that turn often are kept, those that turn seldom slowed, those between blended along a ramp.
double yarn(const RopeConfig& rope, double f, std::int64_t pair, double dims) {
  double low = yarn_dimension(rope, rope.beta_fast, dims), high = yarn_dimension(rope, rope.beta_slow, dims);
  if (rope.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0);
  high = std::min(high, dims - 1);
  if (low == high) high += 0.001;
  const double ramp = std::clamp((static_cast<double>(pair) - low) / (high - low), 0.0, 1.0);
  return f / rope.factor * ramp + f * (1 - ramp);
}

/// NTK: beyond the trained length the base grows with the length.
double dynamic_theta(const RopeConfig& rope, double dims, std::int64_t length) {
  const auto context = static_cast<double>(rope.original_context);
  const double n = std::max(static_cast<double>(length), context);
  return rope.theta * std::pow(rope.factor * n / context - (rope.factor - 1), dims / (dims - 2));
}

}  // namespace

at::Tensor rope_frequencies(const RopeConfig& rope, std::int64_t rotary_dims, std::int64_t length) {
  at::Tensor out = at::empty({rotary_dims / 2}, at::kFloat);
  auto* freq = out.data_ptr<float>();
  const auto dims = static_cast<double>(rotary_dims);
  const double theta = rope.kind == RopeKind::dynamic ? dynamic_theta(rope, dims, length) : rope.theta;
  const auto& factors = length > rope.original_context ? rope.long_factor : rope.short_factor;
  for (std::int64_t i = 0; i < rotary_dims / 2; ++i) {
    double f = 1 / std::pow(theta, 2.0 * static_cast<double>(i) / dims);
    if (rope.kind == RopeKind::linear) f /= rope.factor;
    if (rope.kind == RopeKind::llama3) f = llama3(rope, f);
    if (rope.kind == RopeKind::yarn) f = yarn(rope, f, i, dims);
    if (rope.kind == RopeKind::longrope) f /= factors[static_cast<std::size_t>(i)];
    freq[i] = static_cast<float>(f);
  }
  return out;
}

namespace {

void turn(const float* freq, std::int64_t half, std::int64_t position, double scale, float* cos, float* sin) {
  for (std::int64_t i = 0; i < half; ++i) {
    const float angle = static_cast<float>(position) * freq[i];  // rounded to f32 as the reference implementations do
    cos[i] = std::cos(angle) * static_cast<float>(scale);
    sin[i] = std::sin(angle) * static_cast<float>(scale);
  }
}

}  // namespace

std::int64_t length_free_tokens(const ModelConfig& config) {
  std::int64_t tokens = config.context;
  for (const auto& layer : config.layers)
    if (layer.rope.by_length()) tokens = std::min(tokens, layer.rope.original_context);
  return tokens;
}

RopeTables::RopeTables(const Transformer& model) : model_(&model), tables_(model.ropes.size()) {}

void RopeTables::grow(std::size_t rope, std::int64_t positions) {
  Table& table = tables_[rope];
  if (positions <= table.positions) return;
  const auto& inv_freq = model_->inv_freq[rope];
  const std::int64_t half = inv_freq.size(0), to = std::max<std::int64_t>({positions, 2 * table.positions, 256});
  table.cos.resize(static_cast<std::size_t>(to * half));
  table.sin.resize(table.cos.size());
  for (std::int64_t p = table.positions; p < to; ++p)
    turn(inv_freq.const_data_ptr<float>(), half, p, model_->ropes[rope].scale, table.cos.data() + p * half,
         table.sin.data() + p * half);
  table.positions = to;
}

void RopeTables::by_length(std::size_t rope, const TokenRun& run, float* cos, float* sin) const {
  const RopeConfig& config = model_->ropes[rope];
  at::Tensor freq;
  std::int64_t of = -1;
  for (std::int64_t row = run.begin; row < run.end; ++row) {
    const std::int64_t position = run.position + row - run.begin, length = std::max(run.prompt_length, position + 1);
    // Nearly always one length a run, and then again one for all of a long prompt.
    if (length != of) freq = rope_frequencies(config, model_->config.rotary_dims, length);
    of = length;
    const std::int64_t half = freq.size(0);
    turn(freq.const_data_ptr<float>(), half, position, config.scale, cos + row * half, sin + row * half);
  }
}

std::int64_t RopeTables::pairs(std::size_t rope) const { return model_->inv_freq[rope].size(0); }

void RopeTables::fill(std::size_t rope, std::span<const TokenRun> runs, float* cos, float* sin) {
  const bool lengths = model_->ropes[rope].by_length();
  const std::int64_t half = pairs(rope);
  for (const auto& run : runs) {
    if (lengths) {
      by_length(rope, run, cos, sin);
      continue;
    }
    grow(rope, run.position + run.end - run.begin);
    const auto from = run.position * half, count = (run.end - run.begin) * half;
    std::copy_n(tables_[rope].cos.data() + from, count, cos + run.begin * half);
    std::copy_n(tables_[rope].sin.data() + from, count, sin + run.begin * half);
  }
}

std::vector<RopeTables::Rows> RopeTables::rows(std::span<const TokenRun> runs) {
  const std::int64_t tokens = runs.empty() ? 0 : runs.back().end;
  std::vector<Rows> out;
  for (std::size_t rope = 0; rope < size(); ++rope) {
    const Rows rows{at::empty({tokens, pairs(rope)}, at::kFloat), at::empty({tokens, pairs(rope)}, at::kFloat)};
    fill(rope, runs, rows.cos.data_ptr<float>(), rows.sin.data_ptr<float>());
    out.push_back({send(rows.cos, model_->device), send(rows.sin, model_->device)});
  }
  return out;
}

}  // namespace steer::model::detail
