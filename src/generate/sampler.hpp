#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include <steer/core/random.hpp>
#include <steer/generate/generate.hpp>

namespace steer::generation::detail {

/// @throws Error(argument) for a value outside its range, on behalf of `where`.
void check(const SamplingOptions& options, std::int64_t vocabulary, std::string_view where);

struct Draw {
  std::int64_t id = 0;
  double log_probability = 0;  ///< under the unfiltered distribution
  TopTokens top{};
};

/// What a token is drawn from.
struct DrawInput {
  std::span<const float> logits;            ///< [vocab]
  std::span<const std::int64_t> seen;       ///< the row's tokens so far, for the repetition penalty
  std::span<const std::int64_t> generated;  ///< those of them that were generated, for the other penalties
  std::span<const std::int64_t> barred{};   ///< tokens that may not be drawn
  std::int64_t top = 0;                     ///< alternatives to be told of
};

/// Draws one token. Deterministic: equal input and generator state give equal tokens. Takes one number from the
/// generator, or none when greedy.
/// @throws Error(argument) when the logits hold a NaN or nothing finite, or every token is barred.
Draw draw_token(const DrawInput& input, const SamplingOptions& options, Rng& rng);

/// What both of these, and device_draws.hpp, refuse: logits whose log of a sum of exponentials is not finite, and a
/// likeliest token that may not be drawn. @throws Error(argument).
void require_finite_logits(double log_sum);
void require_a_token(double best_logit);

/// The same for a token that is given. @throws Error(argument) as above.
Draw read_token(std::span<const float> logits, std::int64_t id, std::int64_t top);

}  // namespace steer::generation::detail
