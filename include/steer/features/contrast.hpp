#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace steer {

struct ContrastOptions {
  std::int64_t limit = 100;      ///< return this many of the strongest; 0: all
  double always_on = 0.95;       ///< flag features active in at least this share of both sets' rows
  double confidence = 0.95;      ///< of the bootstrap interval
  std::int64_t bootstrap = 500;  ///< resamples a returned feature; 0: no interval
  std::uint64_t seed = 0;
};

/// How a feature differs between two sets of texts.
struct FeatureContrast {
  std::int64_t feature = 0;
  double mean_positive = 0, mean_negative = 0;
  double standardised = 0;               ///< difference of means over the pooled standard deviation (Cohen's d)
  double auroc = 0.5;                    ///< P(positive > negative) + P(equal) / 2 (Mann-Whitney)
  double auroc_low = 0, auroc_high = 1;  ///< percentile bootstrap over rows
  double active_positive = 0, active_negative = 0;  ///< share of rows on which the feature is not zero
  bool always_on = false;                           ///< too dense to mean one thing
};

/// Ranks features by how well they tell two sets of texts apart, the strongest standardised difference (of either
/// sign) first; features that are always on come last.
/// @param positive, negative  pooled activations [texts, d_sae], f32, e.g. of `pooled_features`.
/// @throws Error(argument) for a set without two rows, or two identical sets; Error(shape) for different widths.
std::vector<FeatureContrast> contrast_features(const at::Tensor& positive, const at::Tensor& negative,
                                               const ContrastOptions& options = {});

}  // namespace steer
