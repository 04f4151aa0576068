#pragma once
#include <span>

#include "model/kernels/table.hpp"

namespace steer::model::detail {

/// Computes products on all threads, some hundred rows of x at a time. Those of the same x stand one after another.
void run_products(std::span<const ProductArgs> products);

/// Memory of the calling thread for one call of a kernel: kScratchFloats.
float* thread_scratch();

}  // namespace steer::model::detail
