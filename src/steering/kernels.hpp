#pragma once
// The inner loops of a program's pass on the CPU, built for each instruction set (core/isa.hpp): f32 rows of one width,
// one token at a time. A token's result depends on nothing but its own row, so a batch gives the bits of each row
// alone.

#include <cstdint>

namespace steer::steering::detail {

/// |h|^2 and the sum of h.
struct Moments {
  float sum = 0, sum_squares = 0;
};

struct Kernels {
  Moments (*moments)(const float* h, std::int64_t width);
  /// out[i] = h . rows[i].
  void (*dots)(const float* h, const float* const* rows, std::int64_t count, std::int64_t width, float* out);
  /// The same, and in the same pass |h|^2, with the bits of `moments`.
  float (*dots_measured)(const float* h, const float* const* rows, std::int64_t count, std::int64_t width, float* out);
  /// h += sum of c[i] rows[i].
  void (*add_scaled)(float* h, const float* const* rows, const float* c, std::int64_t count, std::int64_t width);
  /// h += v, in the same pass |h|^2 from before.
  float (*add_measured)(float* h, const float* v, std::int64_t width);
  /// h *= c.
  void (*scale)(float* h, float c, std::int64_t width);
};

/// Those of the instruction set in use.
const Kernels& kernels();

}  // namespace steer::steering::detail
