#pragma once
// Reading of Zstandard, the compression of vllm-lens's tensors.

#include <cstddef>
#include <string>
#include <string_view>

namespace steer::serve::detail {

/// The contents of frames (RFC 8878) without dictionary. A checksum is checked where there is one.
/// @param most  bytes that may come out: a few bytes can ask for any amount of memory.
/// @throws Error(format) for bytes that are no such frames, are cut off, or hold more.
std::string decode_zstd(std::string_view frame, std::size_t most);

}  // namespace steer::serve::detail
