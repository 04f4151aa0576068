// The one reader of JSON: what it lets through may be copied, compared, printed and shortened without harm.
#include <cstdlib>
#include <string_view>

#include "io/strict_json.hpp"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto found = steer::io::detail::find_json(text);
  try {
    const auto json = steer::io::detail::parse_json(text, "fuzz", "the input");
    const auto copy = json;
    // Of text that came through, printing gives text that means the same.
    if (!found || *found != copy || steer::io::detail::parse_json(json.dump(), "fuzz", "again") != json) std::abort();
    if (steer::io::detail::brief(json).size() > 83) std::abort();
  } catch (const steer::Error& error) {
    if (found || std::string_view(error.what()).size() > 600) std::abort();
  }
  return 0;
}
