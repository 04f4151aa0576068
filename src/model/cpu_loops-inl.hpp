// The loops of cpu_loops.hpp for one instruction set.

#include "model/cpu_loops.hpp"

#include "core/isa.hpp"
#include "core/vec16-inl.hpp"

namespace steer::model::detail::cpu {
namespace {

using namespace core::detail;

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

void rms_norm(float* out, const float* x, const float* gain, std::int64_t rows, std::int64_t width, float eps) {
  for (std::int64_t r = 0; r < rows; ++r, x += width, out += width) {
    const float square = row_sum(
        x, width, [](V a) __attribute__((always_inline)) { return a * a; });
    const float scale = 1 / __builtin_sqrtf(square / static_cast<float>(width) + eps);
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

void layer_norm(float* out, const float* x, const float* gain, const float* bias, std::int64_t rows, std::int64_t width,
                float eps) {
  for (std::int64_t r = 0; r < rows; ++r, x += width, out += width) {
    const float mean = row_sum(
                           x, width, [](V a) __attribute__((always_inline)) { return a; }) /
                       static_cast<float>(width);
    each(
        out, x, width, [=](V a, std::int64_t, std::int64_t) __attribute__((always_inline)) { return a - mean; });
    const float square = row_sum(
        out, width, [](V a) __attribute__((always_inline)) { return a * a; });
    const float scale = 1 / __builtin_sqrtf(square / static_cast<float>(width) + eps);
    each(
        out, out, width, [=](V a, std::int64_t i, std::int64_t n) __attribute__((always_inline)) {
          V y = a * scale;
          if (gain) y = y * load_up_to(gain + i, n);
          if (bias) y = y + load_up_to(bias + i, n);
          return y;
        });
  }
}

void multiply_add_rows(float* x, const float* gain, const float* bias, std::int64_t rows, std::int64_t width) {
  for (std::int64_t r = 0; r < rows; ++r, x += width)
    each(
        x, x, width, [=](V a, std::int64_t i, std::int64_t n) __attribute__((always_inline)) {
          const V y = a * load_up_to(gain + i, n);
          return bias ? y + load_up_to(bias + i, n) : y;
        });
}

void add(float* x, const float* y, std::int64_t n) {
  each(
      x, x,
      n, [=](V a, std::int64_t i, std::int64_t m) __attribute__((always_inline)) { return a + load_up_to(y + i, m); });
}

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

void activate(float* out, const float* gate, const float* up, std::int64_t n, ActivationKind kind) {
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
        const float a = gate[i] * 0.5f * (1 + __builtin_erff(gate[i] * 0.70710678f));
        out[i] = up ? a * up[i] : a;
      }
  }
}

void soft_cap(float* x, std::int64_t n, float cap) {
  each(
      x, x, n, [=](V a, std::int64_t, std::int64_t) __attribute__((always_inline)) { return tanh(a / cap) * cap; });
}

void rotate(float* x, const float* cos, const float* sin, std::int64_t rows, std::int64_t heads, std::int64_t d_head,
            std::int64_t half) {
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

bool all_finite(const float* x, std::int64_t n) {
  VI worst = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const VI bits = load_bits(x + i) & 0x7f800000;
    worst = bits > worst ? bits : worst;
  }
  bool ok = true;
  for (int lane = 0; lane < kLanes; ++lane) ok &= worst[lane] != 0x7f800000;
  for (; i < n; ++i) ok &= __builtin_isfinite(x[i]);
  return ok;
}

bool all_finite_16(const std::uint16_t* x, std::int64_t n, std::uint16_t exponent_mask) {
  using U = std::uint16_t __attribute__((vector_size(64), aligned(2), may_alias));
  struct __attribute__((packed, may_alias)) Unaligned {
    U value;
  };
  U bad = {};
  std::int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const U bits = reinterpret_cast<const Unaligned*>(x + i)->value & exponent_mask;
    bad |= reinterpret_cast<U>(bits == exponent_mask);
  }
  bool ok = true;
  for (int lane = 0; lane < 32; ++lane) ok &= bad[lane] == 0;
  for (; i < n; ++i) ok &= (x[i] & exponent_mask) != exponent_mask;
  return ok;
}

void softmax(float* scores, std::int64_t size, std::int64_t begin, std::int64_t end, float sink) {
  const float low = -__builtin_inff();
  for (std::int64_t t = 0; t < begin; ++t) scores[t] = low;
  for (std::int64_t t = end; t < size; ++t) scores[t] = low;
  V best = splat(low);
  for (std::int64_t t = 0; t < size; t += kLanes) best = max(load(scores + t), best);
  const float top = max(best) > sink ? max(best) : sink;
  // Lanes follow the token's place in its block, so masked tokens before or behind add exact zeros.
  V total = splat(0);
  for (std::int64_t t = 0; t < size; t += kLanes) {
    const V e = exp(load(scores + t) - top);
    total += e;
    store(scores + t, e);
  }
  const float inverse = 1 / (sum(total) + (sink > low ? __builtin_expf(sink - top) : 0));
  for (std::int64_t t = 0; t < size; t += kLanes) store(scores + t, load(scores + t) * inverse);
}

STEER_INLINE V sigmoid(V a) { return 1.f / (exp(-a) + 1.f); }

/// f on vectors of x and y; the last lanes of a short one are computed and dropped, so that an element's bits do not
/// depend on its place.
template <class F>
STEER_INLINE void each_pair(float* x, const float* y, std::int64_t n, F f) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(x + i, f(load(x + i), load(y + i)));
  if (i < n) store_first(x + i, f(load_first(x + i, n - i), load_first(y + i, n - i)), n - i);
}

