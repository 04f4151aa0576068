#include "model/backend.hpp"

namespace steer::model::detail {

void Backend::reserve(std::int64_t layer, const Rows& rows) {
  for (std::size_t i = 0; i < rows.runs.size(); ++i)
    cache_.reserve(cache_of(rows, i, layer), rows.runs[i].position, rows.runs[i].end - rows.runs[i].begin);
}

}  // namespace steer::model::detail
