#pragma once

#include <cstdint>
#include <vector>

#include <steer/model/config.hpp>

namespace steer::model::detail {

/// A row that an expert sees, and the weight of what it makes of it.
struct Routed {
  std::int64_t row;
  float weight;
};
/// By expert, rows in order.
using Routing = std::vector<std::vector<Routed>>;

/// Chooses each row's experts. A row's choice and weights depend on its own logits alone; of equal logits the lower
/// expert's is taken. @param logits  [rows, experts].
Routing route(const float* logits, std::int64_t rows, const ExpertsConfig& config);

}  // namespace steer::model::detail
