#pragma once

#include <steer/io/tensor_reader.hpp>

#include "io/mapped_file.hpp"

namespace steer::io::detail {

/// A GGUF file, version 2 or 3; of a split model, given any part, all of it. @throws Error(io) naming missing parts.
std::shared_ptr<const TensorReader> open_gguf(const std::filesystem::path& path,
                                              std::shared_ptr<const MappedFile> file);

}  // namespace steer::io::detail
