#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <steer/core/random.hpp>
#include <steer/generate/generate.hpp>

namespace steer::generation::detail {

/// @throws Error(argument) for a value outside its range, on behalf of `where`.
void check(const SamplingOptions& options, std::string_view where);

struct Draw {
  std::int64_t id = 0;
  double log_probability = 0;  ///< under the unfiltered distribution
  std::vector<std::pair<std::int64_t, double>> top{};
};

/// Logits of several rows, and what every draw from them needs, computed for all rows at once.
class DrawRows {
 public:
  /// @param logits  [rows, vocab], f32, on any device.
  DrawRows(const at::Tensor& logits, const SamplingOptions& options);
  struct Row {
    std::span<const float> logits;
    std::span<const float> weights;  ///< exp((logit - largest) / temperature); empty where not needed
    double log_sum;                  ///< of exp(logit)
  };
  Row operator[](std::size_t row) const;

 private:
  at::Tensor logits_, weights_;
  std::vector<double> log_sum_;
};

/// Draws one token. Deterministic: equal logits, history and generator state give equal tokens.
/// @param seen  the row's tokens so far, for the repetition penalty.
/// @param barred  tokens that may not be drawn.
/// @throws Error(argument) when the logits hold a NaN or nothing finite, or every token is barred.
Draw draw_token(const DrawRows::Row& row, std::span<const std::int64_t> seen, const SamplingOptions& options, Rng& rng,
                std::span<const std::int64_t> barred = {});

}  // namespace steer::generation::detail