void clamped_glu(float* gate, const float* up, std::int64_t n, float limit) {
  each_pair(
      gate, up, n, [=](V g, V u) __attribute__((always_inline)) {
        g = min(g, splat(limit));
        u = max(min(u, splat(limit)), splat(-limit));
        return (u + 1.f) * (g * sigmoid(g * 1.702f));
      });
}

void sigmoid_gate(float* x, const float* by, std::int64_t n) {
  each_pair(
      x, by, n, [](V a, V b) __attribute__((always_inline)) { return a * sigmoid(b); });
}

void scale_rows(float* x, const float* factors, std::int64_t rows, std::int64_t width) {
  for (std::int64_t r = 0; r < rows; ++r, x += width)
    for (std::int64_t i = 0; i < width; ++i) x[i] *= factors[r];
}

void add_scaled_row(float* to, const float* from, float factor, std::int64_t width) {
  each_pair(
      to, from, width, [=](V a, V b) __attribute__((always_inline)) { return a + b * factor; });
}

/// out[c] = sum over j of weight[c][j] * (column of j steps before)[c]; columns are rows of `history` and `x`.
void convolve(const float* weight, const float* const* columns, std::int64_t kernel, std::int64_t channels,
              float* out) {
  for (std::int64_t c = 0; c < channels; ++c) {
    float total = 0;
    for (std::int64_t j = 0; j < kernel; ++j) total += weight[c * kernel + j] * columns[j][c];
    out[c] = total;
  }
}

void make_unit(float* x, std::int64_t n, float scale, float eps) {
  float square = 0;
  for (std::int64_t i = 0; i < n; ++i) square += x[i] * x[i];
  const float factor = scale / __builtin_sqrtf(square + eps);
  for (std::int64_t i = 0; i < n; ++i) x[i] *= factor;
}

/// One token of one head. `recalled` is scratch of [d_value].
void delta_step(float* memory, const float* q, const float* k, const float* v, float decay, float beta,
                std::int64_t d_key, std::int64_t d_value, float* recalled, float* out) {
  for (std::int64_t j = 0; j < d_value; ++j) recalled[j] = 0;
  for (std::int64_t i = 0; i < d_key; ++i) {
    float* row = memory + i * d_value;
    for (std::int64_t j = 0; j < d_value; ++j) {
      row[j] *= decay;
      recalled[j] += row[j] * k[i];
    }
  }
  for (std::int64_t j = 0; j < d_value; ++j) {
    recalled[j] = beta * (v[j] - recalled[j]);
    out[j] = 0;
  }
  for (std::int64_t i = 0; i < d_key; ++i) {
    float* row = memory + i * d_value;
    for (std::int64_t j = 0; j < d_value; ++j) {
      row[j] += k[i] * recalled[j];
      out[j] += row[j] * q[i];
    }
  }
}

/// The sum of exp(x - most): sixteen lanes in f32 over blocks, the blocks in f64.
double sum_exp(const float* x, std::int64_t n, float most) {
  constexpr std::int64_t block = 64 * kLanes;
  double total = 0;
  for (std::int64_t begin = 0; begin < n; begin += block) {
    const std::int64_t end = begin + block < n ? begin + block : n;
    V part = splat(0);
    std::int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) part += exp(load(x + i) - splat(most));
    if (i < end) {
      V last = splat(-1e30f);
      __builtin_memcpy(&last, x + i, static_cast<std::size_t>(end - i) * sizeof(float));
      part += exp(last - splat(most));
    }
    total += static_cast<double>(sum(part));
  }
  return total;
}

/// The sum of exp(x - most) * (x - y), added as in `sum_exp`. Where x is minus infinity it adds nothing, whatever y.
double sum_exp_difference(const float* x, const float* y, std::int64_t n, float most) {
  constexpr std::int64_t block = 64 * kLanes;
  const auto term = [=](V a, V b) __attribute__((always_inline)) {
    return a > splat(-__builtin_inff()) ? exp(a - splat(most)) * (a - b) : splat(0);
  };
  double total = 0;
  for (std::int64_t begin = 0; begin < n; begin += block) {
    const std::int64_t end = begin + block < n ? begin + block : n;
    V part = splat(0);
    std::int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) part += term(load(x + i), load(y + i));
    if (i < end) {
      V last = splat(-__builtin_inff());
      __builtin_memcpy(&last, x + i, static_cast<std::size_t>(end - i) * sizeof(float));
      part += term(last, load_first(y + i, end - i));
    }
    total += static_cast<double>(sum(part));
  }
  return total;
}

void exp_relative(const float* x, std::int64_t n, float most, float temperature, float* out) {
  const V middle = splat(most), divisor = splat(temperature);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, exp((load(x + i) - middle) / divisor));
  if (i < n) store_first(out + i, exp((load_first(x + i, n - i) - middle) / divisor), n - i);
}

}  // namespace

STEER_ISA_TABLE(Loops, loops) = {
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .multiply_add_rows = multiply_add_rows,
    .add = add,
    .add_scaled_row = add_scaled_row,
    .scale_rows = scale_rows,
    .activate = activate,
    .clamped_glu = clamped_glu,
    .sigmoid_gate = sigmoid_gate,
    .soft_cap = soft_cap,
    .rotate = rotate,
    .softmax = softmax,
    .all_finite = all_finite,
    .all_finite_16 = all_finite_16,
    .convolve = convolve,
    .make_unit = make_unit,
    .delta_step = delta_step,
    .sum_exp = sum_exp,
    .sum_exp_difference = sum_exp_difference,
    .exp_relative = exp_relative,
};

}  // namespace steer::model::detail::cpu
