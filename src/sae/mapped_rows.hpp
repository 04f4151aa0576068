#pragma once
// Copies of a few rows of a matrix that lies in a mapped file, without leaving the file's pages in memory.

#include <ATen/core/Tensor.h>

namespace steer::sae::detail {

/// Rows `indices` (i64) of `matrix` [features, width] of any strides, as a contiguous f32 copy. Where the matrix is a
/// view of a file mapped read-only, the pages read on the way are given back as it goes, half a MiB at a time at most:
/// a row of a file that stores features as columns has its numbers on as many pages as it has numbers.
at::Tensor gather_rows(const at::Tensor& matrix, const at::Tensor& indices);

}  // namespace steer::sae::detail
