#pragma once

#include <steer/io/tensor_reader.hpp>

namespace steer::io::detail {

/// One file of tensors, by its content: what `open_tensors` reads but for folders and indices, so that an index cannot
/// name another. Of a split GGUF file any part stands for the whole.
std::shared_ptr<const TensorReader> open_container(const std::filesystem::path& path);

}  // namespace steer::io::detail
