#pragma once
// A target's bytes as a file, in memory.

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <string_view>

namespace steer::fuzz {

/// The path of a file that holds `bytes`, until the next call.
inline std::string file_of(std::string_view bytes) {
  static const int fd = ::memfd_create("fuzz", 0);
  if (fd < 0 || ::ftruncate(fd, 0) != 0 ||
      ::pwrite(fd, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    std::abort();
  return "/proc/self/fd/" + std::to_string(fd);
}

inline std::string_view text_of(const unsigned char* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// Calls `read`; a steer::Error of a readable length is the right answer to nonsense.
template <class Error, class F>
void read_or_refuse(const F& read) {
  try {
    read();
  } catch (const Error& error) {
    if (std::string_view(error.what()).size() > 4000) std::abort();
  }
}

}  // namespace steer::fuzz
