#include "model/log_probability.hpp"

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include <steer/core/error.hpp>

#include "model/vec16.hpp"

namespace steer::model::detail {
namespace {

/// The sum of exp(x - most): sixteen lanes in f32 over blocks, the blocks in f64.
STEER_CLONES double sum_exp(const float* x, std::int64_t n, float most) {
  using namespace cpu;
  constexpr std::int64_t block = 64 * kLanes;
  double total = 0;
  for (std::int64_t begin = 0; begin < n; begin += block) {
    const std::int64_t end = std::min(n, begin + block);
    V part = splat(0);
    std::int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) part += exp(load(x + i) - splat(most));
    if (i < end) {
      V last = splat(-1e30f);
      std::memcpy(&last, x + i, static_cast<std::size_t>(end - i) * sizeof(float));
      part += exp(last - splat(most));
    }
    total += static_cast<double>(sum(part));
  }
  return total;
}

}  // namespace

double log_sum_exp(const float* x, std::int64_t n) {
  const float most = *std::max_element(x, x + n);
  if (!std::isfinite(most)) return most;
  return static_cast<double>(most) + std::log(sum_exp(x, n, most));
}

std::vector<std::pair<std::int64_t, double>> likeliest(const float* x, std::int64_t n, double log_sum,
                                                       std::int64_t count) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  const auto end = order.begin() + count;
  std::partial_sort(order.begin(), end, order.end(),
                    [&](std::int64_t a, std::int64_t b) { return x[a] != x[b] ? x[a] > x[b] : a < b; });
  std::vector<std::pair<std::int64_t, double>> result;
  for (auto it = order.begin(); it != end; ++it) result.emplace_back(*it, static_cast<double>(x[*it]) - log_sum);
  return result;
}

void append_log_probabilities(LogProbabilities& to, const at::Tensor& logits, std::int64_t id, std::int64_t top,
                              std::string_view where) {
  const float* x = logits.const_data_ptr<float>();
  const std::int64_t n = logits.numel();
  const double log_sum = log_sum_exp(x, n);
  const double own = static_cast<double>(x[id]) - log_sum;
  require(std::isfinite(log_sum) && !std::isnan(own), ErrorCode::argument, where,
          "expected finite logits but got a NaN or an infinity; check the weights and the steering's strength");
  to.tokens.push_back(own);
  if (top > 0) to.top.push_back(likeliest(x, n, log_sum, top));
}

}  // namespace steer::model::detail
