// A chat template: compiled and run over a small conversation, with limits low enough for many runs a second.
#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include <steer/core/error.hpp>

#include "text/jinja/template.hpp"
#include "text/utf8.hpp"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace steer::text::detail::jinja;
  static const Variables variables{
      {"messages", from_json(nlohmann::ordered_json::parse(R"([{"role": "system", "content": " Be kind. "},
          {"role": "user", "content": "h\u00e9\n<b>"}, {"role": "assistant", "content": "<think>a</think>b",
          "tool_calls": [{"name": "f", "arguments": {"x": 1.5}}]}, {"role": "user", "content": ["a", {"type": "text"}]}])"))},
      {"bos_token", Value::text("<s>")},
      {"add_generation_prompt", Value(true)},
      {"x", Value(2.5)},
      {"n", Value(std::int64_t{7})}};
  try {
    std::string source;  // what is not UTF-8 would be refused before anything of interest
    steer::text::detail::utf8_append_lossy(source, {reinterpret_cast<const char*>(data), size});
    const Template program(source);
    const Limits limits{.steps = 100'000, .memory = std::size_t{16} << 20, .depth = 1000, .nesting = 100};
    const MarkedText text = program.render(variables, std::chrono::sys_seconds(), limits);
    if (!text.marks().empty() && text.marks().back().end > text.size()) __builtin_trap();
  } catch (const steer::Error&) {
  }
  return 0;
}
