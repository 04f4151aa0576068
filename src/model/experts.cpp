#include "model/experts.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace steer::model::detail {

Routing route(const float* logits, std::int64_t rows, const ExpertsConfig& config) {
  Routing out(static_cast<std::size_t>(config.count));
  std::vector<std::int64_t> order(static_cast<std::size_t>(config.count));
  std::vector<float> share(order.size());
  const auto per_token = static_cast<std::ptrdiff_t>(config.per_token);
  for (std::int64_t row = 0; row < rows; ++row, logits += config.count) {
    std::iota(order.begin(), order.end(), std::int64_t{0});
    std::partial_sort(order.begin(), order.begin() + per_token, order.end(), [&](std::int64_t a, std::int64_t b) {
      return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
    });
    const float top = logits[order.front()];
    float all = 0, taken = 0;
    for (std::size_t e = 0; e < share.size(); ++e) all += share[e] = std::exp(logits[e] - top);
    for (std::ptrdiff_t i = 0; i < per_token; ++i)
      taken += share[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])];
    for (std::ptrdiff_t i = 0; i < per_token; ++i) {
      const auto e = static_cast<std::size_t>(order[static_cast<std::size_t>(i)]);
      out[e].push_back({row, share[e] / (config.normalise ? taken : all)});
    }
  }
  return out;
}

}  // namespace steer::model::detail
