#pragma once

#include <cstdint>
#include <span>

#include <steer/stats/statistics.hpp>

namespace steer {

/// The same questions under arms a and b, one right or wrong answer each.
struct PairedCounts {
  std::int64_t n = 0;       ///< questions
  std::int64_t only_a = 0;  ///< right under a alone: lost by going to b
  std::int64_t only_b = 0;  ///< right under b alone: gained
};

/// Tango's score statistic (Tango 1998) of "p_b - p_a equals `difference`": the observed difference less that, over its
/// standard error at the likeliest probabilities that have it. 0 where both are nothing (no discordant pair, 0).
/// @throws Error(argument) unless counts are >= 0, only_a + only_b <= n, n >= 1 and -1 < difference < 1.
double tango_statistic(const PairedCounts& counts, double difference);

/// P(a statistic as high or higher) where p_b - p_a is `difference`: one-sided p of "b is no better than that". At
/// -margin it tests non-inferiority. The distribution is not the normal one, which fails where losses are rare, but
/// that of all tables of n questions at the likeliest probabilities (the approximate unconditional test: Tang, Tang and
/// Chan 2003, Statistics in Medicine 22); with no discordant pair it is (1 - margin)^n. Cost: about n. @throws as
/// above.
double paired_p_above(const PairedCounts& counts, double difference);
/// The same on the other side: one-sided p of "b is no worse than that".
double paired_p_below(const PairedCounts& counts, double difference);

/// One rule for a comparison: test, interval and margins come from the same statistic and distribution.
struct PairedDifference {
  double difference = 0;  ///< p_b - p_a
  Interval interval;      ///< the differences that neither side refutes at (1 - level) / 2
  double p = 1;           ///< two-sided, of no difference: twice the smaller side
};

/// @throws as tango_statistic, and Error(argument) for a level outside (0, 1).
PairedDifference paired_difference(const PairedCounts& counts, double level = 0.95);

/// The same for several rows a question, which are alike: Tango's score interval and test (normal) for the effective
/// number of rows, as many as the clustered error leaves of them (compare clustered_proportion). Where the rows of
/// every question agree, and so also where nothing differs, the questions are counted by the rule above. Losses that
/// few questions hold in bulk can be missed by any such rule; what must not be missed is tested by betting_p.
/// @param differences  -1 lost, 0, 1 gained, one a row. @param clusters  the question of each; empty: each row its own.
/// @throws Error(shape) if the lengths differ, Error(argument) for no rows, other values, a level outside (0, 1).
PairedDifference clustered_paired_difference(std::span<const double> differences,
                                             std::span<const std::int64_t> clusters, double level = 0.95);

/// Is b no worse than a by `margin` or more? One row a question: paired_p_above; rows of a question that agree count as
/// one; else betting_p of the questions' mean losses, which holds however the losses lie, and asks for more questions.
struct LossTest {
  double p = 1;      ///< of "the mean loss is `margin` or more"
  double upper = 1;  ///< one-sided upper bound of the mean loss at `level`
};

/// @param differences, clusters  as for clustered_paired_difference, which says what is thrown; 0 < margin < 1.
LossTest loss_test(std::span<const double> differences, std::span<const std::int64_t> clusters, double margin,
                   double level = 0.95);

}  // namespace steer
