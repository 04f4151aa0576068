// What a request brings before anybody knows what it asks: JSON, its fields, base64, a compressed tensor. The first
// byte says which.
#include <string>
#include <string_view>

#include <steer/core/error.hpp>

#include "serve/fields.hpp"
#include "serve/zstd.hpp"

namespace {

using namespace steer::serve::detail;

void read_fields(const std::string& body) {
  const auto json = parse_body(body);
  Fields fields(json);
  fields.text("model", "");
  fields.integer("n", 1, 1, 128);
  fields.number("temperature", 1, 0, 100);
  fields.boolean("stream", false);
  fields.integers("stop_token_ids", 0, 1000);
  if (fields.has("steering")) fields.object("steering").done();
  fields.ignore({"user"});
  fields.refuse({"tools"}, "the server calls no tools");
  fields.done();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string rest(reinterpret_cast<const char*>(data + 1), size - 1);
  try {
    switch (data[0] % 3) {
      case 0:
        read_fields(rest);
        break;
      case 1:
        if (encode_base64(decode_base64(rest, "data")).size() > rest.size() + 4) __builtin_trap();
        break;
      default:
        if (decode_zstd(rest, 1 << 20).size() > 1 << 20) __builtin_trap();
    }
  } catch (const ApiError& error) {
    if (error.status() != 400) __builtin_trap();
  } catch (const steer::Error&) {
  }
  return 0;
}
