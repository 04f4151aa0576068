#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/transformer.hpp"

namespace steer::model::detail {

/// Whether our own CPU kernels may take this tensor: f32, contiguous, on the CPU and outside any gradient. All others
/// go through libtorch's operators, which know every device and autograd.
bool is_plain(const at::Tensor& x);

// Each function writes into `out` when `out` and its inputs are plain, else assigns a new tensor to it.

/// The normalised rows of x [rows, width], times the gain and plus the bias when `with_gain`.
void normalise(at::Tensor& out, const at::Tensor& x, const Norm& norm, bool with_gain);
/// What `normalise` leaves to do after a hook saw the normalised rows.
void apply_gain(at::Tensor& x, const Norm& norm);
/// The norm of every head of x [rows, heads * d_head] by itself, in place where x is plain.
void normalise_heads(at::Tensor& x, const Norm& norm);
/// x + y, in place where both are plain.
void add(at::Tensor& x, const at::Tensor& y);
/// act(gate), times `up` when that is defined.
void activate(at::Tensor& out, const at::Tensor& gate, const at::Tensor& up, ActivationKind kind);
/// cap * tanh(x / cap), in place where x is plain.
void soft_cap(at::Tensor& x, double cap);
/// Rotates the first `2 * cos.size(1)` dimensions of every head of x [rows, heads * d_head]; dimension i pairs with
/// i + half (the "rotate half" convention). cos, sin [rows, half] f32.
void rotate(at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, std::int64_t d_head);

}  // namespace steer::model::detail
