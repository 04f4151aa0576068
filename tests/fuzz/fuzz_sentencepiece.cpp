// A tokenizer.model.
#include "fuzz_tokenizer.hpp"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  const auto bytes = steer::fuzz::text_of(data, size);
  if (bytes.starts_with('\n')) steer::fuzz::use_tokenizer(bytes);
  return 0;
}
