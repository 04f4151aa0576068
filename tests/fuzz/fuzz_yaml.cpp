// Settings as training scripts leave them beside an SAE.
#include <string_view>

#include <steer/core/error.hpp>

#include "io/strict_json.hpp"
#include "sae/simple_yaml.hpp"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  try {
    const auto json =
        steer::sae::detail::parse_simple_yaml({reinterpret_cast<const char*>(data), size}, "fuzz", "the input");
    steer::io::detail::require_shallow(json, "fuzz");
    steer::io::detail::brief(json);
  } catch (const steer::Error&) {
  }
  return 0;
}
