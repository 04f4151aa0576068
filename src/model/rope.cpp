#include <ATen/Functions.h>

#include <cmath>
#include <numbers>

#include "model/rope.hpp"

namespace steer::model::detail {

at::Tensor rope_frequencies(const RopeConfig& rope, std::int64_t rotary_dims) {
  at::Tensor out = at::empty({rotary_dims / 2}, at::kFloat);
  auto* freq = out.data_ptr<float>();
  for (std::int64_t i = 0; i < rotary_dims / 2; ++i) {
    double f = 1 / std::pow(rope.theta, 2.0 * static_cast<double>(i) / static_cast<double>(rotary_dims));
    if (rope.kind == RopeKind::linear) {
      f /= rope.factor;
    } else if (rope.kind == RopeKind::llama3) {
      // Long waves are slowed by `factor`, short ones kept, those between blended.
      const double wave = 2 * std::numbers::pi / f, context = static_cast<double>(rope.original_context);
      const double blend = (context / wave - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
      if (wave > context / rope.low_freq_factor)
        f /= rope.factor;
      else if (wave >= context / rope.high_freq_factor)
        f = (1 - blend) * f / rope.factor + blend * f;
    }
    freq[i] = static_cast<float>(f);
  }
  return out;
}

void RopeTables::grow(std::size_t rope, std::int64_t positions) {
  Table& table = tables_[rope];
  if (positions <= table.positions) return;
  const auto& inv_freq = model_->inv_freq[rope];
  const std::int64_t half = inv_freq.size(0), to = std::max<std::int64_t>({positions, 2 * table.positions, 256});
  table.cos.resize(static_cast<std::size_t>(to * half));
  table.sin.resize(table.cos.size());
  const float* freq = inv_freq.const_data_ptr<float>();
  for (std::int64_t p = table.positions; p < to; ++p)
    for (std::int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(p) * freq[i];  // rounded to f32 as the reference implementations do
      table.cos[static_cast<std::size_t>(p * half + i)] = std::cos(angle);
      table.sin[static_cast<std::size_t>(p * half + i)] = std::sin(angle);
    }
  table.positions = to;
}

std::vector<RopeTables::Rows> RopeTables::rows(std::span<const TokenRun> runs) {
  std::int64_t tokens = 0, positions = 0;
  for (const auto& run : runs) {
    tokens = run.end;
    positions = std::max(positions, run.position + run.end - run.begin);
  }
  std::vector<Rows> out;
  for (std::size_t rope = 0; rope < tables_.size(); ++rope) {
    grow(rope, positions);
    const std::int64_t half = model_->inv_freq[rope].size(0);
    Rows rows{at::empty({tokens, half}, at::kFloat), at::empty({tokens, half}, at::kFloat)};
    for (const auto& run : runs) {
      const auto from = run.position * half, count = (run.end - run.begin) * half;
      std::copy_n(tables_[rope].cos.data() + from, count, rows.cos.data_ptr<float>() + run.begin * half);
      std::copy_n(tables_[rope].sin.data() + from, count, rows.sin.data_ptr<float>() + run.begin * half);
    }
    out.push_back({rows.cos.to(model_->device), rows.sin.to(model_->device)});
  }
  return out;
}

}  // namespace steer::model::detail
