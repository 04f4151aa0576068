#pragma once
// Activations as the few entries that are not zero.

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "sae/impl.hpp"

namespace steer::sae::detail {

/// Rows a block of dense pre-activations may have: 64 MiB of f32.
inline std::int64_t block_rows(std::int64_t d_sae) {
  return std::max<std::int64_t>(1, (std::int64_t{16} << 20) / d_sae);
}

inline bool records_gradient(const at::Tensor& t) { return at::GradMode::is_enabled() && t.requires_grad(); }

/// The library's own loops take contiguous f32 in host memory and record no gradient.
inline bool kernels_apply(const at::Tensor& t) {
  return t.is_cpu() && t.scalar_type() == at::kFloat && t.is_contiguous() && !records_gradient(t);
}

/// Non-zero entries of dense f [tokens, d_sae] in host memory.
SparseActivations sparse_of(const at::Tensor& f, std::int64_t limit);
/// The same by libtorch's operators, on any device and with gradients.
SparseActivations sparse_of_any(const at::Tensor& f, std::int64_t limit);
/// topk and abstopk straight from pre-activations, without a dense result.
SparseActivations sparse_top_k(const Sae::Impl& sae, const at::Tensor& z, std::int64_t limit);
/// Tokens after tokens.
SparseActivations concatenate(std::vector<SparseActivations> parts);
/// f W_dec + b_dec from sparse rows.
at::Tensor sparse_decode(const Sae::Impl& sae, const SparseActivations& f);

}  // namespace steer::sae::detail
