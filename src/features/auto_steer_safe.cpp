// The search that minds what steering costs: every form on a ladder of equal effects, the first tokens as a sieve.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/equal.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include <steer/core/random.hpp>
#include <steer/features/directions.hpp>
#include <steer/features/trained_vector.hpp>

#include "core/format_text.hpp"
#include "features/auto_steer_forms.hpp"
#include "features/auto_steer_search.hpp"

namespace steer::features::detail {
namespace {

/// Of the finalists, so many have their cost measured in one batch.
constexpr std::size_t tested_at_once = 2;
/// A trial must gain at least this share of what asking gains to be worth its risk.
constexpr double least_gain = 0.1;

at::Tensor unit(const at::Tensor& vector) { return vector / vector.norm().clamp_min(1e-12); }

/// The trials worth measuring in full: the best at each form and effect; of these each form's best, then each
/// form's second and so on, so that no form keeps another from being measured.
std::vector<std::size_t> pick_finalists(std::vector<AutoSteerTrial>& trials) {
  std::vector<std::size_t> order(trials.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order,
                           [&](std::size_t a, std::size_t b) { return trials[a].behaviour > trials[b].behaviour; });
  std::map<std::pair<std::string, double>, std::size_t> at_target;
  std::map<std::string, std::size_t> of_form;
  std::vector<std::pair<std::size_t, std::size_t>> ranked;  // place within its form, trial
  for (std::size_t t : order) {
    if (trials[t].screened_out) continue;
    if (at_target[{trials[t].form, trials[t].target}]++ == 0)
      ranked.emplace_back(of_form[trials[t].form]++, t);
    else
      trials[t].dropped = "other features gain more at this form and effect on the first tokens";
  }
  std::ranges::stable_sort(ranked, {}, &std::pair<std::size_t, std::size_t>::first);
  std::vector<std::size_t> picked;
  for (const auto& [place, t] : ranked) {
    if (picked.size() < finalists)
      picked.push_back(t);
    else
      trials[t].dropped = "other strengths of this form gain more on the first tokens";
  }
  return picked;
}

/// Of trials measured on a part of the prompts those that the fewest others outdo: gain more at an effect no larger.
std::vector<std::size_t> better_half(std::vector<AutoSteerTrial>& trials, const std::vector<std::size_t>& measured) {
  const auto outdone = [&](std::size_t t) {
    return std::ranges::count_if(measured, [&](std::size_t u) {
      return trials[u].target <= trials[t].target && trials[u].behaviour > trials[t].behaviour;
    });
  };
  auto order = measured;
  std::ranges::stable_sort(order, {}, [&](std::size_t t) { return std::pair(outdone(t), -trials[t].behaviour); });
  const auto kept = std::min(order.size(), finalists / 2);
  for (std::size_t t : std::span(order).subspan(kept))
    trials[t].dropped = "others of no larger effect gain more in whole answers to a third of the prompts";
  order.resize(kept);
  return order;
}

/// The ladder of a form that acts sharply: steps in between, equally far apart in the logarithm.
std::vector<double> finer(const std::vector<double>& effects) {
  std::vector<double> result;
  for (const double effect : effects) {
    if (!result.empty() && effect > result.back()) result.push_back(std::sqrt(result.back() * effect));
    result.push_back(effect);
  }
  return result;
}

/// Residuals [tokens, d_in] of answers after the prompts `which`; undefined if no answer can be used.
at::Tensor residuals_after(Session& session, const HookPoint& point, const std::vector<PromptPair>& prompts,
                           const std::vector<Answer>& answers, std::vector<std::int64_t> PromptPair::*which) {
  std::vector<TokenizedText> texts;
  for (const Answer& answer : answers) {
    if (answer.ids.empty() || answer.loops) continue;
    const auto& prompt = prompts[answer.prompt].*which;
    TokenizedText text{.ids = prompt, .begin = std::ssize(prompt)};
    text.ids.insert(text.ids.end(), answer.ids.begin(), answer.ids.end());
    texts.push_back(std::move(text));
  }
  if (texts.empty()) return {};
  std::vector<at::Tensor> rows(texts.size());
  visit_activations(session, point, texts, [&](std::size_t i, const at::Tensor& x) { rows[i] = x.cpu().clone(); });
  return at::cat(rows);
}

}  // namespace

/// Vectors at one place. @param at_asked, at_other  mean residuals there. [width]
void Search::add_vector_forms(const Evidence& found, const HookPoint& point, const at::Tensor& at_asked,
                              const at::Tensor& at_other, std::vector<Form>& forms) {
  const Scope within = generated_scope();
  const std::string where = point == point_ ? "" : " at " + point.name();
  const auto along = [&](const std::string& what, const at::Tensor& direction) {
    const at::Tensor v = unit(direction);
    const Scope first{.where = Where::onset, .count = 6};
    forms.push_back({"add " + what + " to the first 6 tokens" + where,
                     Steering().add(v, point, 1, {.scope = first, .unit = StrengthUnit::residual_norm})});
    forms.push_back({"add " + what + " while thinking" + where,
                     Steering().add(v, point, 1, {.scope = within, .unit = StrengthUnit::residual_norm})});
    const double asked = at::dot(at_asked, v).item<double>(), other = at::dot(at_other, v).item<double>();
    if (asked > other)
      forms.push_back({"raise " + what + " to target" + where,
                       Steering().project_to(v, point, asked, TargetSide::below, {.scope = within})});
  };
  along("the mean difference", at_asked - at_other);
  if (const auto rows = residuals_after(session_, point, found.prompts, unsteered_, &PromptPair::plain);
      rows.defined() && rows.size(0) > 1)
    along("the least collateral difference", least_collateral(at_asked - at_other, estimate_metric(rows)));
  if (point == point_ && found.residual_centre.defined())
    along("the centred difference", at_asked - found.residual_centre);
  const at::Tensor plain = residuals_after(session_, point, found.prompts, found.asked_answers, &PromptPair::plain),
                   asked = residuals_after(session_, point, found.prompts, found.asked_answers, &PromptPair::asked);
  if (plain.defined() && plain.size(0) > 1 && !at::equal(plain, asked)) {
    const auto fit = fit_prompt_replacement(plain, asked);
    forms.push_back({"replace the request" + where,
                     Steering().gated_add(fit.w, fit.b, fit.z, point, 1, {.scope = within}),
                     {},
                     true});
  }
  if (options_.train_steps > 0) {
    std::vector<TokenizedText> answers = after_plain_prompts(found.prompts, found.asked_answers);
    const auto trained = train_vector(session_, point, answers, effect_texts(),
                                      {.max_kl = options_.bounds.kl,
                                       .steps = options_.train_steps,
                                       .start = at_asked - at_other,
                                       .seed = options_.seed});
    forms.push_back({"add a trained vector" + where,
                     Steering().add(trained.vector, point, 1, {.scope = {.where = Where::generated}})});
  }
}

std::vector<AutoSteerTrial> Search::propose(const Evidence& found) {
  const Scope within = generated_scope(), onset{.where = Where::onset, .count = 8};
  std::vector<Form> forms;
  const auto usable = std::span(found.candidates).first(found.usable);
  std::vector<std::span<const AutoSteerCandidate>> sets;
  for (std::size_t i = 0; i < std::min<std::size_t>(usable.size(), 2); ++i) sets.push_back(usable.subspan(i, 1));
  if (const auto together = std::min(usable.size(), static_cast<std::size_t>(options_.features)); together > 1)
    sets.push_back(usable.first(together));
  for (const auto& set : sets) {
    forms.push_back({"nudge the first 8 tokens", nudge_all(sae_, set, 1, onset), indices(set)});
    forms.push_back({"nudge while thinking", nudge_all(sae_, set, 1, within), indices(set)});
  }
  add_vector_forms(found, point_, found.residual_asked, found.residual_other, forms);
  for (const HookPoint& point : options_.points) {
    if (point == point_) continue;
    const auto asked = after_plain_prompts(found.prompts, found.asked_answers),
               other = after_plain_prompts(found.prompts, unsteered_);
    if (asked.empty() || other.empty()) continue;
    add_vector_forms(found, point, pooled_residuals(session_, point, asked).mean(0).cpu(),
                     pooled_residuals(session_, point, other).mean(0).cpu(), forms);
  }
  std::vector<AutoSteerTrial> trials;
  for (const Form& form : forms) {
    store_.check_cancelled();
    const auto effects = form.fine ? finer(options_.effects) : options_.effects;
    const auto ladder = calibrate_strengths(effect_meter(), form.steering, effects, effect_options);
    for (std::size_t i = 0; i < ladder.size(); ++i) {
      if (!ladder[i].reached) continue;
      trials.push_back({.form = form.name,
                        .strength = ladder[i].factor,
                        .target = effects[i],
                        .effect = ladder[i].kl,
                        .features = form.features,
                        .steering = ladder[i].steering});
    }
  }
  for (auto& trial : trials) trial.nll_gain = trial.accuracy = trial.format = trial.loops = trial.kl = unknown;
  return trials;
}

void Search::screen_trials(const Evidence& found, std::vector<AutoSteerTrial>& trials) {
  std::vector<Steering> steerings;
  for (const auto& trial : trials) steerings.push_back(trial.steering);
  const auto screened = screen(store_, options_, found, steerings);
  for (std::size_t t = 0; t < trials.size(); ++t) {
    trials[t].behaviour = screened[t].behaviour;
    if (screened[t].behaviour < least_gain)
      trials[t].dropped = format_text("gains {:.2f} on the first tokens", screened[t].behaviour);
    else if (screened[t].loops > most_loops)
      trials[t].dropped = format_text("{:.0f}% of answers loop from the first tokens", 100 * screened[t].loops);
    trials[t].screened_out = !trials[t].dropped.empty();
  }
}

void Search::find_safe(const Evidence& found, AutoSteerResult& result) {
  measure_capability();
  result.accuracy_unsteered = capability_.accuracy;
  result.format_unsteered = capability_.format;
  result.loops_unsteered = capability_.loops;
  auto& trials = result.trials = propose(found);
  screen_trials(found, trials);
  // Seeds are the prompts': no answer is made twice.
  const auto first = pick_finalists(trials);
  measure_behaviour(found, trials, first, (found.prompts.size() + 2) / 3);
  const auto picked = better_half(trials, first);
  measure_behaviour(found, trials, picked, found.prompts.size());
  // What gains most is tested first, so that the first within the bounds is the best.
  std::vector<std::size_t> open;
  double best_any = 0;
  for (std::size_t t : picked) {
    best_any = std::max(best_any, trials[t].behaviour);
    trials[t].dropped = trials[t].behaviour <= least_gain
                            ? format_text("gains {:.2f} in whole answers", trials[t].behaviour)
                            : beyond_bounds(trials[t]);
    if (trials[t].dropped.empty()) open.push_back(t);
  }
  std::ranges::stable_sort(open, std::greater{}, [&](std::size_t t) { return trials[t].behaviour; });
  for (std::size_t begin = 0; begin < open.size(); begin += tested_at_once) {
    const auto some = std::span(open).subspan(begin, std::min(tested_at_once, open.size() - begin));
    if (result.chosen < 0) measure_cost(trials, some);
    for (std::size_t t : some) {
      if (!trials[t].dropped.empty()) continue;
      if (result.chosen < 0)
        result.chosen = static_cast<std::int64_t>(t);
      else
        trials[t].dropped = "gains less than the chosen one";
    }
  }
  if (result.chosen < 0) {
    result.verdict = AutoSteerVerdict::no_gain_in_bounds;
    result.reason = format_text(
        "of {} steerings tried, {} were measured in full and none gained {:.0f}% of what asking gains within the "
        "bounds (best outside them: {:.2f}); loosen CapabilityBounds to accept more cost",
        trials.size(), picked.size(), 100 * least_gain, best_any);
    return;
  }
  const auto& chosen = trials[static_cast<std::size_t>(result.chosen)];
  result.verdict = AutoSteerVerdict::steered;
  result.reason = format_text(
      "{} at {:.2f}: behaviour {:.2f} of what asking gains, accuracy {:.2f} (unsteered {:.2f}), format {:.2f} "
      "({:.2f}), KL {:.3f} ({:.2g} at the 95th percentile)",
      chosen.form, chosen.strength, chosen.behaviour, chosen.accuracy, capability_.accuracy, chosen.format,
      capability_.format, chosen.kl, chosen.effect);
}

}  // namespace steer::features::detail
