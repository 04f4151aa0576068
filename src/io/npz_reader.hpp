#pragma once

#include <steer/io/tensor_reader.hpp>

#include "io/zip_archive.hpp"

namespace steer::io::detail {

/// One npy file; its tensor has the name of the file without the extension.
std::shared_ptr<const TensorReader> open_npy(const std::filesystem::path& path, std::shared_ptr<const MappedFile> file);
/// A zip archive of npy files; tensors have the names of the entries without ".npy".
std::shared_ptr<const TensorReader> open_npz(const std::filesystem::path& path, ZipArchive archive);

}  // namespace steer::io::detail
