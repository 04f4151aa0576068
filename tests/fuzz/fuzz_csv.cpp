// CSV text: rows that were read are written so that they are read again.
#include <cstdlib>
#include <string>

#include <steer/core/error.hpp>

#include "eval/run/csv.hpp"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace steer::eval::detail;
  try {
    const auto rows = parse_csv({reinterpret_cast<const char*>(data), size}, "fuzz");
    std::string again;
    for (const auto& row : rows) again += csv_line(row);
    if (parse_csv(again, "again") != rows) std::abort();
  } catch (const steer::Error& error) {
    if (std::string_view(error.what()).size() > 1000) std::abort();
  }
  return 0;
}
