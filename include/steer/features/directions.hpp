#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include <steer/steering/steering.hpp>

namespace steer {

// Directions from activations of any hook point, beside those of steering/vectors.hpp. Inputs are [rows, width], any
// float dtype and device; results are f32 on the CPU, arithmetic is f64. All functions are thread-safe.

/// mean(examples) - mean over k of mean(others[k]), [width], not normalised: the mean of one behaviour's activations
/// centred by the means of the other behaviours', each of which weighs the same. What answers on request have in common
/// cancels, which against unsteered answers it does not (mean-centring, Jorgensen et al. 2023, arXiv:2312.03813).
/// @param examples  [examples, width].
/// @param others  one [examples, width] for each other behaviour, at least one.
/// @throws Error(shape | argument) unless all hold examples of one width, all finite.
at::Tensor centred_difference(const at::Tensor& examples, std::span<const at::Tensor> others);

/// What a change of the activations costs: the change d is weighed as d'Sd, so that directions in which activations
/// vary much anyway, along which other features lie, cost more than others.
struct EstimatedMetric {
  at::Tensor matrix{};    ///< S [width, width], f32, symmetric, positive definite
  double shrinkage = 0;   ///< in [0, 1]: share of the scaled identity in S
  std::int64_t rows = 0;  ///< activations it was estimated from
  operator ActivationMetric() const { return ActivationMetric::of(matrix); }  ///< for `Steering::set_along_metric`
};

/// S = (1 - k) X'X / n + k m I: the second moments of activations (arXiv:2605.01167), shrunk to the scaled identity, m
/// their mean eigenvalue, by the k of least expected squared error (Ledoit and Wolf 2004, for a known mean of 0): with
/// fewer rows than width the moments alone could not be inverted.
/// @param activations  X [rows, width]; position 0 of texts left out.
/// @throws Error(shape | argument) for fewer than 2 rows, NaN or infinity, or rows that are all 0.
EstimatedMetric estimate_metric(const at::Tensor& activations);

/// The cheapest change that moves the projection on a direction by 1: of all d with d.v^ = 1, v^ = v/|v|, the one of
/// least d'Sd, S^-1 v^ / (v^' S^-1 v^), [width]. Adding t times it is the optimum of arXiv:2605.01167 for a wanted
/// projection; with S the identity it is v^.
/// @param direction  v [width]. @throws Error(shape | argument) for another width, NaN or a zero vector.
at::Tensor least_collateral(const at::Tensor& direction, const EstimatedMetric& metric);

/// A replacement for a request in the system prompt: h + relu(w.h + b) z, which `Steering::gated_add(w, b, z, at, 1)`
/// runs.
struct PromptReplacement {
  at::Tensor w;  ///< [width], f32
  double b = 0;
  at::Tensor z;          ///< [width], f32
  double explained = 0;  ///< share of the changes' squared length that it reproduces on the tokens it was fitted to
  double active = 0;     ///< share of those tokens with w.h + b > 0
};

struct PromptReplacementOptions {
  double l2 = 1e-3;              ///< weight of |w|^2, on activations scaled to mean square 1, beside the mean loss
  std::int64_t max_rounds = 60;  ///< of alternation
};

/// Fits w, b and z to what asking does to the activations of the same answer tokens: least squares of prompted - plain,
/// in turn over z (closed form) and over the gate (Gauss-Newton with conjugate gradients); each round lowers the loss.
/// Unlike a constant vector it changes much those tokens that asking changes much (Prompt Steering Replacement,
/// arXiv:2605.03907).
/// @param plain, prompted  [tokens, width], row i the same answer token without and with the request.
/// @throws Error(shape | argument) unless both hold the same number of finite rows of one width, at least 2, and they
/// differ.
PromptReplacement fit_prompt_replacement(const at::Tensor& plain, const at::Tensor& prompted,
                                         const PromptReplacementOptions& options = {});

}  // namespace steer
