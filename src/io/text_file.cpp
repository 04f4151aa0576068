#include "io/text_file.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "io/atomic_file.hpp"
#include "io/mapped_file.hpp"

namespace steer::io::detail {

std::string read_text_file(const std::filesystem::path& path, std::string_view where, std::size_t most) {
  const RegularFile file(path, where);
  const auto refuse_length = [&](std::size_t bytes) {
    require(bytes <= most, ErrorCode::format, where,
            "expected a file of at most {} bytes but got {} ({}); check that this is the right one", most, bytes,
            path.string());
  };
  refuse_length(file.size());
  std::string text(file.size(), '\0');
  std::size_t got = 0;
  for (;;) {
    if (got == text.size()) text.resize(got + 1);  // one byte more than promised finds the end, or a file that grew
    const auto n = ::read(file.descriptor(), text.data() + got, text.size() - got);
    if (n < 0 && errno == EINTR) continue;
    require(n >= 0, ErrorCode::io, where, "expected a readable file but got \"{}\" from the system ({})",
            std::strerror(errno), path.string());
    if (n == 0) break;
    got += static_cast<std::size_t>(n);
    refuse_length(got);
    if (got == text.size()) text.resize(got + std::min(got, most - got + 1));
  }
  text.resize(got);
  return text;
}

void write_text_file(const std::filesystem::path& path, std::string_view text, std::string_view where) {
  AtomicFile file(path, where);
  file.write_at(0, as_bytes(text));
  file.commit();
}

}  // namespace steer::io::detail
