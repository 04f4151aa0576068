#pragma once
// The elementwise loops of a forward pass on the CPU, f32, built for each instruction set (core/isa.hpp). A row's
// result depends on that row alone, so its bits are the same in any batch.

#include <cstdint>

#include <steer/model/config.hpp>

namespace steer::model::detail::cpu {

struct Loops {
  /// out = x / rms(x), times gain when not null. Rows [rows, width].
  void (*rms_norm)(float* out, const float* x, const float* gain, std::int64_t rows, std::int64_t width, float eps);
  /// out = (x - mean) / sqrt(var + eps), times gain plus bias when not null.
  void (*layer_norm)(float* out, const float* x, const float* gain, const float* bias, std::int64_t rows,
                     std::int64_t width, float eps);
  void (*multiply_add_rows)(float* x, const float* gain, const float* bias, std::int64_t rows, std::int64_t width);
  /// x += y.
  void (*add)(float* x, const float* y, std::int64_t n);
  /// to += factor * from.
  void (*add_scaled_row)(float* to, const float* from, float factor, std::int64_t width);
  /// Row r of x *= factors[r].
  void (*scale_rows)(float* x, const float* factors, std::int64_t rows, std::int64_t width);
  /// out = act(gate) * up; up may be null.
  void (*activate)(float* out, const float* gate, const float* up, std::int64_t n, ActivationKind kind);
  /// gate = glu of gpt-oss: (up + 1) * gate * sigmoid(1.702 gate), both held to `limit` first.
  void (*clamped_glu)(float* gate, const float* up, std::int64_t n, float limit);
  /// x *= sigmoid(by).
  void (*sigmoid_gate)(float* x, const float* by, std::int64_t n);
  void (*soft_cap)(float* x, std::int64_t n, float cap);
  void (*rotate)(float* x, const float* cos, const float* sin, std::int64_t rows, std::int64_t heads,
                 std::int64_t d_head, std::int64_t half);
  /// Softmax over keys [begin, end) of one row and over `sink`; the other of the `size` scores, which start a block,
  /// become 0. @param sink  a logit that takes its share and gives nothing; minus infinity: none.
  void (*softmax)(float* scores, std::int64_t size, std::int64_t begin, std::int64_t end, float sink);
  /// True when no element is infinite or not a number.
  bool (*all_finite)(const float* x, std::int64_t n);
  bool (*all_finite_16)(const std::uint16_t* x, std::int64_t n, std::uint16_t exponent_mask);

  /// out[c] = sum over j of weight[c][j] * columns[j][c].
  void (*convolve)(const float* weight, const float* const* columns, std::int64_t kernel, std::int64_t channels,
                   float* out);
  /// x *= scale / sqrt(|x|^2 + eps).
  void (*make_unit)(float* x, std::int64_t n, float scale, float eps);
  /// One token of one head of a gated DeltaNet. `recalled` is scratch of [d_value].
  void (*delta_step)(float* memory, const float* q, const float* k, const float* v, float decay, float beta,
                     std::int64_t d_key, std::int64_t d_value, float* recalled, float* out);

  /// The sum of exp(x - most): sixteen lanes in f32 over blocks, the blocks in f64.
  double (*sum_exp)(const float* x, std::int64_t n, float most);
  /// The sum of exp(x - most) * (x - y), added as in `sum_exp`; where x is minus infinity it adds nothing.
  double (*sum_exp_difference)(const float* x, const float* y, std::int64_t n, float most);
  /// out = exp((x - most) / temperature).
  void (*exp_relative)(const float* x, std::int64_t n, float most, float temperature, float* out);
};

/// Those of the instruction set in use.
const Loops& loops();

}  // namespace steer::model::detail::cpu
