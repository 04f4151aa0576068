#pragma once
// Whole text files in and out: every reader and writer of small files goes through here.

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

namespace steer::io::detail {

/// Most bytes that a text file may have unless a reader says otherwise.
inline constexpr std::size_t kMostText = std::size_t{1} << 30;

/// All bytes of a regular file.
/// @throws Error(io) where it cannot be read or is a folder, pipe or device; Error(format) for more than `most` bytes.
std::string read_text_file(const std::filesystem::path& path, std::string_view where, std::size_t most = kMostText);

/// Replaces `path` by `text` in one step: after a crash or on a full disk the file is the old or the new one, whole.
/// @throws Error(io).
void write_text_file(const std::filesystem::path& path, std::string_view text, std::string_view where);

}  // namespace steer::io::detail
