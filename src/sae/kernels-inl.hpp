// The loops of sae/kernels.hpp for one instruction set; most are written so that the compiler makes vectors of them.

#include "sae/kernels.hpp"

#include "core/isa.hpp"

namespace steer::sae::detail {
namespace {

constexpr std::int64_t kLanes = 16;

void block_maxima(const float* score, std::int64_t n, std::int64_t block, float* out) {
  for (std::int64_t begin = 0, b = 0; begin < n; begin += block, ++b) {
    const std::int64_t end = begin + block < n ? begin + block : n;
    float lane[kLanes];
    for (float& v : lane) v = -__builtin_inff();
    std::int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes)
      for (std::int64_t l = 0; l < kLanes; ++l) lane[l] = score[i + l] > lane[l] ? score[i + l] : lane[l];
    for (; i < end; ++i) lane[0] = score[i] > lane[0] ? score[i] : lane[0];
    float top = lane[0];
    for (std::int64_t l = 1; l < kLanes; ++l) top = top < lane[l] ? lane[l] : top;
    out[b] = top;
  }
}

void add_scaled(float* __restrict out, const float* __restrict row, float scale, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) out[i] += scale * row[i];
}

float dot(const float* a, const float* b, std::int64_t n) {
  float lane[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (std::int64_t l = 0; l < kLanes; ++l) lane[l] += a[i + l] * b[i + l];
  for (; i < n; ++i) lane[0] += a[i] * b[i];
  float sum = 0;
  for (const float v : lane) sum += v;
  return sum;
}

void add_features(const Product& p, std::int64_t begin, std::int64_t end) {
  // Four rows of W in a tile that stays in the nearest cache while every token takes them.
  constexpr std::int64_t kTile = 1024;
  for (std::int64_t tile = begin; tile < end; tile += kTile) {
    const std::int64_t n = end - tile < kTile ? end - tile : kTile;
    std::int64_t k = 0;
    for (; k + 4 <= p.inputs; k += 4) {
      const float *a = p.w + k * p.stride + tile, *b = a + p.stride, *c = b + p.stride, *d = c + p.stride;
      for (std::int64_t t = 0; t < p.tokens; ++t) {
        const float* x = p.x + t * p.inputs + k;
        const float x0 = x[0], x1 = x[1], x2 = x[2], x3 = x[3];
        float* __restrict out = p.out + t * p.features + tile;
        for (std::int64_t j = 0; j < n; ++j) out[j] += (x0 * a[j] + x1 * b[j]) + (x2 * c[j] + x3 * d[j]);
      }
    }
    for (; k < p.inputs; ++k)
      for (std::int64_t t = 0; t < p.tokens; ++t)
        add_scaled(p.out + t * p.features + tile, p.w + k * p.stride + tile, p.x[t * p.inputs + k], n);
  }
}

typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float)), aligned(4), may_alias));

// At any address: clang does not keep the alignment that an alias asks for, a packed structure's it does.
inline __attribute__((always_inline)) Lanes load(const float* p) {
  struct __attribute__((packed, may_alias)) Unaligned {
    Lanes value;
  };
  return reinterpret_cast<const Unaligned*>(p)->value;
}

/// out[t] += x[t] . w for `tokens` rows of x.
template <int tokens>
inline __attribute__((always_inline)) void add_dots(const float* x, std::int64_t inputs, const float* w, float* out,
                                                    std::int64_t features) {
  Lanes even[tokens] = {}, odd[tokens] = {};
  std::int64_t k = 0;
  for (; k + 2 * kLanes <= inputs; k += 2 * kLanes) {
    const Lanes a = load(w + k), b = load(w + k + kLanes);
#pragma GCC unroll 4
    for (int t = 0; t < tokens; ++t) {
      even[t] += a * load(x + t * inputs + k);
      odd[t] += b * load(x + t * inputs + k + kLanes);
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < tokens; ++t) {
    const Lanes both = even[t] + odd[t];
    float sum = 0;
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; ++l) sum += both[l];
    for (std::int64_t rest = k; rest < inputs; ++rest) sum += w[rest] * x[t * inputs + rest];
    out[t * features] += sum;
  }
}

void add_features_by_rows(const Product& p, std::int64_t begin, std::int64_t end) {
  for (std::int64_t j = begin; j < end; ++j) {
    const float* w = p.w + j * p.stride;
    std::int64_t t = 0;
    for (; t + 4 <= p.tokens; t += 4)
      add_dots<4>(p.x + t * p.inputs, p.inputs, w, p.out + t * p.features + j, p.features);
    for (; t < p.tokens; ++t) add_dots<1>(p.x + t * p.inputs, p.inputs, w, p.out + t * p.features + j, p.features);
  }
}

std::int64_t nonzero(const float* row, std::int64_t n, std::int32_t* out) {
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    out[count] = static_cast<std::int32_t>(i);
    count += row[i] != 0;
  }
  return count;
}

std::int64_t above(const float* row, const float* floor, float offset, std::int64_t n, std::int32_t* out) {
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const float wanted = (floor ? floor[i] : 0.0f) + offset, bound = 0.0f < wanted ? wanted : 0.0f;
    out[count] = static_cast<std::int32_t>(i);
    count += row[i] > bound;
  }
  return count;
}

void adam(float* __restrict p, float* __restrict m, float* __restrict v, const float* __restrict g, std::int64_t n,
          const AdamStep& step) {
  const float b1 = step.beta1, b2 = step.beta2, rate = step.rate, c2 = step.correction2, eps = step.epsilon;
  for (std::int64_t i = 0; i < n; ++i) {
    m[i] = b1 * m[i] + (1 - b1) * g[i];
    v[i] = b2 * v[i] + (1 - b2) * g[i] * g[i];
    p[i] -= rate * m[i] / (__builtin_sqrtf(v[i]) * c2 + eps);
  }
}

}  // namespace

STEER_ISA_TABLE(Kernels, kernels) = {
    .block_maxima = block_maxima,
    .add_scaled = add_scaled,
    .dot = dot,
    .add_features = add_features,
    .add_features_by_rows = add_features_by_rows,
    .nonzero = nonzero,
    .above = above,
    .adam = adam,
};

}  // namespace steer::sae::detail
