// A config.json: what is read must be consistent, and what is refused says why in a few lines.
#include <cstdlib>
#include <string_view>

#include <steer/core/error.hpp>
#include <steer/model/config.hpp>

#include "io/strict_json.hpp"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const auto json = steer::io::detail::find_json({reinterpret_cast<const char*>(data), size});
  if (!json) return 0;
  try {
    const auto config = steer::ModelConfig::from_hugging_face(*json);
    if (config.n_layers != std::ssize(config.layers) || config.n_heads % config.n_kv_heads != 0) std::abort();
  } catch (const steer::Error& error) {
    if (std::string_view(error.what()).size() > 4000) std::abort();
  }
  return 0;
}
