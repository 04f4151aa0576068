#include <steer/features/auto_steer.hpp>

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>
#include <steer/generate/score.hpp>

#include "features/auto_steer_evidence.hpp"
#include "model/reproducible.hpp"

namespace steer {
namespace {

using features::detail::Answer;
using features::detail::Evidence;

/// Trials that are measured in full, at most.
constexpr std::size_t finalists = 10;
/// Of these, so many have their cost measured in one batch.
constexpr std::size_t tested_at_once = 2;
/// `published` tries all sets of so many features, at most.
constexpr std::size_t most_combined = 4;
/// More of a steering's answers must not repeat themselves.
constexpr double most_loops = 0.34;
/// Answers less likely than asked-for ones by more than this, in nats a token, are no longer text the model would
/// write.
constexpr double broken_text = 1;
/// A KL costs two passes a text; a few answers settle its size.
constexpr std::size_t kl_prompts = 8;
/// A trial must gain at least this share of what asking gains to be worth its risk.
constexpr double least_gain = 0.1;

/// Asking must raise the score by this much: else the model does not know the behaviour.
constexpr double least_knowledge = 0.1;

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

struct CapabilityFigures {
  double accuracy = 0, format = 0, loops = 0;
};

/// The nudge of several features whose strengths, in units of maximum activation, sum to `sum`, in proportion to how
/// much each moves the behaviour alone.
Steering nudge_all(const Sae& sae, std::span<const AutoSteerCandidate> features, double sum, const Scope& scope) {
  double total = 0;
  for (const auto& feature : features) total += feature.output_score;
  Steering steering;
  for (const auto& feature : features)
    steering.nudge(sae, feature.feature, sum * feature.output_score / total,
                   {.scope = scope, .unit = Unit::max_activation, .max_activation = feature.max_activation});
  return steering;
}

std::vector<std::int64_t> indices(std::span<const AutoSteerCandidate> features) {
  std::vector<std::int64_t> all;
  for (const auto& feature : features) all.push_back(feature.feature);
  return all;
}

features::detail::Direction direction_of(at::Tensor vector, const Evidence& evidence) {
  const at::Tensor unit = vector / vector.norm().clamp_min(1e-12);
  return {unit, at::dot(evidence.residual_asked, unit).item<double>(),
          at::dot(evidence.residual_other, unit).item<double>()};
}

}  // namespace

std::int64_t features::detail::search_answers(AutoSteerMode mode, std::int64_t prompts, std::int64_t capability_prompts,
                                              std::int64_t features) {
  constexpr std::int64_t evidence = 3;  // to each prompt: asked, not asked, asked for the opposite
  if (mode == AutoSteerMode::published) {
    const auto sets = (std::int64_t{1} << std::min<std::int64_t>(features, most_combined)) - 1;
    return (evidence + sets) * prompts;
  }
  const auto tried = static_cast<std::int64_t>(finalists);
  return (evidence + tried) * prompts + (1 + tried) * capability_prompts;
}

struct AutoSteer::Impl {
  Model model;
  Sae sae;
  AutoSteerOptions options;
  HookPoint point;
  Session session;
  features::detail::AnswerStore store;
  std::vector<Answer> unsteered;                   ///< to the neutral prompts
  std::vector<GenerateResult> capability_answers;  ///< unsteered
  CapabilityFigures capability;                    ///< unsteered
  bool capability_known = false;
  std::map<std::string, Evidence, std::less<>> evidence;

  Impl(Model m, Sae s, AutoSteerOptions o)
      : model(std::move(m)),
        sae(std::move(s)),
        options(std::move(o)),
        point(sae_point(model, sae)),
        session(model, session_options(model, options)),
        store(model, options) {
    session.close(session.open({.steering = Steering().nudge(sae, 0, 1, {.point = point})}));  // may warn
  }
  static SessionOptions session_options(const Model& model, const AutoSteerOptions& options) {
    SessionOptions result = model::detail::reproducible(model);
    result.on_warning = options.on_warning;
    return result;
  }

