#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace steer::stats::detail {

/// Cluster labels renumbered from 0 in order of appearance; without labels every row is its own cluster.
struct Clusters {
  /// @throws Error(shape) unless `labels` is empty or has one label a row.
  Clusters(std::span<const std::int64_t> labels, std::size_t rows, std::string_view where);
  std::vector<std::size_t> index;  ///< [rows]
  std::size_t count = 0;
};

}  // namespace steer::stats::detail
