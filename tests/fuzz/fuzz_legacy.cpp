// A PyTorch file from before zip archives: the fuzzer makes what follows the two pickles that begin every such file.
#include "fuzz/fuzz_reader.hpp"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  static const std::string head("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.", 21);
  steer::fuzz::read_everything(head + std::string(reinterpret_cast<const char*>(data), size));
  return 0;
}
