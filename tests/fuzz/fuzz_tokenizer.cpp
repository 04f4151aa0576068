// A tokenizer.json.
#include "fuzz_tokenizer.hpp"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const auto text = steer::fuzz::text_of(data, size);
  if (text.starts_with('{')) steer::fuzz::use_tokenizer(text);
  return 0;
}
