#pragma once

#include <cstdint>
#include <span>

#include <steer/stats/statistics.hpp>

namespace steer {

/// A mean of what people would say, from few labels by people and a judge's scores of all rows.
struct PredictionPowered {
  std::int64_t labelled = 0, rows = 0;
  double mean = 0;
  double se = 0;
  Interval interval;
  double lambda = 0;      ///< how far the judge was trusted: 0 not at all (the mean of the labels), 1 wholly
  double label_only = 0;  ///< the mean of the labels alone, for comparison
  Interval label_interval;
};

/// Prediction-powered inference (Angelopoulos et al. 2023; lambda as in PPI++, 2024): the judge's mean over all rows,
/// moved by how much it errs on the labelled ones. Valid whatever the judge, if the labelled rows are a random sample
/// of all; a judge that knows nothing costs next to nothing. Standard errors are clustered by question.
/// @param judge     the judge's score of every row.
/// @param label     a person's score of every row, NaN where there is none.
/// @param clusters  of each row, any numbering; empty: each its own.
/// @throws Error(argument) for fewer than two labelled rows or clusters, a judge's score that is not finite, or a level
///         outside (0, 1); Error(shape) if the lengths differ.
PredictionPowered prediction_powered(std::span<const double> judge, std::span<const double> label,
                                     std::span<const std::int64_t> clusters = {}, double level = 0.95);

}  // namespace steer
