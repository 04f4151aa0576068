#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <string_view>

#include "io/bytes.hpp"

namespace steer::io::detail {

/// A regular file open for reading.
class RegularFile {
 public:
  /// @throws Error(io) when it cannot be read, or is a folder, a pipe or a device (opening a pipe must not wait).
  RegularFile(const std::filesystem::path& path, std::string_view where);
  ~RegularFile();
  RegularFile(const RegularFile&) = delete;
  RegularFile& operator=(const RegularFile&) = delete;

  int descriptor() const { return fd_; }
  std::size_t size() const { return size_; }

 private:
  int fd_ = -1;
  std::size_t size_ = 0;
};

/// A whole file mapped read-only. Opening reads no page of it; a page is read when it is first touched.
class MappedFile {
 public:
  /// @throws Error(io) when the path is not a regular file that can be read.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path, std::string_view where);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  Bytes bytes() const { return {data_, size_}; }

 private:
  MappedFile() = default;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Bytes and what keeps them alive: a mapped file, or memory that a compressed entry was unpacked to.
struct OwnedBytes {
  Bytes bytes;
  std::shared_ptr<const void> owner;
};

/// A tensor over row-major data held by `owner`, without a copy unless the bytes are not aligned for `dtype`.
/// @param data   exactly the stored bytes of the rows asked for.
/// @param shape  of those rows.
/// @throws Error(format) for BOOL data with bytes other than 0 and 1, which no program may load as a bool.
at::Tensor tensor_over(OwnedBytes data, std::span<const std::int64_t> shape, at::ScalarType dtype,
                       std::string_view name);

/// The elements of any tensor as bytes in row-major order, u8 [bytes]; shares the memory where they lie so already.
at::Tensor row_major_bytes(const at::Tensor& tensor);

/// The part of row-major `data` that holds rows [begin, end) of a tensor of `shape`, and the shape of that part. A 0-d
/// tensor is one row.
struct Rows {
  Bytes bytes;
  std::vector<std::int64_t> shape;
};
Rows rows_of(Bytes data, std::span<const std::int64_t> shape, std::int64_t begin, std::int64_t end);

}  // namespace steer::io::detail
