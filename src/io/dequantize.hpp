#pragma once

#include <c10/core/ScalarType.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "io/dequantize_kernels.hpp"

namespace steer::io::detail {

/// One tensor type of GGUF (ggml.h, `enum ggml_type`).
struct GgmlType {
  std::uint32_t id;
  std::string_view name;
  std::int64_t block_values;
  std::int64_t block_bytes;
  at::ScalarType dtype;  ///< what `read` gives: f32 for quantised types; Undefined for those steer cannot unpack
  bool quantised() const { return block_values > 1; }
};

/// @return nullptr for an id that ggml does not define (or no longer does).
const GgmlType* find_ggml_type(std::uint32_t id);
/// @return the type of that name, or nullptr.
const GgmlType* find_ggml_type(std::string_view name);

/// The kernel of a quantised type for this machine; nullptr when steer has none.
DequantizeKernel dequantize_kernel(const GgmlType& type);

/// Unpacks whole blocks on all threads. `data` holds `blocks` blocks, aligned to 2 bytes, of a type that has a kernel;
/// `out` has room for `blocks * type.block_values` values.
void dequantize(const GgmlType& type, const std::byte* data, std::int64_t blocks, float* out);

}  // namespace steer::io::detail
