// The loops of steering/kernels.hpp for one instruction set. Explicit vectors, because a plain reduction loop may not
// be reordered and so would stay scalar.

#include "steering/kernels.hpp"

#include "core/isa.hpp"

namespace steer::steering::detail {
namespace {

constexpr std::int64_t kLanes = 16;
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));

[[gnu::always_inline]] inline void load(Lanes& to, const float* from) { __builtin_memcpy(&to, from, sizeof to); }
[[gnu::always_inline]] inline void store(float* to, const Lanes& from) { __builtin_memcpy(to, &from, sizeof from); }
/// Half onto half, so that a sum waits for four additions instead of sixteen.
[[gnu::always_inline]] inline float total(const Lanes& x) {
  const auto eight = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7) +
                     __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
  const auto four =
      __builtin_shufflevector(eight, eight, 0, 1, 2, 3) + __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
  return (four[0] + four[2]) + (four[1] + four[3]);
}

/// The squares of what is left behind the last vector, added to `sum`. Out of line: where it is inlined, a compiler
/// contracts to fused additions in one place and not in another, and |h|^2 has the same bits in all loops.
[[gnu::noinline]] float squares_of_rest(float sum, const float* h, std::int64_t count) {
  for (std::int64_t k = 0; k < count; ++k) sum += h[k] * h[k];
  return sum;
}

[[gnu::always_inline]] inline float add_rest(float sum, const float* h, std::int64_t count) {
  return count > 0 ? squares_of_rest(sum, h, count) : sum;
}

/// `count` dot products in one pass over h, two accumulators each to hide the latency of the additions.
/// @return |h|^2 if it is to be measured, summed as `moments` does
template <int count, bool measured>
[[gnu::always_inline]] inline float dot_block(const float* h, const float* const* rows, std::int64_t width,
                                              float* out) {
  Lanes even[count] = {}, odd[count] = {}, squares = {}, more = {}, x, y, r;
  std::int64_t k = 0;
  for (; k + 2 * kLanes <= width; k += 2 * kLanes) {
    load(x, h + k);
    load(y, h + k + kLanes);
    if (measured) {
      squares += x * x;
      more += y * y;
    }
#pragma GCC unroll 4
    for (int i = 0; i < count; ++i) {
      load(r, rows[i] + k);
      even[i] += x * r;
      load(r, rows[i] + k + kLanes);
      odd[i] += y * r;
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < count; ++i) {
    float s = total(even[i] + odd[i]);
    for (std::int64_t j = k; j < width; ++j) s += h[j] * rows[i][j];
    out[i] = s;
  }
  if (!measured) return 0;
  return add_rest(total(squares + more), h + k, width - k);
}

template <int count>
[[gnu::always_inline]] inline void add_block(float* h, const float* const* rows, const float* c, std::int64_t width) {
  Lanes x, r;
  std::int64_t k = 0;
  for (; k + kLanes <= width; k += kLanes) {
    load(x, h + k);
#pragma GCC unroll 4
    for (int i = 0; i < count; ++i) {
      load(r, rows[i] + k);
      x += c[i] * r;
    }
    store(h + k, x);
  }
  for (; k < width; ++k)
    for (int i = 0; i < count; ++i) h[k] += c[i] * rows[i][k];
}

Moments moments(const float* h, std::int64_t width) {
  Lanes sum = {}, squares = {}, more = {}, x, y;
  std::int64_t k = 0;
  for (; k + 2 * kLanes <= width; k += 2 * kLanes) {
    load(x, h + k);
    load(y, h + k + kLanes);
    sum += x + y;
    squares += x * x;
    more += y * y;
  }
  Moments result{total(sum), add_rest(total(squares + more), h + k, width - k)};
  for (; k < width; ++k) result.sum += h[k];
  return result;
}

void dots(const float* h, const float* const* rows, std::int64_t count, std::int64_t width, float* out) {
  std::int64_t i = 0;
  for (; i + 4 <= count; i += 4) dot_block<4, false>(h, rows + i, width, out + i);
  if (count - i == 3) dot_block<3, false>(h, rows + i, width, out + i);
  if (count - i == 2) dot_block<2, false>(h, rows + i, width, out + i);
  if (count - i == 1) dot_block<1, false>(h, rows + i, width, out + i);
}

float dots_measured(const float* h, const float* const* rows, std::int64_t count, std::int64_t width, float* out) {
  if (count == 1) return dot_block<1, true>(h, rows, width, out);
  if (count == 2) return dot_block<2, true>(h, rows, width, out);
  if (count == 3) return dot_block<3, true>(h, rows, width, out);
  const float squares = dot_block<4, true>(h, rows, width, out);
  if (count > 4) dots(h, rows + 4, count - 4, width, out + 4);
  return squares;
}

void add_scaled(float* h, const float* const* rows, const float* c, std::int64_t count, std::int64_t width) {
  std::int64_t i = 0;
  for (; i + 4 <= count; i += 4) add_block<4>(h, rows + i, c + i, width);
  if (count - i == 3) add_block<3>(h, rows + i, c + i, width);
  if (count - i == 2) add_block<2>(h, rows + i, c + i, width);
  if (count - i == 1) add_block<1>(h, rows + i, c + i, width);
}

float add_measured(float* h, const float* v, std::int64_t width) {
  Lanes squares = {}, more = {}, x, y, r;
  std::int64_t k = 0;
  for (; k + 2 * kLanes <= width; k += 2 * kLanes) {
    load(x, h + k);
    load(y, h + k + kLanes);
    squares += x * x;
    more += y * y;
    load(r, v + k);
    store(h + k, x + r);
    load(r, v + k + kLanes);
    store(h + k + kLanes, y + r);
  }
  const float result = add_rest(total(squares + more), h + k, width - k);
  for (; k < width; ++k) h[k] += v[k];
  return result;
}

void scale(float* h, float c, std::int64_t width) {
  Lanes x;
  std::int64_t k = 0;
  for (; k + kLanes <= width; k += kLanes) {
    load(x, h + k);
    store(h + k, c * x);
  }
  for (; k < width; ++k) h[k] *= c;
}

}  // namespace

STEER_ISA_TABLE(Kernels, kernels) = {
    .moments = moments,
    .dots = dots,
    .dots_measured = dots_measured,
    .add_scaled = add_scaled,
    .add_measured = add_measured,
    .scale = scale,
};

}  // namespace steer::steering::detail
