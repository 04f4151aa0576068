// Settings as training scripts leave them beside an SAE.
#include <string_view>

#include <steer/core/error.hpp>

#include "io/strict_json.hpp"
#include "sae/simple_yaml.hpp"

namespace {

/// Nesting that later readers could not take must have been refused.
void expect_shallow(const nlohmann::json& value, int levels) {
  if (levels == 0) __builtin_trap();
  for (const auto& item : value)
    if (item.is_structured()) expect_shallow(item, levels - 1);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  try {
    const auto json =
        steer::sae::detail::parse_simple_yaml({reinterpret_cast<const char*>(data), size}, "fuzz", "the input");
    expect_shallow(json, 64);
    steer::io::detail::brief(json);
  } catch (const steer::Error&) {
  }
  return 0;
}
