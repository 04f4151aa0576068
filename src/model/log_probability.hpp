#pragma once
// log p of tokens from rows of logits, one row at a time in one fixed order, so that the bits of a row do not depend on
// the others.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include <steer/model/session.hpp>

namespace steer::model::detail {

/// log of the sum of exp(x), f64. NaN or infinite where x holds a NaN, an infinity, or nothing finite.
double log_sum_exp(const float* x, std::int64_t n);

/// KL(softmax(x) || softmax(y)), nats. NaN or infinite where x or y holds a NaN or an infinity (minus infinity only
/// where y has it and x has not).
double kl_divergence(const float* x, const float* y, std::int64_t n);

/// The likeliest of n tokens with logits x, and their log-probabilities; the lower id first among equals.
std::vector<std::pair<std::int64_t, double>> likeliest(const float* x, std::int64_t n, double log_sum,
                                                       std::int64_t count);

/// Adds the log-probability of `id`, and the `top` likeliest tokens, under logits [vocab] (f32, CPU, contiguous).
/// @throws Error(argument) for logits that are not finite.
void append_log_probabilities(LogProbabilities& to, const at::Tensor& logits, std::int64_t id, std::int64_t top,
                              std::string_view where);

}  // namespace steer::model::detail
