#include "core/format_text.hpp"

namespace steer::core::detail {

std::string format_erased(fmt::string_view text, fmt::format_args args) { return fmt::vformat(text, args); }

}  // namespace steer::core::detail
