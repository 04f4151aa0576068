#pragma once

#include <cstddef>
#include <cstdint>

namespace steer::io::detail {

/// Unpacks quantised blocks to f32, on the calling thread.
using DequantizeKernel = void (*)(const std::byte* data, std::int64_t blocks, float* out);

// The same kernels for two instruction sets; they give the same bits.
namespace portable {
DequantizeKernel kernel_of(unsigned type_id);
}
namespace avx2 {
DequantizeKernel kernel_of(unsigned type_id);
}

}  // namespace steer::io::detail
