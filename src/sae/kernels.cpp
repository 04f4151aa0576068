#include "sae/kernels.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

// One binary serves every x86-64: the loader picks the widest version the processor has. Sanitizers cannot run the
// resolver this needs.
#if defined(__x86_64__) && defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define STEER_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define STEER_CLONES
#endif

namespace steer::sae::detail {
namespace {

constexpr std::int64_t kLanes = 16;

STEER_CLONES void block_maxima(const float* score, std::int64_t n, std::int64_t block, float* out) {
  for (std::int64_t begin = 0, b = 0; begin < n; begin += block, ++b) {
    const std::int64_t end = std::min(n, begin + block);
    float lane[kLanes];
    for (float& v : lane) v = -std::numeric_limits<float>::infinity();
    std::int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes)
      for (std::int64_t l = 0; l < kLanes; ++l) lane[l] = score[i + l] > lane[l] ? score[i + l] : lane[l];
    for (; i < end; ++i) lane[0] = score[i] > lane[0] ? score[i] : lane[0];
    float top = lane[0];
    for (std::int64_t l = 1; l < kLanes; ++l) top = std::max(top, lane[l]);
    out[b] = top;
  }
}

}  // namespace

std::int64_t top_k(const float* score, std::int64_t n, std::int64_t k, std::int32_t* out, TopKScratch& scratch) {
  k = std::min(k, n);
  if (k <= 0) return 0;
  // The larger the blocks the cheaper the first selection, as long as there are more blocks than k.
  const std::int64_t block = std::clamp(n / (4 * k) / kLanes * kLanes, kLanes, std::int64_t{256});
  const std::int64_t blocks = (n + block - 1) / block;
  auto& maxima = scratch.block_max;
  maxima.resize(static_cast<std::size_t>(2 * blocks));
  block_maxima(score, n, block, maxima.data());
  float bound = -std::numeric_limits<float>::infinity();
  if (blocks > k) {
    const auto copy = maxima.begin() + blocks;
    std::copy(maxima.begin(), copy, copy);
    std::nth_element(copy, copy + (k - 1), maxima.end(), std::greater<>());
    bound = copy[k - 1];
  }
  auto& candidates = scratch.candidates;
  candidates.clear();
  for (std::int64_t b = 0; b < blocks; ++b) {
    if (!(maxima[b] >= bound)) continue;
    const std::int64_t end = std::min(n, (b + 1) * block);
    for (std::int64_t i = b * block; i < end; ++i)
      if (score[i] >= bound) candidates.push_back(static_cast<std::int32_t>(i));
  }
  const auto before = [score](std::int32_t a, std::int32_t b) {
    return score[a] > score[b] || (score[a] == score[b] && a < b);
  };
  const auto kept = std::min<std::int64_t>(k, candidates.size());
  if (kept < static_cast<std::int64_t>(candidates.size()))
    std::nth_element(candidates.begin(), candidates.begin() + kept, candidates.end(), before);
  std::sort(candidates.begin(), candidates.begin() + kept, before);
  std::copy_n(candidates.begin(), kept, out);
  return kept;
}

STEER_CLONES void add_scaled(float* __restrict out, const float* __restrict row, float scale, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) out[i] += scale * row[i];
}

STEER_CLONES float dot(const float* a, const float* b, std::int64_t n) {
  float lane[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (std::int64_t l = 0; l < kLanes; ++l) lane[l] += a[i + l] * b[i + l];
  for (; i < n; ++i) lane[0] += a[i] * b[i];
  float sum = 0;
  for (const float v : lane) sum += v;
  return sum;
}

STEER_CLONES void add_features(const Product& p, std::int64_t begin, std::int64_t end) {
  // Four rows of W in a tile that stays in the nearest cache while every token takes them.
  constexpr std::int64_t kTile = 1024;
  for (std::int64_t tile = begin; tile < end; tile += kTile) {
    const std::int64_t n = std::min(kTile, end - tile);
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

namespace {

typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float)), aligned(4), may_alias));

/// out[t] += x[t] . w for `tokens` rows of x.
template <int tokens>
inline __attribute__((always_inline)) void add_dots(const float* x, std::int64_t inputs, const float* w, float* out,
                                                    std::int64_t features) {
  Lanes even[tokens] = {}, odd[tokens] = {};
  std::int64_t k = 0;
  for (; k + 2 * kLanes <= inputs; k += 2 * kLanes) {
    const Lanes a = *reinterpret_cast<const Lanes*>(w + k), b = *reinterpret_cast<const Lanes*>(w + k + kLanes);
#pragma GCC unroll 4
    for (int t = 0; t < tokens; ++t) {
      even[t] += a * *reinterpret_cast<const Lanes*>(x + t * inputs + k);
      odd[t] += b * *reinterpret_cast<const Lanes*>(x + t * inputs + k + kLanes);
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

}  // namespace

STEER_CLONES void add_features_by_rows(const Product& p, std::int64_t begin, std::int64_t end) {
  for (std::int64_t j = begin; j < end; ++j) {
    const float* w = p.w + j * p.stride;
    std::int64_t t = 0;
    for (; t + 4 <= p.tokens; t += 4)
      add_dots<4>(p.x + t * p.inputs, p.inputs, w, p.out + t * p.features + j, p.features);
    for (; t < p.tokens; ++t) add_dots<1>(p.x + t * p.inputs, p.inputs, w, p.out + t * p.features + j, p.features);
  }
}

STEER_CLONES std::int64_t nonzero(const float* row, std::int64_t n, std::int32_t* out) {
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    out[count] = static_cast<std::int32_t>(i);
    count += row[i] != 0;
  }
  return count;
}

STEER_CLONES std::int64_t above(const float* row, const float* floor, float offset, std::int64_t n, std::int32_t* out) {
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const float bound = std::max(0.0f, (floor ? floor[i] : 0.0f) + offset);
    out[count] = static_cast<std::int32_t>(i);
    count += row[i] > bound;
  }
  return count;
}

STEER_CLONES void adam(float* __restrict p, float* __restrict m, float* __restrict v, const float* __restrict g,
                       std::int64_t n, const AdamStep& step) {
  const float b1 = step.beta1, b2 = step.beta2, rate = step.rate, c2 = step.correction2, eps = step.epsilon;
  for (std::int64_t i = 0; i < n; ++i) {
    m[i] = b1 * m[i] + (1 - b1) * g[i];
    v[i] = b2 * v[i] + (1 - b2) * g[i] * g[i];
    p[i] -= rate * m[i] / (std::sqrt(v[i]) * c2 + eps);
  }
}

}  // namespace steer::sae::detail
