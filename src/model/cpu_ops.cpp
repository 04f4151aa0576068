#include "model/cpu_ops.hpp"

#include <cmath>

#include "model/vec16.hpp"

namespace steer::model::detail::cpu {
namespace {

/// Sum over a row of f(element); lanes take every 64th element, the tail is padded with zeros (so f(0) must be 0).
template <class F>
STEER_INLINE float row_sum(const float* x, std::int64_t n, F f) {
  V a[4] = {splat(0), splat(0), splat(0), splat(0)};
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
    for (int j = 0; j < 4; ++j) a[j] += f(load(x + i + j * kLanes));
  for (; i + kLanes <= n; i += kLanes) a[0] += f(load(x + i));
  if (i < n) a[1] += f(load_first(x + i, n - i));
  return sum((a[0] + a[1]) + (a[2] + a[3]));
}

/// out = f(x, index) over n elements, full vectors and a padded tail.
template <class F>
STEER_INLINE void each(float* out, const float* x, std::int64_t n, F f) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, f(load(x + i), i, kLanes));
  if (i < n) store_first(out + i, f(load_first(x + i, n - i), i, n - i), n - i);
}

STEER_INLINE V load_up_to(const float* p, std::int64_t n) { return n == kLanes ? load(p) : load_first(p, n); }

}  // namespace

STEER_CLONES void rms_norm(float* out, const float* x, const float* gain, std::int64_t rows, std::int64_t width,
                           float eps) {
  for (std::int64_t r = 0; r < rows; ++r, x += width, out += width) {
    const float square = row_sum(
        x, width, [](V a) __attribute__((always_inline)) { return a * a; });
    const float scale = 1 / std::sqrt(square / static_cast<float>(width) + eps);
    if (gain)
      each(
          out, x, width, [=](V a, std::int64_t i, std::int64_t n) __attribute__((always_inline)) {
            return a * scale * load_up_to(gain + i, n);
          });
    else
      each(
          out, x, width, [=](V a, std::int64_t, std::int64_t) __attribute__((always_inline)) { return a * scale; });
  }
}

STEER_CLONES void layer_norm(float* out, const float* x, const float* gain, const float* bias, std::int64_t rows,
                             std::int64_t width, float eps) {
  for (std::int64_t r = 0; r < rows; ++r, x += width, out += width) {
    const float mean = row_sum(
                           x, width, [](V a) __attribute__((always_inline)) { return a; }) /
                       static_cast<float>(width);
    each(
        out, x, width, [=](V a, std::int64_t, std::int64_t) __attribute__((always_inline)) { return a - mean; });
    const float square = row_sum(
        out, width, [](V a) __attribute__((always_inline)) { return a * a; });
    const float scale = 1 / std::sqrt(square / static_cast<float>(width) + eps);
    each(
        out, out, width, [=](V a, std::int64_t i, std::int64_t n) __attribute__((always_inline)) {
          V y = a * scale;
          if (gain) y = y * load_up_to(gain + i, n);
          if (bias) y = y + load_up_to(bias + i, n);
          return y;
        });
  }
}

STEER_CLONES void multiply_add_rows(float* x, const float* gain, const float* bias, std::int64_t rows,
                                    std::int64_t width) {
  for (std::int64_t r = 0; r < rows; ++r, x += width)
    each(
        x, x, width, [=](V a, std::int64_t i, std::int64_t n) __attribute__((always_inline)) {
          const V y = a * load_up_to(gain + i, n);
          return bias ? y + load_up_to(bias + i, n) : y;
        });
}

STEER_CLONES void add(float* x, const float* y, std::int64_t n) {
  each(
      x, x,
      n, [=](V a, std::int64_t i, std::int64_t m) __attribute__((always_inline)) { return a + load_up_to(y + i, m); });
}

namespace {

template <class F>
STEER_INLINE void gate_with(float* out, const float* gate, const float* up, std::int64_t n, F act) {
  if (up)
    each(
        out, gate, n, [=](V a, std::int64_t i, std::int64_t m) __attribute__((always_inline)) {
          return act(a) * load_up_to(up + i, m);
        });
  else
    each(
        out, gate, n, [=](V a, std::int64_t, std::int64_t) __attribute__((always_inline)) { return act(a); });
}

}  // namespace

STEER_CLONES void activate(float* out, const float* gate, const float* up, std::int64_t n, ActivationKind kind) {
  switch (kind) {
    case ActivationKind::silu:
      return gate_with(
          out, gate, up, n, [](V a) __attribute__((always_inline)) { return a / (exp(-a) + 1.f); });
    case ActivationKind::gelu_tanh:
      return gate_with(
          out, gate, up, n, [](V a) __attribute__((always_inline)) {
            return a * 0.5f * (tanh((a + a * a * a * 0.044715f) * 0.7978845608028654f) + 1.f);
          });
    case ActivationKind::relu:
      return gate_with(
          out, gate, up, n, [](V a) __attribute__((always_inline)) { return max(a, splat(0)); });
    case ActivationKind::gelu:
      for (std::int64_t i = 0; i < n; ++i) {
        const float a = gate[i] * 0.5f * (1 + std::erf(gate[i] * 0.70710678f));
        out[i] = up ? a * up[i] : a;
      }
  }
}

STEER_CLONES void soft_cap(float* x, std::int64_t n, float cap) {
  each(
      x, x, n, [=](V a, std::int64_t, std::int64_t) __attribute__((always_inline)) { return tanh(a / cap) * cap; });
}

STEER_CLONES void rotate(float* x, const float* cos, const float* sin, std::int64_t rows, std::int64_t heads,
                         std::int64_t d_head, std::int64_t half) {
  for (std::int64_t r = 0; r < rows; ++r, cos += half, sin += half)
    for (std::int64_t h = 0; h < heads; ++h, x += d_head) {
      float* y = x + half;
      std::int64_t i = 0;
      for (; i + kLanes <= half; i += kLanes) {
        const V a = load(x + i), b = load(y + i), c = load(cos + i), s = load(sin + i);
        store(x + i, a * c - b * s);
        store(y + i, b * c + a * s);
      }
      for (; i < half; ++i) {
        const float a = x[i], b = y[i];
        x[i] = a * cos[i] - b * sin[i];
        y[i] = b * cos[i] + a * sin[i];
      }
    }
}

STEER_CLONES bool all_finite(const float* x, std::int64_t n) {
  VI worst = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const VI bits = *reinterpret_cast<const VI*>(x + i) & 0x7f800000;
    worst = bits > worst ? bits : worst;
  }
  bool ok = true;
  for (int lane = 0; lane < kLanes; ++lane) ok &= worst[lane] != 0x7f800000;
  for (; i < n; ++i) ok &= std::isfinite(x[i]);
  return ok;
}

STEER_CLONES bool all_finite_16(const std::uint16_t* x, std::int64_t n, std::uint16_t exponent_mask) {
  using U = std::uint16_t __attribute__((vector_size(64), aligned(2), may_alias));
  U bad = {};
  std::int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const U bits = *reinterpret_cast<const U*>(x + i) & exponent_mask;
    bad |= reinterpret_cast<U>(bits == exponent_mask);
  }
  bool ok = true;
  for (int lane = 0; lane < 32; ++lane) ok &= bad[lane] == 0;
  for (; i < n; ++i) ok &= (x[i] & exponent_mask) != exponent_mask;
  return ok;
}

}  // namespace steer::model::detail::cpu
