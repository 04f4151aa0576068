#pragma once

#include <fmt/format.h>

#include <string>
#include <utility>

namespace steer {

namespace core::detail {
std::string format_erased(fmt::string_view text, fmt::format_args args);
}

// fmt::format, compiled once: fmt is used as headers alone, because libtorch's own copy of them comes first, and each
// file that formats in place would compile all of its number writing, for two seconds.
template <class... Args>
std::string format_text(fmt::format_string<Args...> text, Args&&... args) {
  return core::detail::format_erased(text.get(), fmt::make_format_args(args...));
}

}  // namespace steer
