#include "model/cpu_gates.hpp"

#include <algorithm>

#include "model/vec16.hpp"

namespace steer::model::detail::cpu {
namespace {

STEER_INLINE V sigmoid(V a) { return 1.f / (exp(-a) + 1.f); }

/// f on vectors of x and y; the last lanes of a short one are computed and dropped, so that an element's bits do not
/// depend on its place.
template <class F>
STEER_INLINE void each_pair(float* x, const float* y, std::int64_t n, F f) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(x + i, f(load(x + i), load(y + i)));
  if (i < n) store_first(x + i, f(load_first(x + i, n - i), load_first(y + i, n - i)), n - i);
}

}  // namespace

STEER_CLONES void clamped_glu(float* gate, const float* up, std::int64_t n, float limit) {
  each_pair(
      gate, up, n, [=](V g, V u) __attribute__((always_inline)) {
        g = min(g, splat(limit));
        u = max(min(u, splat(limit)), splat(-limit));
        return (u + 1.f) * (g * sigmoid(g * 1.702f));
      });
}

STEER_CLONES void sigmoid_gate(float* x, const float* by, std::int64_t n) {
  each_pair(
      x, by, n, [](V a, V b) __attribute__((always_inline)) { return a * sigmoid(b); });
}

STEER_CLONES void scale_rows(float* x, const float* factors, std::int64_t rows, std::int64_t width) {
  for (std::int64_t r = 0; r < rows; ++r, x += width)
    for (std::int64_t i = 0; i < width; ++i) x[i] *= factors[r];
}

STEER_CLONES void add_scaled_row(float* to, const float* from, float factor, std::int64_t width) {
  each_pair(
      to, from, width, [=](V a, V b) __attribute__((always_inline)) { return a + b * factor; });
}

}  // namespace steer::model::detail::cpu