  const Evidence& evidence_for(std::string_view behaviour) {
    if (auto known = evidence.find(behaviour); known != evidence.end()) return known->second;
    if (unsteered.empty()) {
      std::vector<std::vector<std::int64_t>> prompts;
      for (const auto& prompt : options.prompts) prompts.push_back(features::detail::render(model, "", prompt));
      unsteered = features::detail::answer_all(store, options, prompts, "unsteered");
    }
    return evidence
        .emplace(behaviour, features::detail::gather_evidence(store, session, sae, options, behaviour, unsteered))
        .first->second;
  }

  CapabilityFigures figures(std::span<const GenerateResult> answers) const {
    CapabilityFigures sum;
    for (std::size_t p = 0; p < answers.size(); ++p) {
      const auto [correct, formatted] = options.capability.score(p, answers[p]);
      sum.accuracy += correct;
      sum.format += formatted;
      sum.loops += features::detail::loops(answers[p].ids);
    }
    const auto n = static_cast<double>(answers.size());
    return {sum.accuracy / n, sum.format / n, sum.loops / n};
  }

  void measure_capability() {
    if (std::exchange(capability_known, true)) return;
    std::vector<GenerateRequest> requests;
    for (std::size_t p = 0; p < options.capability.prompts.size(); ++p)
      requests.push_back({options.capability.prompts[p], {}, derive_seed(options.seed, "capability", p)});
    capability_answers = store.generate(requests, options.max_tokens, "answers to capability prompts");
    capability = figures(capability_answers);
  }

  double behaviour_share(const Evidence& found, double posterior) const {
    return (posterior - found.unsteered.posterior) / (found.asked.posterior - found.unsteered.posterior);
  }

  /// Where steering acts in answers that think in tags: there and not on the answer itself.
  Scope generated_scope() const {
    std::size_t tagged = 0;
    for (const Answer& answer : unsteered)
      tagged += model.tokenizer().decode(answer.ids).find("</thinking>") != std::string::npos;
    if (5 * tagged >= 4 * unsteered.size()) return {.where = Where::inside_tag, .tag = "thinking"};
    return {.where = Where::generated};
  }

  /// All forms, feature sets and strengths that `safe` considers.
  std::vector<AutoSteerTrial> propose(const Evidence& found) const {
    std::vector<AutoSteerTrial> trials;
    const auto usable = std::span(found.candidates).first(found.usable);
    const Scope within = generated_scope();
    std::vector<std::vector<AutoSteerCandidate>> sets;
    for (std::size_t i = 0; i < std::min<std::size_t>(usable.size(), 3); ++i) sets.push_back({usable[i]});
    for (std::size_t n = 2; n <= std::min(usable.size(), static_cast<std::size_t>(options.features)); ++n)
      sets.emplace_back(usable.begin(), usable.begin() + static_cast<std::ptrdiff_t>(n));

    const auto along = [&](const features::detail::Direction& direction, const std::vector<std::int64_t>& features,
                           std::string_view what, std::initializer_list<double> shares) {
      if (direction.asked <= direction.unsteered) return;
      for (double share : shares) {
        // Extrapolated from the unsteered mean, so that a share below 1 stops short of the asked-for mean.
        const double target = direction.unsteered + share * (direction.asked - direction.unsteered);
        trials.push_back(
            {.form = fmt::format("raise {} to target", what),
             .strength = share,
             .features = features,
             .steering = Steering().project_to(direction.unit, point, target, Side::below, {.scope = within})});
      }
    };
    for (const auto& set : sets) {
      for (double sum : {1.5, 3.0, 4.5, 7.0})
        trials.push_back({.form = "nudge the first 8 tokens",
                          .strength = sum,
                          .features = indices(set),
                          .steering = nudge_all(sae, set, sum, {.where = Where::onset, .count = 8})});
      for (double share : {0.25, 0.5, 1.0})
        trials.push_back({.form = "nudge while thinking",
                          .strength = share * options.strength_sum,
                          .features = indices(set),
                          .steering = nudge_all(sae, set, share * options.strength_sum, within)});
      at::Tensor combined = at::zeros({sae.d_in()}, at::kFloat);
      for (const auto& feature : set) {
        const std::int64_t index[] = {feature.feature};
        combined += sae.decoder_rows(index)[0].cpu() * (feature.max_activation * feature.output_score);
      }
      along(direction_of(combined, found), indices(set), "the features' direction", {2.0, 4.0});
    }
    const auto difference = direction_of(found.residual_asked - found.residual_other, found);
    along(difference, {}, "the mean difference", {0.75, 1.0, 1.5});
    for (double strength : {0.4, 0.6, 0.8, 1.0, 1.4})
      trials.push_back(
          {.form = "add the mean difference to the first 6 tokens",
           .strength = strength,
           .steering = Steering().add(difference.unit, point, strength,
                                      {.scope = {.where = Where::onset, .count = 6}, .unit = Unit::residual_norm})});
    for (auto& trial : trials) trial.nll_gain = trial.accuracy = trial.format = trial.loops = trial.kl = unknown;
    return trials;
  }

