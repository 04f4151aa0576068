#pragma once
// Gates of single families, as `cpu_ops.hpp` has the common ones.

#include <cstdint>

namespace steer::model::detail::cpu {

/// gate = (up + 1) g sigmoid(1.702 g), where g is gate cut off above at `limit` and up is cut off at both sides
/// (gpt-oss).
void clamped_glu(float* gate, const float* up, std::int64_t n, float limit);
/// x *= sigmoid(by).
void sigmoid_gate(float* x, const float* by, std::int64_t n);
/// x[r] *= factors[r], rows [rows, width].
void scale_rows(float* x, const float* factors, std::int64_t rows, std::int64_t width);
/// to[r] += factors[r] * from[r].
void add_scaled_row(float* to, const float* from, float factor, std::int64_t width);

}  // namespace steer::model::detail::cpu
