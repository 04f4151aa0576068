#include "core/format_text.hpp"
#include "model/stored/formats.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>

#include "core/crew.hpp"
#include "io/strict_json.hpp"

namespace steer::model::detail {

Plain four_bit_blocks(const TensorReader& reader, const TensorInfo& weight, const std::string& state_name) {
  const at::Tensor raw = reader.raw(state_name);
  const auto state =
      io::detail::parse_json({static_cast<const char*>(raw.const_data_ptr()), static_cast<std::size_t>(raw.numel())},
                             kStoredWhere, format_text("{} of {}", state_name, reader.path().string()));
  std::vector<std::int64_t> shape;
  std::int64_t block = 0, nested_block = 256;
  double offset = 0;
  try {
    shape = state.at("shape").get<std::vector<std::int64_t>>();
    block = state.at("blocksize").get<std::int64_t>();
    nested_block = state.value("nested_blocksize", nested_block);
    offset = state.value("nested_offset", offset);
  } catch (const nlohmann::json::exception&) {
    fail(ErrorCode::format, kStoredWhere, "expected a JSON object with shape and blocksize in {} but got {} ({})",
         state_name, io::detail::brief(state), reader.path().string());
  }
  require(shape.size() == 2 && shape[0] > 0 && shape[1] > 0 && shape[0] < (1 << 30) && shape[1] < (1 << 30) &&
              block > 0 && weight.bytes * 2 == shape[0] * shape[1],
          ErrorCode::shape, kStoredWhere, "expected {} to hold half a byte for each of [{}] but got {} bytes ({})",
          weight.name, fmt::join(shape, ", "), weight.bytes, reader.path().string());
  const std::int64_t count = shape[0] * shape[1], blocks = (count + block - 1) / block;
  const std::string name = weight.name;
  part(reader, name + ".absmax", {blocks});
  part(reader, name + ".quant_map", {16});
  const bool nested = reader.contains(name + ".nested_absmax");
  if (nested) {
    require(nested_block > 0, ErrorCode::format, kStoredWhere, "expected a nested_blocksize above 0 in {}", state_name);
    part(reader, name + ".nested_quant_map", {256});
    part(reader, name + ".nested_absmax", {(blocks + nested_block - 1) / nested_block});
  }
  Plain plain;
  plain.info = {name, shape, "bitsandbytes", at::kFloat, count * 4};
  plain.rows = [=, &reader, width = shape[1]](std::int64_t begin, std::int64_t end) {
    at::Tensor largest = floats(reader, name + ".absmax");
    if (nested) {
      const at::Tensor map = floats(reader, name + ".nested_quant_map"),
                       outer = floats(reader, name + ".nested_absmax");
      const at::Tensor which = at::arange(blocks, at::kLong).div(nested_block, "floor");
      largest = map.index_select(0, largest.to(at::kLong)) * outer.index_select(0, which) + offset;
    }
    const at::Tensor map = floats(reader, name + ".quant_map"), bytes = reader.raw(name);
    const auto* packed = static_cast<const std::uint8_t*>(bytes.const_data_ptr());
    const float *values = map.const_data_ptr<float>(), *scale = largest.const_data_ptr<float>();
    at::Tensor out = at::empty({end - begin, width}, at::kFloat);
    auto* to = out.data_ptr<float>();
    core::detail::run_shares((end - begin) * width, 1 << 15, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = begin * width + first; i < begin * width + last; ++i)  // the high half comes first
        to[i - begin * width] = values[i % 2 ? packed[i / 2] & 15 : packed[i / 2] >> 4] * scale[i / block];
    });
    return out;
  };
  return plain;
}

Plain eight_bit_rows(const TensorReader& reader, const TensorInfo& weight, const std::string& scale_name) {
  require(weight.shape.size() == 2, ErrorCode::shape, kStoredWhere, "expected {} to be a matrix", weight.name);
  part(reader, scale_name, {weight.shape[0]});
  Plain plain;
  plain.info = {weight.name, weight.shape, "bitsandbytes", at::kFloat, weight.shape[0] * weight.shape[1] * 4};
  plain.rows = [&reader, name = weight.name, scale_name](std::int64_t begin, std::int64_t end) {
    const at::Tensor scale = floats(reader, scale_name).narrow(0, begin, end - begin) / 127;
    return reader.read_rows(name, begin, end).to(at::kFloat) * scale.unsqueeze(1);
  };
  return plain;
}

}  // namespace steer::model::detail
