#include "io/mapped_file.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace steer::io::detail {

RegularFile::RegularFile(const std::filesystem::path& path, std::string_view where) {
  // Without O_NONBLOCK, opening a named pipe would wait for a writer.
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  require(fd_ >= 0, ErrorCode::io, where,
          "expected a readable file but got \"{}\" from the system ({}); check the path", std::strerror(errno),
          path.string());
  struct stat status {};
  if (::fstat(fd_, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(fd_);
    fail(ErrorCode::io, where, "expected a regular file but got a folder, pipe or device ({})", path.string());
  }
  size_ = static_cast<std::size_t>(status.st_size);
}

RegularFile::~RegularFile() { ::close(fd_); }

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path, std::string_view where) {
  const RegularFile file(path, where);
  std::shared_ptr<MappedFile> mapped(new MappedFile);
  mapped->size_ = file.size();
  if (mapped->size_ == 0) return mapped;
  void* data = ::mmap(nullptr, mapped->size_, PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
  require(data != MAP_FAILED, ErrorCode::io, where, "expected to map {} bytes of {} but got \"{}\" from the system",
          mapped->size_, path.string(), std::strerror(errno));
  mapped->data_ = static_cast<const std::byte*>(data);
  return mapped;
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

at::Tensor tensor_over(OwnedBytes data, std::span<const std::int64_t> shape, at::ScalarType dtype,
                       std::string_view name) {
  const at::IntArrayRef sizes(shape.data(), shape.size());
  if (dtype == at::kBool) {
    for (const auto byte : data.bytes)
      require(byte <= std::byte{1}, ErrorCode::format, "TensorReader::read",
              "expected BOOL data of 0 and 1 but got the byte {} (tensor {})", static_cast<int>(byte), quote(name));
  }
  if (data.bytes.empty()) return at::empty(sizes, dtype);
  const auto alignment = std::min<std::size_t>(c10::elementSize(dtype), alignof(std::max_align_t));
  if (reinterpret_cast<std::uintptr_t>(data.bytes.data()) % alignment != 0) {
    auto copy = at::empty(sizes, dtype);
    std::memcpy(copy.mutable_data_ptr(), data.bytes.data(), data.bytes.size());
    return copy;
  }
  return at::from_blob(
      const_cast<std::byte*>(data.bytes.data()), sizes,
      [owner = std::move(data.owner)](void*) mutable { owner.reset(); }, at::TensorOptions(dtype));
}

at::Tensor row_major_bytes(const at::Tensor& tensor) {
  // Not `view(kByte)`: that refuses a single element with a stride of 0, which is contiguous too.
  auto data = tensor.contiguous();
  const auto bytes = static_cast<std::int64_t>(data.nbytes());
  if (bytes == 0) return at::empty({0}, at::kByte);
  void* begin = const_cast<void*>(data.const_data_ptr());
  return at::from_blob(
      begin, {bytes}, [data](void*) mutable { data.reset(); }, at::TensorOptions(at::kByte));
}

Rows rows_of(Bytes data, std::span<const std::int64_t> shape, std::int64_t begin, std::int64_t end) {
  if (shape.empty()) return {data, {}};
  Rows rows{{}, {shape.begin(), shape.end()}};
  rows.shape[0] = end - begin;
  if (shape[0] == 0) return rows;
  const auto bytes_a_row = data.size() / static_cast<std::size_t>(shape[0]);
  rows.bytes =
      data.subspan(static_cast<std::size_t>(begin) * bytes_a_row, static_cast<std::size_t>(end - begin) * bytes_a_row);
  return rows;
}

}  // namespace steer::io::detail
