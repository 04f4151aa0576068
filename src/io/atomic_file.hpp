#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "io/bytes.hpp"

namespace steer::io::detail {

/// A file that replaces `path` in one step when `commit` is called, and never otherwise.
class AtomicFile {
 public:
  /// @throws Error(io) when a file cannot be created in the folder of `path`.
  AtomicFile(std::filesystem::path path, std::string_view where);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Claims space, so that a full disk is found before the work. @throws Error(io).
  void reserve(std::int64_t bytes);
  /// @throws Error(io).
  void write_at(std::int64_t offset, Bytes bytes);
  /// Syncs the data, renames, syncs the folder. @throws Error(io).
  void commit();

 private:
  [[noreturn]] void fail_with_errno(std::string_view doing) const;

  std::filesystem::path path_, temporary_;
  std::string_view where_;
  int fd_ = -1;
};

}  // namespace steer::io::detail
