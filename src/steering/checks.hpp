#pragma once
// What edits, conditions and their JSON check and compare alike.

#include <ATen/core/Tensor.h>

#include <string>
#include <string_view>

#include <steer/sae/sae.hpp>
#include <steer/steering/edit.hpp>

namespace steer::steering::detail {

/// The vector as a contiguous f32 CPU tensor [n] of its own, without gradient.
/// @throws Error(shape | argument) unless it is one finite, non-empty vector of a floating dtype.
at::Tensor own_vector(const at::Tensor& vector, std::string_view what, std::string_view where);
/// @throws Error(argument) unless finite.
void require_finite(double value, std::string_view what, std::string_view where);
/// @throws Error(argument) that gives the range.
void require_feature(const Sae& sae, std::int64_t feature, std::string_view where);
/// Both undefined, or the same values.
bool same_tensor(const at::Tensor& a, const at::Tensor& b);
double norm_of(const at::Tensor& vector);
/// Where an edit of this SAE acts unless told otherwise. @throws Error(config) when its file does not say.
HookPoint place_of(const Sae& sae, const std::optional<HookPoint>& given, bool output, std::string_view where);

}  // namespace steer::steering::detail
