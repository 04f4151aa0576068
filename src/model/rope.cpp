#include <ATen/Functions.h>

#include <cmath>
#include <numbers>

#include "model/transformer.hpp"

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

}  // namespace steer::model::detail
