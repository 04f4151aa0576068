#include <steer/stats/draws.hpp>

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>

#include <steer/core/error.hpp>

#include "stats/level.hpp"

namespace steer {

DrawSpread draw_spread(std::span<const std::vector<double>> effects, double level) {
  stats::detail::require_level(level, "draw_spread");
  const std::size_t k = effects.size(), q = effects.empty() ? 0 : effects.front().size();
  require(k >= 2 && q >= 2, ErrorCode::argument, "draw_spread",
          "expected at least 2 draws and 2 questions but got {} and {}", k, q);
  DrawSpread result{.draws = static_cast<std::int64_t>(k), .questions = static_cast<std::int64_t>(q), .by_draw = {}};
  std::vector<double> by_question(q, 0.0);
  const double draws = static_cast<double>(k), questions = static_cast<double>(q);
  for (const auto& draw : effects) {
    require(draw.size() == q, ErrorCode::shape, "draw_spread", "expected {} effects a draw but got {}", q, draw.size());
    for (std::size_t i = 0; i < q; ++i) {
      require(std::isfinite(draw[i]), ErrorCode::argument, "draw_spread", "expected finite effects but got {}",
              draw[i]);
      by_question[i] += draw[i] / draws;
    }
    result.by_draw.push_back(summarize(draw).mean);
    result.mean += result.by_draw.back() / draws;
  }
  double of_draws = 0, of_questions = 0, rest = 0;  // mean squares
  for (double mean : result.by_draw) of_draws += questions * (mean - result.mean) * (mean - result.mean) / (draws - 1);
  for (double mean : by_question) of_questions += draws * (mean - result.mean) * (mean - result.mean) / (questions - 1);
  const double rest_df = (draws - 1) * (questions - 1);
  for (std::size_t d = 0; d < k; ++d)
    for (std::size_t i = 0; i < q; ++i) {
      const double residual = effects[d][i] - result.by_draw[d] - by_question[i] + result.mean;
      rest += residual * residual / rest_df;
    }
  result.between_sd = std::sqrt(std::max(0.0, (of_draws - rest) / questions));
  // Never below what either way says alone: the difference of mean squares is noisy with few draws.
  const double sum = std::max({of_draws + of_questions - rest, of_draws, of_questions});
  const double df = sum * sum /
                    (of_draws * of_draws / (draws - 1) + of_questions * of_questions / (questions - 1) +
                     rest * rest / rest_df + 1e-300);
  const boost::math::students_t student(std::max(1.0, df));
  const double half = boost::math::quantile(student, 0.5 + level / 2) * std::sqrt(sum / (draws * questions));
  result.interval = {result.mean - half, result.mean + half};
  return result;
}

}  // namespace steer
