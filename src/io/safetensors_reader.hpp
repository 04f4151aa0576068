#pragma once

#include <steer/io/tensor_reader.hpp>

#include "io/mapped_file.hpp"

namespace steer::io::detail {

/// The first bytes can only be those of a safetensors file.
bool looks_like_safetensors(Bytes file);
/// One safetensors file.
std::shared_ptr<const TensorReader> open_safetensors(const std::filesystem::path& path,
                                                     std::shared_ptr<const MappedFile> file);

}  // namespace steer::io::detail
