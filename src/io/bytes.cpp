#include "io/bytes.hpp"

#include "core/format_text.hpp"

namespace steer::io::detail {

std::string quote(std::string_view name) {
  constexpr std::size_t longest = 80;
  std::string text = "\"";
  for (const char c : name.substr(0, longest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f)
      text += format_text("\\x{:02x}", byte);
    else
      text += c;
  }
  return text + (name.size() > longest ? "...\"" : "\"");
}

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += format_text("{}{}", i ? ", " : "", shape[i]);
  return text + "]";
}

}  // namespace steer::io::detail
