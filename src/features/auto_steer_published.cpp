// The hosted service's form, and whether it does more than random features do.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include <steer/core/random.hpp>

#include "core/format_text.hpp"
#include "features/auto_steer_forms.hpp"
#include "features/auto_steer_search.hpp"

namespace steer::features::detail {
namespace {

/// Answers less likely than asked-for ones by more than this, in nats a token, are no longer text the model would
/// write.
constexpr double broken_text = 1;

/// Features that are no candidates of the behaviour and whose decoder rows are not zero, in random order.
std::vector<std::int64_t> random_features(const Sae& sae, const Evidence& found, std::size_t count, Rng& rng) {
  std::set<std::int64_t> taken;
  for (const auto& candidate : found.candidates) taken.insert(candidate.feature);
  std::vector<std::int64_t> drawn;
  for (int tries = 0; tries < 1000 && drawn.size() < count; ++tries) {
    const auto feature = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(sae.d_sae())));
    if (taken.contains(feature) || !(sae.decoder_rows(std::span(&feature, 1)).norm().item<double>() > 0)) continue;
    taken.insert(feature);
    drawn.push_back(feature);
  }
  return drawn;
}

}  // namespace

void Search::find_published(const Evidence& found, AutoSteerResult& result) {
  const auto count = std::min({found.usable, static_cast<std::size_t>(options_.features), most_combined});
  auto& trials = result.trials;
  for (std::size_t members = (std::size_t{1} << count) - 1; members > 0; --members) {
    std::vector<AutoSteerCandidate> set;
    for (std::size_t i = 0; i < count; ++i)
      if (members >> i & 1) set.push_back(found.candidates[i]);
    trials.push_back({.form = "nudge everywhere",
                      .strength = options_.strength_sum,
                      .features = indices(set),
                      .steering = nudge_all(sae_, set, options_.strength_sum, {})});
  }
  // Each set's placebo: as many random features, in the same form, brought to the same change of the model's
  // distributions.
  const auto sets = trials.size();
  for (std::size_t t = 0; t < sets; ++t) {
    store_.check_cancelled();
    trials[t].effect = effect_meter().of(trials[t].steering).quantile;
    Rng rng(derive_seed(options_.seed, "placebo", t));
    AutoSteerTrial placebo{.form = "placebo: random features nudged everywhere",
                           .strength = options_.strength_sum,
                           .features = random_features(sae_, found, trials[t].features.size(), rng),
                           .steering = {}};
    for (std::int64_t feature : placebo.features) placebo.steering.nudge(sae_, feature, 1);
    if (placebo.features.empty() || !(trials[t].effect > 0) || !std::isfinite(trials[t].effect)) continue;
    const auto equal =
        calibrate_strengths(effect_meter(), placebo.steering, {&trials[t].effect, 1}, effect_options).front();
    if (!equal.reached) continue;
    placebo.steering = equal.steering;
    placebo.effect = equal.kl;
    trials.push_back(std::move(placebo));
  }
  for (auto& trial : trials) trial.nll_gain = trial.accuracy = trial.format = trial.loops = trial.kl = unknown;
  std::vector<std::size_t> all(trials.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  const auto looping = measure_behaviour(found, trials, all, found.prompts.size());
  for (std::size_t t : all) {
    if (looping[t] > most_loops)
      trials[t].dropped = format_text("{:.0f}% of answers loop", 100 * looping[t]);
    else if (trials[t].nll_gain > broken_text)
      trials[t].dropped = format_text("breaks the text (NLL gain {:.2f})", trials[t].nll_gain);
  }
  // A behaviour that only broken text shows is none: if every set breaks it, the one that does so least.
  const auto rank = [&](std::size_t t) {
    return trials[t].dropped.empty() ? std::pair(1, trials[t].behaviour) : std::pair(0, -trials[t].nll_gain);
  };
  const auto places = std::span(std::as_const(all));
  const auto best = *std::ranges::max_element(places.first(sets), {}, rank);
  result.best_set = static_cast<std::int64_t>(best);
  // A placebo is judged as its set is: by what it gains in text that is not broken, if any is.
  const auto placebo = sets == all.size() ? best : *std::ranges::max_element(places.subspan(sets), {}, rank);
  const bool random_does_as_much = placebo != best && rank(placebo) >= rank(best);
  const double best_placebo = placebo == best ? unknown : trials[placebo].behaviour;
  for (std::size_t t = sets; t < all.size(); ++t)
    trials[t].dropped = trials[t].dropped.empty() ? "a placebo" : "a placebo; " + trials[t].dropped;
  const std::string warning = std::exchange(trials[best].dropped, "");
  for (std::size_t t : all)
    if (trials[t].dropped.empty() && t != best) trials[t].dropped = "the chosen set gains more";
  const auto described = format_text(
      "{} of {} features nudged by {:.2f} of maximum activation in sum; behaviour {:.2f} of what asking gains{}",
      trials[best].features.size(), count, options_.strength_sum, trials[best].behaviour,
      warning.empty() ? "" : ", but every set " + warning);
  if (random_does_as_much) {
    trials[best].dropped = format_text("random features that change as much gain {:.2f}", best_placebo);
    result.verdict = AutoSteerVerdict::no_better_than_random;
    result.reason = format_text("{}; the best of {} sets of random features of equal KL gains {:.2f}", described,
                                trials.size() - sets, best_placebo);
    return;
  }
  result.chosen = result.best_set;
  result.verdict = AutoSteerVerdict::steered;
  result.reason =
      format_text("{} (random features of equal KL: {:.2f} at best); cost not considered", described, best_placebo);
}

}  // namespace steer::features::detail