  /// Behaviour on the first tokens of a few answers; what gains too little or collapses goes no further.
  void screen(const Evidence& found, std::vector<AutoSteerTrial>& trials) {
    std::vector<Steering> steerings;
    for (const auto& trial : trials) steerings.push_back(trial.steering);
    const auto screened = features::detail::screen(store, options, found, steerings);
    for (std::size_t t = 0; t < trials.size(); ++t) {
      trials[t].behaviour = screened[t].behaviour;
      if (screened[t].behaviour < least_gain)
        trials[t].dropped = fmt::format("gains {:.2f} on the first tokens", screened[t].behaviour);
      else if (screened[t].loops > most_loops)
        trials[t].dropped = fmt::format("{:.0f}% of answers loop from the first tokens", 100 * screened[t].loops);
      trials[t].screened_out = !trials[t].dropped.empty();
    }
  }

  /// The trials worth measuring in full: the best at each form and strength; of these each form's best, then each
  /// form's second and so on, so that no form keeps another from being measured.
  static std::vector<std::size_t> pick_finalists(std::vector<AutoSteerTrial>& trials) {
    std::vector<std::size_t> order(trials.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order,
                             [&](std::size_t a, std::size_t b) { return trials[a].behaviour > trials[b].behaviour; });
    std::map<std::pair<std::string, double>, std::size_t> at_strength;
    std::map<std::string, std::size_t> of_form;
    std::vector<std::pair<std::size_t, std::size_t>> ranked;  // place within its form, trial
    for (std::size_t t : order) {
      if (trials[t].screened_out) continue;
      if (at_strength[{trials[t].form, trials[t].strength}]++ == 0)
        ranked.emplace_back(of_form[trials[t].form]++, t);
      else
        trials[t].dropped = "other features gain more at this form and strength on the first tokens";
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

  /// Behaviour of whole answers to all prompts, for the trials of these numbers. @return each one's share of loops.
  std::vector<double> measure_behaviour(const Evidence& found, std::vector<AutoSteerTrial>& trials,
                                        std::span<const std::size_t> which) {
    std::vector<GenerateRequest> requests;
    for (std::size_t t : which)
      for (std::size_t p = 0; p < found.prompts.size(); ++p)
        requests.push_back({found.prompts[p].plain, trials[t].steering, derive_seed(options.seed, "measure", p)});
    const auto results = store.generate(requests, options.max_tokens, "answers under each steering");
    std::vector<double> looping;
    for (std::size_t n = 0; n < which.size(); ++n) {
      auto& trial = trials[which[n]];
      std::vector<Answer> answers;
      std::int64_t edited = 0;
      double loops = 0;
      for (std::size_t p = 0; p < found.prompts.size(); ++p) {
        const auto& result = results[n * found.prompts.size() + p];
        edited += result.audit.edited();
        loops += features::detail::loops(result.ids);
        answers.push_back({p, result.ids, result.finish != FinishReason::length, false});
      }
      require(edited > 0, ErrorCode::config, "AutoSteer::find",
              "expected every steering to edit the answers it steers but \"{}\" edited none",
              trial.steering.describe());
      const features::detail::Reading reading = features::detail::read(model, found.prompts, answers);
      trial.behaviour = behaviour_share(found, reading.posterior);
      trial.nll_gain = reading.nll - found.asked.nll;
      looping.push_back(loops / static_cast<double>(answers.size()));
    }
    return looping;
  }

  /// Figures on the capability set, for the trials of these numbers.
  void measure_cost(std::vector<AutoSteerTrial>& trials, std::span<const std::size_t> which) {
    const auto count = options.capability.prompts.size();
    std::vector<GenerateRequest> requests;
    for (std::size_t t : which)
      for (std::size_t p = 0; p < count; ++p)
        requests.push_back(
            {options.capability.prompts[p], trials[t].steering, derive_seed(options.seed, "capability", p)});
    const auto results =
        store.generate(requests, options.max_tokens, "answers to capability prompts under each steering");
    for (std::size_t n = 0; n < which.size(); ++n) {
      auto& trial = trials[which[n]];
      const auto [accuracy, format, looping] = figures(std::span(results).subspan(n * count, count));
      trial.accuracy = accuracy;
      trial.format = format;
      trial.loops = looping;
      trial.kl = kl_of(trial.steering);
      trial.dropped = beyond_bounds(trial);
      trial.within_bounds = trial.dropped.empty();
    }
  }

  /// The first bound a trial breaks, in words; empty if none. What was not measured (NaN) breaks none.
  std::string beyond_bounds(const AutoSteerTrial& trial) const {
    const CapabilityBounds& b = options.bounds;
    const auto over = [](const char* what, double change, double bound) {
      return change > bound + 1e-9 ? fmt::format("{} {:.3f} beyond its bound of {:.3f}", what, change, bound) : "";
    };
    for (const auto& reason : {over("accuracy loss", capability.accuracy - trial.accuracy, b.accuracy_loss),
                               over("format loss", capability.format - trial.format, b.format_loss),
                               over("more loops,", trial.loops - capability.loops, b.loop_gain),
                               over("KL", trial.kl, b.kl), over("NLL gain", trial.nll_gain, b.nll_gain)})
      if (!reason.empty()) return reason;
    return "";
  }

  double kl_of(const Steering& steering) const {
    std::vector<ScoreRequest> requests;
    for (std::size_t p = 0; p < capability_answers.size() && requests.size() < kl_prompts; ++p) {
      if (capability_answers[p].ids.empty()) continue;
      ScoreRequest request{options.capability.prompts[p],
                           static_cast<std::int64_t>(options.capability.prompts[p].size()), steering};
      request.ids.insert(request.ids.end(), capability_answers[p].ids.begin(), capability_answers[p].ids.end());
      requests.push_back(std::move(request));
    }
    return features::detail::mean_of(kl_from_unsteered(model, requests));
  }

  /// Of all sets of the best features the one whose nudge, by the published sum, gains most on whole answers.
  void find_published(const Evidence& found, AutoSteerResult& result) {
    const auto count = std::min({found.usable, static_cast<std::size_t>(options.features), most_combined});
    for (std::size_t members = (std::size_t{1} << count) - 1; members > 0; --members) {
      std::vector<AutoSteerCandidate> set;
      for (std::size_t i = 0; i < count; ++i)
        if (members >> i & 1) set.push_back(found.candidates[i]);
      result.trials.push_back({.form = "nudge everywhere",
                               .strength = options.strength_sum,
                               .features = indices(set),
                               .steering = nudge_all(sae, set, options.strength_sum, {})});
    }
    auto& trials = result.trials;
    for (auto& trial : trials) trial.nll_gain = trial.accuracy = trial.format = trial.loops = trial.kl = unknown;
    std::vector<std::size_t> all(trials.size());
    std::iota(all.begin(), all.end(), std::size_t{0});
    const auto looping = measure_behaviour(found, trials, all);
    for (std::size_t t : all) {
      if (looping[t] > most_loops)
        trials[t].dropped = fmt::format("{:.0f}% of answers loop", 100 * looping[t]);
      else if (trials[t].nll_gain > broken_text)
        trials[t].dropped = fmt::format("breaks the text (NLL gain {:.2f})", trials[t].nll_gain);
    }
    // A behaviour that only broken text shows is none: if every set breaks it, the one that does so least.
    const auto rank = [&](std::size_t t) {
      return trials[t].dropped.empty() ? std::pair(1, trials[t].behaviour) : std::pair(0, -trials[t].nll_gain);
    };
    const auto best = *std::ranges::max_element(all, {}, rank);
    result.chosen = static_cast<std::int64_t>(best);
    const auto& chosen = trials[best];
    const std::string warning = std::exchange(trials[best].dropped, "");
    for (std::size_t t : all)
      if (trials[t].dropped.empty() && t != best) trials[t].dropped = "the chosen set gains more";
    result.verdict = AutoSteerVerdict::steered;
    result.reason = fmt::format(
        "{} of {} features nudged by {:.2f} of maximum activation in sum; behaviour {:.2f} of what asking gains{}; "
        "cost not considered",
        chosen.features.size(), count, options.strength_sum, chosen.behaviour,
        warning.empty() ? "" : ", but every set " + warning);
  }

  void find_safe(const Evidence& found, AutoSteerResult& result) {
    measure_capability();
    result.accuracy_unsteered = capability.accuracy;
    result.format_unsteered = capability.format;
    result.loops_unsteered = capability.loops;
    auto& trials = result.trials = propose(found);
    screen(found, trials);
    const auto picked = pick_finalists(trials);
    measure_behaviour(found, trials, picked);
    // What gains most is tested first, so that the first within the bounds is the best.
    std::vector<std::size_t> open;
    double best_any = 0;
    for (std::size_t t : picked) {
      best_any = std::max(best_any, trials[t].behaviour);
      trials[t].dropped = trials[t].behaviour <= least_gain
                              ? fmt::format("gains {:.2f} in whole answers", trials[t].behaviour)
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
      result.reason = fmt::format(
          "of {} steerings tried, {} were measured in full and none gained {:.0f}% of what asking gains within the "
          "bounds "
          "(best outside them: {:.2f}); loosen CapabilityBounds to accept more cost",
          trials.size(), picked.size(), 100 * least_gain, best_any);
      return;
    }
    const auto& chosen = trials[static_cast<std::size_t>(result.chosen)];
    result.verdict = AutoSteerVerdict::steered;
    result.reason = fmt::format(
        "{} at {:.2f}: behaviour {:.2f} of what asking gains, accuracy {:.2f} (unsteered {:.2f}), format {:.2f} "
        "({:.2f}), KL {:.3f}",
        chosen.form, chosen.strength, chosen.behaviour, chosen.accuracy, capability.accuracy, chosen.format,
        capability.format, chosen.kl);
  }
};

AutoSteer::AutoSteer(Model model, Sae sae, AutoSteerOptions options) {
  constexpr auto where = "AutoSteer";
  require(options.prompts.size() >= 4, ErrorCode::argument, where, "expected at least 4 neutral prompts but got {}",
          options.prompts.size());
  require(options.features > 0 && options.candidates >= options.features && options.strength_sum > 0 &&
              options.max_tokens > 0,
          ErrorCode::argument, where,
          "expected at least one feature, no more than the candidates, and a positive strength and length but got {}, "
          "{}, {}, {}",
          options.features, options.candidates, options.strength_sum, options.max_tokens);
  require(options.ask.find("{}") != std::string::npos &&
              (options.ask_opposite.empty() || options.ask_opposite.find("{}") != std::string::npos),
          ErrorCode::argument, where, "expected requests with {{}} in the behaviour's place but got \"{}\" and \"{}\"",
          options.ask, options.ask_opposite);
  require(options.capability.prompts.empty() || options.capability.score, ErrorCode::argument, where,
          "expected a capability set with a score function but it has prompts only");
  if (options.labels) options.labels->require_of(sae);
  model.chat();
  impl_ = std::make_unique<Impl>(std::move(model), std::move(sae), std::move(options));
}

AutoSteer::~AutoSteer() = default;
AutoSteer::AutoSteer(AutoSteer&&) noexcept = default;
AutoSteer& AutoSteer::operator=(AutoSteer&&) noexcept = default;

AutoSteerResult AutoSteer::find(std::string_view behaviour, AutoSteerMode mode) {
  constexpr auto where = "AutoSteer::find";
  const AutoSteerOptions& options = impl_->options;
  require(!behaviour.empty(), ErrorCode::argument, where, "expected a behaviour in words but got an empty text");
  require(mode == AutoSteerMode::published || !options.capability.prompts.empty(), ErrorCode::config, where,
          "expected a capability set for mode safe but AutoSteerOptions::capability is empty; give questions it must "
          "not spoil");
  const Evidence& found = impl_->evidence_for(behaviour);
  AutoSteerResult result{.behaviour = std::string(behaviour),
                         .mode = mode,
                         .reason = {},
                         .steering = {},
                         .score_unsteered = found.unsteered.posterior,
                         .score_asked = found.asked.posterior,
                         .score_opposite = found.opposite.posterior,
                         .candidates = found.candidates,
                         .trials = {}};
  result.warnings = impl_->session.warnings();
  const double asked = found.asked.posterior, unsteered = found.unsteered.posterior,
               opposite = found.opposite.posterior;
  const bool asking_gains = asked - unsteered >= least_knowledge && unsteered < options.enough * asked;
  // A request that the model ignores scores one half.
  const bool shown = unsteered - opposite >= least_knowledge || unsteered - 0.5 >= least_knowledge;
  const auto with_opposite = std::isnan(opposite) ? "" : fmt::format(", {:.2f} with the opposite asked for", opposite);
  if (!asking_gains && shown) {
    result.verdict = AutoSteerVerdict::not_needed;
    result.reason = fmt::format("no steering needed: unsteered answers score {:.2f}, asked-for ones {:.2f}{}",
                                unsteered, asked, with_opposite);
  } else if (!asking_gains) {
    result.verdict = AutoSteerVerdict::not_known;
    result.reason = fmt::format(
        "asking for \"{}\" hardly changes this model's answers (score {:.2f} asked, {:.2f} unsteered{}): it may not "
        "know the behaviour",
        behaviour, asked, unsteered, with_opposite);
  } else if (found.usable == 0) {
    result.reason =
        fmt::format("none of {} features passed the filters; see each one's reason", found.candidates.size());
  } else if (mode == AutoSteerMode::published) {
    impl_->find_published(found, result);
  } else {
    impl_->find_safe(found, result);
  }
  if (result.chosen >= 0) result.steering = result.trials[static_cast<std::size_t>(result.chosen)].steering;
  for (auto& candidate : result.candidates) {
    const auto& used = result.chosen < 0 ? std::vector<std::int64_t>{}
                                         : result.trials[static_cast<std::size_t>(result.chosen)].features;
    if (candidate.dropped.empty() && std::ranges::find(used, candidate.feature) == used.end())
      candidate.dropped = "not in the chosen steering";
  }
  return result;
}

}  // namespace steer
