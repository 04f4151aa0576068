#pragma once

#include <steer/io/tensor_reader.hpp>

#include "io/zip_archive.hpp"

namespace steer::io::detail {

/// The entry of a torch.save archive that describes its values, or nullptr for any other archive. The name of the
/// archive's only top folder varies.
const ZipEntry* find_pytorch_pickle(const ZipArchive& archive);

/// The first bytes are those of a file that torch.save wrote before version 1.6 (or with the zip format off).
bool looks_like_legacy_pytorch(Bytes file);
std::shared_ptr<const TensorReader> open_legacy_pytorch(const std::filesystem::path& path,
                                                        std::shared_ptr<const MappedFile> file);

/// A file written by torch.save (1.6 and newer). Tensors in nested containers have the path of keys as their name,
/// joined by dots; other values are in `metadata`.
std::shared_ptr<const TensorReader> open_pytorch(const std::filesystem::path& path, ZipArchive archive);

}  // namespace steer::io::detail
