#include "sae/kernels.hpp"

#include <algorithm>
#include <functional>
#include <limits>

#include "core/isa.hpp"

namespace steer::sae::detail {

STEER_TABLE_IN_USE(Kernels, kernels)

std::int64_t top_k(const float* score, std::int64_t n, std::int64_t k, std::int32_t* out, TopKScratch& scratch) {
  k = std::min(k, n);
  if (k <= 0) return 0;
  // The larger the blocks the cheaper the first selection, as long as there are more blocks than k.
  const std::int64_t block = std::clamp(n / (4 * k) / 16 * 16, std::int64_t{16}, std::int64_t{256});
  const std::int64_t blocks = (n + block - 1) / block;
  auto& maxima = scratch.block_max;
  maxima.resize(static_cast<std::size_t>(2 * blocks));
  kernels().block_maxima(score, n, block, maxima.data());
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

}  // namespace steer::sae::detail
