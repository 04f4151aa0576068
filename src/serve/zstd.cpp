#include "serve/zstd.hpp"

#include <zstd.h>

#include <steer/core/error.hpp>

namespace steer::serve::detail {

std::string decode_zstd(std::string_view frame, std::size_t most) {
  // In one go: the library then needs no window beside the contents, whatever the frame's head asks for.
  std::string contents(most, '\0');
  const std::size_t size = ZSTD_decompress(contents.data(), contents.size(), frame.data(), frame.size());
  require(!frame.empty() && !ZSTD_isError(size), ErrorCode::format, "Server",
          "expected a Zstandard frame of at most {} bytes but got: {}", most,
          frame.empty() ? "nothing" : ZSTD_getErrorName(size));
  contents.resize(size);
  return contents;
}

}  // namespace steer::serve::detail
