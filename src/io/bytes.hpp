#pragma once
// Overflow-safe arithmetic, bounds-checked little-endian reads and safe quoting: what every parser of hostile
// bytes in this module is made of.

#include <c10/core/ScalarType.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include <steer/core/error.hpp>

namespace steer::io::detail {

static_assert(std::endian::native == std::endian::little, "every format read here is little-endian, and so is steer");

using Bytes = std::span<const std::byte>;

/// More dimensions than any weight has; bounds what a hostile header can make a reader allocate.
inline constexpr std::size_t kMaxDimensions = 16;
/// Tensors in one file. The largest published models have about 150,000 over all their shards.
inline constexpr std::size_t kMaxTensors = std::size_t{1} << 18;

inline std::optional<std::int64_t> checked_add(std::int64_t a, std::int64_t b) {
  std::int64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? std::nullopt : std::optional(sum);
}

inline std::optional<std::int64_t> checked_multiply(std::int64_t a, std::int64_t b) {
  std::int64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? std::nullopt : std::optional(product);
}

/// Number of elements of a shape; nothing when a dimension is negative or when elements or strides would not fit
/// 64 bits (strides count an empty dimension as 1, so [0, 2^40, 2^40] is refused too).
inline std::optional<std::int64_t> element_count(std::span<const std::int64_t> shape) {
  std::int64_t extent = 1;
  bool empty = false;
  for (const auto size : shape) {
    if (size < 0 || __builtin_mul_overflow(extent, size == 0 ? 1 : size, &extent)) return std::nullopt;
    empty |= size == 0;
  }
  return empty ? 0 : extent;
}

inline std::string_view as_text(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
inline Bytes as_bytes(std::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); }

/// A name from a file, fit for a message: in quotes, shortened, bytes outside printable ASCII escaped.
std::string quote(std::string_view name);

/// "[2, 3]".
std::string shape_text(std::span<const std::int64_t> shape);

/// Reads little-endian values one after another and never past the end.
class ByteCursor {
 public:
  /// @param what  what is read, for the message: "the GGUF header of /models/a.gguf".
  ByteCursor(Bytes bytes, std::string_view where, std::string what)
      : bytes_(bytes), where_(where), what_(std::move(what)) {}

  std::size_t position() const { return position_; }
  std::size_t left() const { return bytes_.size() - position_; }

  /// @throws Error(format) when fewer than `count` bytes are left.
  Bytes take(std::uint64_t count) {
    require(count <= left(), ErrorCode::format, where_,
            "expected {} more bytes in {} but got {} (at byte {}); the file is cut off or damaged: download or save it "
            "again",
            count, what_, left(), position_);
    const auto part = bytes_.subspan(position_, static_cast<std::size_t>(count));
    position_ += part.size();
    return part;
  }

  template <class T>
  T read() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }

 private:
  Bytes bytes_;
  std::size_t position_ = 0;
  std::string_view where_;
  std::string what_;
};

}  // namespace steer::io::detail
