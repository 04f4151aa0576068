#include <steer/features/strength.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"
#include "features/effect_meter.hpp"

namespace steer {
namespace {

using features::detail::EffectMeter;

constexpr double infinite = std::numeric_limits<double>::infinity();

/// The texts, checked.
std::vector<ScoreRequest> requests_of(std::span<const TokenizedText> texts, double quantile,
                                      const Steering& steering = {}) {
  constexpr auto where = "steering_effect";
  require(!texts.empty(), ErrorCode::argument, where, "expected at least one text but got none");
  require(quantile > 0 && quantile <= 1, ErrorCode::argument, where, "expected a quantile in (0, 1] but got {}",
          quantile);
  std::vector<ScoreRequest> requests;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto size = std::ssize(texts[i].ids), end = texts[i].end < 0 ? size : texts[i].end;
    require(texts[i].begin >= 1 && texts[i].begin < end && end <= size, ErrorCode::argument, where,
            "expected texts whose tokens that count begin in [1, {}) and end by then but text {} says [{}, {})", size,
            i, texts[i].begin, end);
    requests.push_back(
        {std::vector<std::int64_t>(texts[i].ids.begin(), texts[i].ids.begin() + end), texts[i].begin, steering});
  }
  return requests;
}

/// Type 7 of Hyndman and Fan; sorts.
double quantile_of(std::vector<double>& values, double quantile) {
  std::ranges::sort(values);
  const double place = quantile * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  if (below + 1 >= values.size() || values[below] == values[below + 1]) return values[below];
  return values[below] + (place - static_cast<double>(below)) * (values[below + 1] - values[below]);
}

void check(const Steering& steering, std::span<const double> targets, const StrengthOptions& options) {
  constexpr auto where = "calibrate_strength";
  require(!steering.edits().empty(), ErrorCode::argument, where, "expected a steering with edits but it has none");
  for (double target : targets)
    require(std::isfinite(target) && target > 0, ErrorCode::argument, where,
            "expected a KL above 0 nats to reach but got {}", target);
  require(options.tolerance > 0 && options.tolerance < 1 && options.max_factor >= 1 && options.max_measured >= 1,
          ErrorCode::argument, where,
          "expected a tolerance in (0, 1), a largest factor of at least 1 and one measurement or more but got {}, {} "
          "and {}",
          options.tolerance, options.max_factor, options.max_measured);
}

SteeringEffect effect_of(const std::vector<TextDivergence>& texts, double quantile) {
  std::vector<double> all;
  for (const auto& text : texts) all.insert(all.end(), text.values.begin(), text.values.end());
  SteeringEffect effect;
  if (!texts.empty()) effect.warnings = texts.front().warnings;  // one steering for all
  effect.tokens = std::ssize(all);
  for (double kl : all) effect.mean += kl / static_cast<double>(all.size());
  effect.quantile = quantile_of(all, quantile);
  return effect;
}

/// A strength and what it does.
struct Point {
  double factor = 0, kl = 0;
};

/// The next strength to try.
double next_factor(const Point& low, const Point& high, double target, bool bisect) {
  // KL grows with the square of a small change.
  const auto step = [&](const Point& from, double least, double most) {
    const double guess = from.kl > 0 ? std::sqrt(target / from.kl) : infinite;
    return from.factor * std::clamp(guess, least, most);
  };
  if (!std::isfinite(high.factor)) return step(low, 2, 16);
  if (low.factor == 0) return step(high, 1.0 / 64, 0.25);
  const double l = std::log(low.factor), h = std::log(high.factor);
  double share = 0.5;
  if (!bisect && low.kl > 0 && std::isfinite(high.kl))
    share = std::clamp(std::log(target / low.kl) / std::log(high.kl / low.kl), 0.02, 0.98);
  return std::exp(l + share * (h - l));
}

/// One steering's KL over its strength, as far as it was measured.
class Curve {
 public:
  Curve(EffectMeter& meter, const Steering& steering, const StrengthOptions& options)
      : meter_(meter), steering_(steering), options_(options) {}

