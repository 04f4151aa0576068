#include "model/cuda/runtime.hpp"

#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <steer/core/error.hpp>

namespace steer::model::detail::cuda {

Stream current_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

void check_launch(const char* where) {
  const cudaError_t error = cudaGetLastError();
  require(error == cudaSuccess, ErrorCode::unsupported, where,
          "expected the card to take the work but got \"{}\"; see that it is of compute capability 8.0 or newer and "
          "that its driver is no older than CUDA {}.{}",
          cudaGetErrorString(error), CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
}

}  // namespace steer::model::detail::cuda
