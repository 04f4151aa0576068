#include <steer/stats/power.hpp>

#include <boost/math/distributions/non_central_t.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>

#include <steer/core/error.hpp>

namespace steer {

double paired_t_power(std::int64_t n, double effect, double level) {
  require(n >= 2 && std::isfinite(effect) && level > 0 && level < 1, ErrorCode::argument, "paired_t_power",
          "expected at least 2 differences, a finite effect and a level between 0 and 1 but got {}, {} and {}", n,
          effect, level);
  const double df = static_cast<double>(n - 1);
  const double critical = boost::math::quantile(boost::math::students_t(df), 0.5 + level / 2);
  const double shift = std::abs(effect) * std::sqrt(static_cast<double>(n));
  if (shift > 30 + critical) return 1;
  if (shift == 0) return 1 - level;
  const boost::math::non_central_t truth(df, shift);
  return boost::math::cdf(boost::math::complement(truth, critical)) + boost::math::cdf(truth, -critical);
}

double detectable_effect(std::int64_t n, double power, double level) {
  require(power > 1 - level && power < 1, ErrorCode::argument, "detectable_effect",
          "expected a power between {:g} and 1 but got {}", 1 - level, power);
  double low = 0, high = 1;
  while (paired_t_power(n, high, level) < power) high *= 2;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (paired_t_power(n, middle, level) < power ? low : high) = middle;
  }
  return high;
}

}  // namespace steer
