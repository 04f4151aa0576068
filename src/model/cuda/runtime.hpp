#pragma once

#include "model/cuda/kernels.hpp"

namespace steer::model::detail::cuda {

/// libtorch's current stream of the current device: kernels here and operators there run in the order they were called.
Stream current_stream();

/// Launches are not checked one by one: an error stays until it is asked for.
/// @throws Error(unsupported) with CUDA's words, on behalf of `where`, where a launch since the last call failed.
void check_launch(const char* where);

}  // namespace steer::model::detail::cuda
