#include "model/stored/formats.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <fmt/ranges.h>

#include <steer/core/error.hpp>

namespace steer::model::detail {

Plain scaled(const TensorReader& reader, const TensorInfo& weight, const std::string& scale_name,
             const StoredWeights& s) {
  const TensorInfo& scale = reader.info(scale_name);
  require(weight.shape.size() == 2, ErrorCode::shape, kStoredWhere, "expected {} to be a matrix but got {} dimensions",
          weight.name, weight.shape.size());
  const std::int64_t out = weight.shape[0], in = weight.shape[1];
  const bool blocks = s.block_rows > 0 && scale_name.ends_with("_scale_inv");
  const std::int64_t high = blocks ? s.block_rows : out, wide = blocks ? s.block_columns : in;
  std::int64_t count = 1;
  for (auto size : scale.shape) count *= size;
  const std::int64_t down = (out + high - 1) / high, across = (in + wide - 1) / wide;
  require(blocks ? scale.shape == std::vector{down, across} : count == 1 || count == out, ErrorCode::shape,
          kStoredWhere, "expected {} to have a scale for each block of {} by {} of {} but got [{}] ({})", scale_name,
          high, wide, weight.name, fmt::join(scale.shape, ", "), reader.path().string());
  Plain plain;
  plain.info = {weight.name, weight.shape, "FP8", at::kFloat, out * in * 4};
  plain.rows = [&reader, name = weight.name, scale_name, blocks, high, wide, in, count](std::int64_t begin,
                                                                                        std::int64_t end) {
    at::Tensor values = reader.read_rows(name, begin, end).to(at::kFloat);
    const at::Tensor scales = floats(reader, scale_name);
    if (!blocks) {
      const at::Tensor flat = scales.reshape({-1});
      return values.mul_(count == 1 ? flat : flat.narrow(0, begin, end - begin).unsqueeze(1));
    }
    const at::Tensor row_of = at::arange(begin, end, at::kLong).div(high, "floor"),
                     column_of = at::arange(in, at::kLong).div(wide, "floor");
    return values.mul_(scales.index_select(0, row_of).index_select(1, column_of));
  };
  return plain;
}

}  // namespace steer::model::detail