  CalibratedStrength reach(double target) {
    Point low, high{infinite, infinite};
    for (const Point& known : points_) {
      if (near(known.kl, target)) return done(target, known, low, high, 0);
      if (known.kl < target && known.factor > low.factor) low = known;
    }
    for (const Point& known : points_)
      if (known.kl > target && known.factor > low.factor && known.factor < high.factor) high = known;
    Point at{points_.empty() ? 1 : next_factor(low, high, target, false), 0};
    std::int64_t measured = 0;
    while (measured < options_.max_measured && low.factor < options_.max_factor) {
      at.factor = std::min(at.factor, options_.max_factor);
      at.kl = measure(at.factor);
      points_.push_back(at);
      ++measured;
      if (near(at.kl, target)) return done(target, at, low, high, measured);
      (at.kl < target ? low : high) = at;
      if (high.factor / low.factor < 1 + 1e-6 || high.factor < 1e-9) break;
      at.factor = next_factor(low, high, target, measured % 3 == 0);
    }
    return done(target, low, low, high, measured);
  }

 private:
  double measure(double factor) {
    const auto steered = steering_.scaled(factor);
    try {
      const auto effect = meter_.of(steered);
      tokens_ = effect.tokens;
      return effect.quantile;
    } catch (const Error& error) {
      // So strong that logits are no numbers: too strong. What else an argument may be wrong with shows without edits.
      if (error.code() != ErrorCode::argument) throw;
      meter_.of({});
      return infinite;
    }
  }

  bool near(double kl, double target) const { return std::abs(kl - target) <= options_.tolerance * target; }

  CalibratedStrength done(double target, const Point& at, const Point& low, const Point& high,
                          std::int64_t measured) const {
    CalibratedStrength result{.steering = steering_.scaled(at.factor),
                              .factor = at.factor,
                              .kl = at.kl,
                              .reached = near(at.kl, target),
                              .measured = measured,
                              .reason = {}};
    const auto what = format_text("{:g}% of {} tokens", 100 * options_.quantile, tokens_);
    if (result.reached)
      result.reason =
          format_text("at {:.4g} times the strength given {} change by at most {:.3g} nats", at.factor, what, at.kl);
    else if (!std::isfinite(high.factor))
      result.reason = format_text(
          "{:.3g} nats are out of reach: at {:.4g} times the strength given {} change by at most {:.3g}{}", target,
          low.factor, what, low.kl, low.kl == 0 ? "; no edit acts on the texts: check its scope" : "");
    else
      result.reason = format_text(
          "{:.3g} nats are not reached in {} measurements: {:.6g} times the strength given changes {} by at most "
          "{:.3g} nats, {:.6g} times by {:.3g}",
          target, measured, low.factor, what, low.kl, high.factor, high.kl);
    return result;
  }

  EffectMeter& meter_;
  const Steering& steering_;
  const StrengthOptions& options_;
  std::vector<Point> points_;
  std::int64_t tokens_ = 0;
};

}  // namespace

namespace features::detail {

EffectMeter::EffectMeter(const Model& model, std::span<const TokenizedText> texts, double quantile)
    : quantile_(quantile), meter_(model, requests_of(texts, quantile)) {}

SteeringEffect EffectMeter::of(const Steering& steering) { return effect_of(meter_.of(steering), quantile_); }

std::vector<CalibratedStrength> calibrate_strengths(EffectMeter& meter, const Steering& steering,
                                                    std::span<const double> targets, const StrengthOptions& options) {
  check(steering, targets, options);
  Curve curve(meter, steering, options);
  std::vector<CalibratedStrength> results;
  for (double target : targets) results.push_back(curve.reach(target));
  return results;
}

}  // namespace features::detail

SteeringEffect steering_effect(const Model& model, const Steering& steering, std::span<const TokenizedText> texts,
                               double quantile) {
  return effect_of(divergence_from_unsteered(model, requests_of(texts, quantile, steering)), quantile);
}

std::vector<CalibratedStrength> calibrate_strengths(const Model& model, const Steering& steering,
                                                    std::span<const double> targets, const StrengthOptions& options) {
  check(steering, targets, options);
  EffectMeter meter(model, options.texts.empty() ? neutral_texts(model, steering) : options.texts, options.quantile);
  return features::detail::calibrate_strengths(meter, steering, targets, options);
}

CalibratedStrength calibrate_strength(const Model& model, const Steering& steering, double target,
                                      const StrengthOptions& options) {
  return calibrate_strengths(model, steering, std::span(&target, 1), options).front();
}

}  // namespace steer
