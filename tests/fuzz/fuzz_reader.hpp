#pragma once
// What every target does with its bytes: put them into a file in memory, open it, read all that is in it. A
// steer::Error is the right answer to nonsense; anything else that is thrown ends the fuzzer.

#include <steer/io/tensor_reader.hpp>

#include <string_view>

#include <steer/core/error.hpp>

#include "fuzz_file.hpp"

namespace steer::fuzz {

inline void touch(const at::Tensor& tensor) {
  const auto data = tensor.contiguous();
  const auto* bytes = static_cast<const volatile unsigned char*>(data.const_data_ptr());
  for (std::size_t i = 0; i < data.nbytes(); ++i) bytes[i];
}

inline void read_everything(std::string_view bytes) {
  try {
    const auto reader = open_tensors(file_of(bytes));
    for (const auto& info : reader->tensors()) {
      try {
        touch(reader->raw(info.name));
        touch(reader->read(info.name));
        if (!info.shape.empty()) touch(reader->read_rows(info.name, info.shape[0] / 2, info.shape[0]));
      } catch (const Error&) {
      }
    }
  } catch (const Error&) {
  }
}

}  // namespace steer::fuzz
