#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "generate/sampler.hpp"

namespace steer::generation::detail {

/// Tests draw so on the CPU. Set while no engine steps.
extern bool draws_on_device_for_testing;

/// One token to be read from a row of logits, or drawn from it.
struct DeviceReading {
  std::int64_t row = 0;                       ///< of the logits
  std::int64_t known = -1;                    ///< the token; -1: to be drawn
  const SamplingOptions* sampling = nullptr;  ///< of a draw
  double uniform = 0;                         ///< of a draw with a temperature: in [0, 1), from the row's own generator
  std::span<const std::int64_t> seen{}, generated{}, barred{};  ///< as in DrawInput
};

/// What `read_token` and `draw_token` do, by libtorch's operators where the logits are: a few numbers a row come to the
/// host, not a vocabulary. Draws are the same but for rounding. Only where neither top-k nor top-p is asked for does a
/// number belong to another token, of the same distribution: here the likeliest come first, there the lowest ids.
class DeviceDraws {
 public:
  /// @param logits  [rows, vocab] f32, on any device.
  DeviceDraws(const at::Tensor& logits, std::span<const DeviceReading> readings);
  /// Of one reading, without alternatives. @throws as `draw_token`.
  Draw at(std::size_t reading) const;

 private:
  std::vector<std::int64_t> ids_;
  std::vector<float> log_sums_, best_, chosen_;
};

}  // namespace steer::generation::detail
