#pragma once

#include <cstddef>
#include <cstdint>

namespace steer::io::detail {

/// Unpacks quantised blocks to f32, on the calling thread.
using DequantizeKernel = void (*)(const std::byte* data, std::int64_t blocks, float* out);

/// Built for each instruction set (core/isa.hpp); all give the same bits.
struct DequantizeKernels {
  /// By the number of ggml.h's `enum ggml_type`; a null pointer for a type without a kernel.
  DequantizeKernel (*of)(unsigned type_id);
};

const DequantizeKernels& dequantize_kernels();

}  // namespace steer::io::detail
