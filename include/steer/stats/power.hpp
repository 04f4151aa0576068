#pragma once

#include <cstdint>

namespace steer {

// What a study can find, before anything is asked.

/// The chance that a two-sided one-sample (paired) Student's t-test of n differences finds a true mean difference of
/// `effect` standard deviations (noncentral t). @throws Error(argument) for n < 2, an effect that is not finite or a
/// level outside (0, 1).
double paired_t_power(std::int64_t n, double effect, double level = 0.95);

/// The smallest true mean difference, in standard deviations of the differences, that such a test finds with
/// probability `power`. A share of answers that changes from right to wrong or back, s, gives accuracy differences a
/// standard deviation of about sqrt(s). @throws as above, and for a power outside (1 - level, 1).
double detectable_effect(std::int64_t n, double power = 0.8, double level = 0.95);

}  // namespace steer
