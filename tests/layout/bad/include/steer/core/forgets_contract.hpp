#pragma once
#include <ATen/core/Tensor.h>
namespace steer {
double scale(double x);

/// Turns.
at::Tensor rotate(const at::Tensor& x);

/// @throws Error(argument) for a number that is not finite, as the sine or the cosine of what is no number at all is
/// not
///         a number either.
double turn(double x);
}  // namespace steer
