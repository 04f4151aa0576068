#pragma once

#include <string_view>

#include <steer/io/tensor_reader.hpp>

namespace steer::io::detail {

/// The public function on whose behalf every reader of a file speaks.
inline constexpr std::string_view kOpenTensors = "open_tensors";

/// One file of tensors, by its content: what `open_tensors` reads but for folders and indices, so that an index cannot
/// name another. Of a split GGUF file any part stands for the whole.
std::shared_ptr<const TensorReader> open_container(const std::filesystem::path& path);

}  // namespace steer::io::detail
