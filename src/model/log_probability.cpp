#include "model/log_probability.hpp"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>

#include <steer/core/error.hpp>

#include "model/cpu_loops.hpp"

namespace steer::model::detail {

double log_sum_exp(const float* x, std::int64_t n) {
  const float most = *std::max_element(x, x + n);
  if (!std::isfinite(most)) return most;
  return static_cast<double>(most) + std::log(cpu::loops().sum_exp(x, n, most));
}

double kl_divergence(const float* x, const float* y, std::int64_t n) {
  // sum of p (x - log Z_x - y + log Z_y), p = exp(x - most) / sum of exp(x - most)
  const float most = *std::max_element(x, x + n);
  const double all = cpu::loops().sum_exp(x, n, most);
  return cpu::loops().sum_exp_difference(x, y, n, most) / all - (static_cast<double>(most) + std::log(all)) +
         log_sum_exp(y, n);
}

std::vector<std::pair<std::int64_t, double>> likeliest(const float* x, std::int64_t n, double log_sum,
                                                       std::int64_t count) {
  // A heap of the best so far, the worst of them on top: few of many are asked for.
  const auto before = [&](std::int64_t a, std::int64_t b) { return x[a] != x[b] ? x[a] > x[b] : a < b; };
  std::vector<std::int64_t> best;
  best.reserve(static_cast<std::size_t>(count) + 1);
  for (std::int64_t i = 0; i < n && count > 0; ++i) {
    if (std::ssize(best) == count) {
      if (!(x[i] > x[best.front()])) continue;
      std::pop_heap(best.begin(), best.end(), before);
      best.pop_back();
    }
    best.push_back(i);
    std::push_heap(best.begin(), best.end(), before);
  }
  std::sort_heap(best.begin(), best.end(), before);
  std::vector<std::pair<std::int64_t, double>> result;
  for (const std::int64_t i : best) result.emplace_back(i, static_cast<double>(x[i]) - log_sum);
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
