#include "model/cuda/runtime.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <memory>

#include <steer/core/error.hpp>

#include "model/cuda/recording.hpp"

namespace steer::model::detail::cuda {

Stream current_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

void check_launch(const char* where) {
  const cudaError_t error = cudaGetLastError();
  require(error == cudaSuccess, ErrorCode::unsupported, where,
          "expected the card to take the work but got \"{}\"; see that it is of compute capability 8.0 or newer and "
          "that its driver is no older than CUDA {}.{}",
          cudaGetErrorString(error), CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
}

namespace {

void check(cudaError_t error) {
  require(error == cudaSuccess, ErrorCode::unsupported, "Session::step",
          "expected the card to record a decoded step but got \"{}\"; SessionOptions::graphs = false does without",
          cudaGetErrorString(error));
}

}  // namespace

Recording::Recording(const std::function<void()>& work) {
  // On a stream of its own: libtorch's default one cannot be recorded. Relaxed: its allocator may ask the card for
  // memory meanwhile.
  const c10::cuda::CUDAStream side = c10::cuda::getStreamFromPool();
  const c10::cuda::CUDAStreamGuard guard(side);
  check(cudaStreamBeginCapture(side.stream(), cudaStreamCaptureModeRelaxed));
  cudaGraph_t recorded = nullptr;
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(side.stream(), &recorded);
    if (recorded) cudaGraphDestroy(recorded);
    throw;
  }
  check(cudaStreamEndCapture(side.stream(), &recorded));
  cudaGraphExec_t ready = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&ready, recorded, 0);
  cudaGraphDestroy(recorded);
  check(error);
  graph_ = ready;
}

Recording::~Recording() { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph_)); }

void Recording::launch(Stream stream) const {
  check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph_), static_cast<cudaStream_t>(stream)));
}

std::function<const std::uint8_t*()> fetch(const at::Tensor& bytes) {
  const at::Tensor host = at::empty(bytes.sizes(), at::TensorOptions().dtype(at::kByte).pinned_memory(true));
  host.copy_(bytes, /*non_blocking=*/true);
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  const std::shared_ptr<CUevent_st> there(event, [](cudaEvent_t e) { cudaEventDestroy(e); });
  check(cudaEventRecord(event, static_cast<cudaStream_t>(current_stream())));
  return [host, there] {
    check(cudaEventSynchronize(there.get()));
    return host.const_data_ptr<std::uint8_t>();
  };
}

}  // namespace steer::model::detail::cuda
