#pragma once
// What the writer and the reader of steerings as JSON agree on. Schema: docs/steering-schema.md.

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include <steer/core/hash.hpp>

namespace steer::steering::detail {

inline constexpr std::string_view kJsonFormat = "steer.steering";
inline constexpr int kJsonVersion = 1;

/// The name under which a vector stands in the file beside the JSON.
inline std::string vector_hash(const at::Tensor& v) {
  const auto* bytes = reinterpret_cast<const std::byte*>(v.const_data_ptr<float>());
  return content_hash(std::span(bytes, static_cast<std::size_t>(v.numel()) * sizeof(float)));
}

}  // namespace steer::steering::detail
