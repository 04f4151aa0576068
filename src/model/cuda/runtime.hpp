#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "model/cuda/kernels.hpp"

namespace steer::model::detail::cuda {

/// libtorch's current stream of the current device: kernels here and operators there run in the order they were called.
Stream current_stream();

/// Launches are not checked one by one: an error stays until it is asked for.
/// @throws Error(unsupported) with CUDA's words, on behalf of `where`, where a launch since the last call failed.
void check_launch(const char* where);

/// Sends bytes to the host, as they are when all work given to the card so far is done. The function waits for them.
std::function<const std::uint8_t*()> fetch(const at::Tensor& bytes);

}  // namespace steer::model::detail::cuda
