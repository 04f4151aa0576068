#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <steer/core/enum.hpp>

namespace steer {

/// What kind of thing went wrong; the message says which one and what to do about it.
enum class ErrorCode {
  io,           ///< the file system or the network refused
  format,       ///< bytes that are not what the file's own format promises
  shape,        ///< a tensor of the wrong shape, width or length
  config,       ///< a configuration that is incomplete or contradicts itself
  unsupported,  ///< valid, but not something steer can do
  argument,     ///< a call with a value outside its contract
  cancelled,    ///< stopped on the caller's request
};

template <>
struct EnumTable<ErrorCode> {
  static constexpr std::string_view name = "error code";
  static constexpr EnumEntry<ErrorCode> entries[] = {
      {ErrorCode::io, "io"},
      {ErrorCode::format, "format"},
      {ErrorCode::shape, "shape"},
      {ErrorCode::config, "config"},
      {ErrorCode::unsupported, "unsupported"},
      {ErrorCode::argument, "argument"},
      {ErrorCode::cancelled, "cancelled"},
  };
};

/// The one exception type of the library. `what()` reads
/// `[steer::function] expected ... but got ... (file or tensor); what to do`.
class Error : public std::runtime_error {
 public:
  /// @param message  the whole text of `what()`; `fail` composes it.
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  /// The kind, for callers that handle some and pass on others.
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

namespace core::detail {
/// `fail` with its arguments erased: one function for all callers, since formatting in place costs each file seconds of
/// compile time.
[[noreturn]] void fail_formatted(ErrorCode code, std::string_view where, fmt::string_view text, fmt::format_args args);
}  // namespace core::detail

/// Throws an Error whose message is `[steer::where] ` and the formatted text.
/// @param where  the public function that was called, without `steer::`, e.g. "Sae::load".
/// @throws Error always.
template <class... Args>
[[noreturn]] void fail(ErrorCode code, std::string_view where, fmt::format_string<Args...> text, Args&&... args) {
  core::detail::fail_formatted(code, where, text.get(), fmt::make_format_args(args...));
}

/// `fail` unless `ok`. The text is formatted only on failure.
template <class... Args>
void require(bool ok, ErrorCode code, std::string_view where, fmt::format_string<Args...> text, Args&&... args) {
  if (!ok) [[unlikely]]
    fail(code, where, text, std::forward<Args>(args)...);
}

/// The enumerator with this name.
/// @param where  the public function on whose behalf the text is parsed, for the message.
/// @throws Error(argument) that lists the names of the enum when `text` is none of them.
template <class E>
E parse_enum(std::string_view text, std::string_view where) {
  if (auto value = find_enum<E>(text)) return *value;
  std::string names;
  for (const auto& entry : EnumTable<E>::entries) names += (names.empty() ? "" : ", ") + std::string(entry.name);
  fail(ErrorCode::argument, where, "expected {} (one of: {}) but got \"{}\"", EnumTable<E>::name, names, text);
}

}  // namespace steer
