#pragma once

#include <ATen/core/Tensor.h>

#include "model/cuda/kernels.hpp"

namespace steer::model::detail::cuda {

/// libtorch's current stream of the current device: kernels here and operators there run in the order they were called.
Stream current_stream();

/// Launches are not checked one by one: an error stays until it is asked for.
/// @throws Error(unsupported) with CUDA's words, on behalf of `where`, where a launch since the last call failed.
void check_launch(const char* where);

/// Bytes on their way from the card: as they are when all work given to it so far is done.
class Fetched {
 public:
  explicit Fetched(const at::Tensor& bytes);
  ~Fetched();
  Fetched(const Fetched&) = delete;
  Fetched& operator=(const Fetched&) = delete;
  /// Waits for them.
  const std::uint8_t* wait() const;

 private:
  at::Tensor host_;
  void* there_ = nullptr;
};

}  // namespace steer::model::detail::cuda
