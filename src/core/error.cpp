#include <steer/core/error.hpp>

namespace steer::core::detail {

void fail_formatted(ErrorCode code, std::string_view where, fmt::string_view text, fmt::format_args args) {
  throw Error(code, fmt::format("[steer::{}] {}", where, fmt::vformat(text, args)));
}

}  // namespace steer::core::detail
