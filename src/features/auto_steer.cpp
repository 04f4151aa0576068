#include <steer/features/auto_steer.hpp>

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>
#include <steer/generate/score.hpp>

#include "features/auto_steer_evidence.hpp"

namespace steer {
namespace {

using detail::Answer;
using detail::Evidence;

/// Trials that are measured in full, at most.
constexpr std::size_t finalists = 12;
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

detail::Direction direction_of(at::Tensor vector, const Evidence& evidence) {
  const at::Tensor unit = vector / vector.norm().clamp_min(1e-12);
  return {unit, at::dot(evidence.residual_asked, unit).item<double>(),
          at::dot(evidence.residual_other, unit).item<double>()};
}

}  // namespace

struct AutoSteer::Impl {
  Model model;
  Sae sae;
  AutoSteerOptions options;
  HookPoint point;
  Session session;
  std::vector<Answer> unsteered;                   ///< to the neutral prompts
  std::vector<GenerateResult> capability_answers;  ///< unsteered
  CapabilityFigures capability;                    ///< unsteered
  bool capability_known = false;
  std::map<std::string, Evidence, std::less<>> evidence;

  Impl(Model m, Sae s, AutoSteerOptions o)
      : model(std::move(m)), sae(std::move(s)), options(std::move(o)), point(sae_point(model, sae)), session(model) {}

  const Evidence& evidence_for(std::string_view behaviour) {
    if (auto known = evidence.find(behaviour); known != evidence.end()) return known->second;
    if (unsteered.empty()) {
      std::vector<std::vector<std::int64_t>> prompts;
      for (const auto& prompt : options.prompts) prompts.push_back(detail::render(model, "", prompt));
      unsteered = detail::answer_all(model, options, prompts, "unsteered");
    }
    return evidence.emplace(behaviour, detail::gather_evidence(session, sae, options, behaviour, unsteered))
        .first->second;
  }

  GenerateOptions generation(std::int64_t max_tokens) const {
    return {.sampling = options.sampling, .max_tokens = max_tokens, .batch = options.batch};
  }

  CapabilityFigures figures(std::span<const GenerateResult> answers) const {
    CapabilityFigures sum;
    for (std::size_t p = 0; p < answers.size(); ++p) {
      const auto [correct, formatted] = options.capability.score(p, answers[p]);
      sum.accuracy += correct;
      sum.format += formatted;
      sum.loops += detail::loops(answers[p].ids);
    }
    const auto n = static_cast<double>(answers.size());
    return {sum.accuracy / n, sum.format / n, sum.loops / n};
  }

  void measure_capability() {
    if (std::exchange(capability_known, true)) return;
    std::vector<GenerateRequest> requests;
    for (std::size_t p = 0; p < options.capability.prompts.size(); ++p)
      requests.push_back({options.capability.prompts[p], {}, derive_seed(options.seed, "capability", p)});
    capability_answers = generate(model, requests, generation(options.max_tokens));
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

    const auto along = [&](const detail::Direction& direction, const std::vector<std::int64_t>& features,
                           std::string_view what) {
      if (direction.asked <= direction.unsteered) return;
      for (double share : {0.75, 1.0, 1.5}) {
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
      for (std::int64_t count : {6, 12})
        for (double sum : {1.5, 3.0, 4.5, 7.0})
          trials.push_back({.form = fmt::format("nudge the first {} tokens", count),
                            .strength = sum,
                            .features = indices(set),
                            .steering = nudge_all(sae, set, sum, {.where = Where::onset, .count = count})});
      for (double share : {0.5, 1.0, 2.0})
        trials.push_back({.form = "nudge while thinking",
                          .strength = share * options.strength_sum,
                          .features = indices(set),
                          .steering = nudge_all(sae, set, share * options.strength_sum, within)});
      at::Tensor combined = at::zeros({sae.d_in()}, at::kFloat);
      for (const auto& feature : set) {
        const std::int64_t index[] = {feature.feature};
        combined += sae.decoder_rows(index)[0].cpu() * (feature.max_activation * feature.output_score);
      }
      along(direction_of(combined, found), indices(set), "the features' direction");
    }
    const auto difference = direction_of(found.residual_asked - found.residual_other, found);
    along(difference, {}, "the mean difference");
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
  void screen(const Evidence& found, std::vector<AutoSteerTrial>& trials) const {
    std::vector<Steering> steerings;
    for (const auto& trial : trials) steerings.push_back(trial.steering);
    const auto screened = detail::screen(model, options, found, steerings);
    for (std::size_t t = 0; t < trials.size(); ++t) {
      trials[t].behaviour = screened[t].behaviour;
      trials[t].screened_out = screened[t].behaviour < least_gain || screened[t].loops > 0.34;
    }
  }

  /// The trials worth measuring in full: of each form the best at each strength, then the best of these.
  static std::vector<std::size_t> pick_finalists(const std::vector<AutoSteerTrial>& trials) {
    std::vector<std::size_t> order(trials.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order,
                             [&](std::size_t a, std::size_t b) { return trials[a].behaviour > trials[b].behaviour; });
    std::map<std::pair<std::string, double>, std::size_t> taken;
    std::vector<std::size_t> picked;
    for (std::size_t t : order)
      if (!trials[t].screened_out && picked.size() < finalists && taken[{trials[t].form, trials[t].strength}]++ == 0)
        picked.push_back(t);
    return picked;
  }

  /// Behaviour on all prompts and figures on the capability set, for the trials of these numbers.
  void measure(const Evidence& found, std::vector<AutoSteerTrial>& trials, const std::vector<std::size_t>& which,
               bool with_capability) const {
    std::vector<GenerateRequest> requests;
    for (std::size_t t : which) {
      for (std::size_t p = 0; p < found.prompts.size(); ++p)
        requests.push_back({found.prompts[p].plain, trials[t].steering, derive_seed(options.seed, "measure", p)});
      if (with_capability)
        for (std::size_t p = 0; p < options.capability.prompts.size(); ++p)
          requests.push_back(
              {options.capability.prompts[p], trials[t].steering, derive_seed(options.seed, "capability", p)});
    }
    const auto results = generate(model, requests, generation(options.max_tokens));
    std::size_t next = 0;
    for (std::size_t t : which) {
      std::vector<Answer> answers;
      for (std::size_t p = 0; p < found.prompts.size(); ++p, ++next) {
        require(results[next].audit.fired(), ErrorCode::config, "AutoSteer::find",
                "expected every steering to edit the answers it steers but \"{}\" edited none",
                trials[t].steering.describe());
        answers.push_back({p, results[next].ids, results[next].finish != FinishReason::length, false});
      }
      const detail::Reading reading = detail::read(model, found.prompts, answers);
      trials[t].behaviour = behaviour_share(found, reading.posterior);
      trials[t].nll_gain = reading.nll - found.asked.nll;
      if (!with_capability) continue;
      const auto count = options.capability.prompts.size();
      const auto [accuracy, format, looping] = figures(std::span(results).subspan(next, count));
      next += count;
      trials[t].accuracy = accuracy;
      trials[t].format = format;
      trials[t].loops = looping;
      trials[t].kl = kl_of(trials[t].steering);
      const CapabilityBounds& b = options.bounds;
      trials[t].within_bounds = capability.accuracy - accuracy <= b.accuracy_loss + 1e-9 &&
                                capability.format - format <= b.format_loss + 1e-9 &&
                                looping - capability.loops <= b.loop_gain + 1e-9 && trials[t].kl <= b.kl &&
                                trials[t].nll_gain <= b.nll_gain;
    }
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
    return detail::mean_of(kl_from_unsteered(model, requests));
  }

  void find_published(const Evidence& found, AutoSteerResult& result) {
    const auto count = std::min(found.usable, static_cast<std::size_t>(options.features));
    const auto features = std::span(found.candidates).first(count);
    AutoSteerTrial trial{.form = "nudge everywhere",
                         .strength = options.strength_sum,
                         .features = indices(features),
                         .steering = nudge_all(sae, features, options.strength_sum, {})};
    trial.nll_gain = trial.accuracy = trial.format = trial.loops = trial.kl = unknown;
    result.trials.push_back(std::move(trial));
    measure(found, result.trials, {0}, false);
    result.chosen = 0;
    result.verdict = AutoSteerVerdict::steered;
    result.reason = fmt::format(
        "{} features nudged by {:.2f} of maximum activation in sum; behaviour {:.2f} of what asking gains; cost not "
        "considered",
        count, options.strength_sum, result.trials[0].behaviour);
  }

  void find_safe(const Evidence& found, AutoSteerResult& result) {
    measure_capability();
    result.accuracy_unsteered = capability.accuracy;
    result.format_unsteered = capability.format;
    result.loops_unsteered = capability.loops;
    auto& trials = result.trials = propose(found);
    screen(found, trials);
    const auto picked = pick_finalists(trials);
    measure(found, trials, picked, true);
    double best = least_gain, best_any = 0;
    for (std::size_t t : picked) {
      best_any = std::max(best_any, trials[t].behaviour);
      if (trials[t].within_bounds && trials[t].behaviour > best) {
        best = trials[t].behaviour;
        result.chosen = static_cast<std::int64_t>(t);
      }
    }
    if (result.chosen < 0) {
      result.verdict = AutoSteerVerdict::no_gain_in_bounds;
      result.reason = fmt::format(
          "of {} steerings tried, {} reached the full test and none gained {:.0f}% of what asking gains within the "
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
                         .candidates = found.candidates,
                         .trials = {}};
  const double asked = found.asked.posterior, unsteered = found.unsteered.posterior;
  if (asked >= least_knowledge && unsteered >= options.enough * asked) {
    result.verdict = AutoSteerVerdict::not_needed;
    result.reason =
        fmt::format("no steering needed: unsteered answers score {:.2f}, asked-for ones {:.2f}", unsteered, asked);
  } else if (asked - unsteered < least_knowledge) {
    result.reason = fmt::format(
        "asking for \"{}\" hardly changes this model's answers (score {:.2f} asked, {:.2f} unsteered): it may not know "
        "the behaviour",
        behaviour, asked, unsteered);
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

nlohmann::json AutoSteerResult::to_json() const {
  nlohmann::json features = nlohmann::json::array(), tried = nlohmann::json::array();
  for (const auto& c : candidates)
    features.push_back({{"feature", c.feature},
                        {"label", c.label},
                        {"standardised", c.contrast.standardised},
                        {"auroc", c.contrast.auroc},
                        {"auroc_low", c.contrast.auroc_low},
                        {"auroc_high", c.contrast.auroc_high},
                        {"max_activation", c.max_activation},
                        {"attribution", c.attribution},
                        {"output_score", c.output_score},
                        {"dropped", c.dropped}});
  for (const auto& t : trials)
    tried.push_back({{"form", t.form},
                     {"strength", t.strength},
                     {"features", t.features},
                     {"behaviour", t.behaviour},
                     {"accuracy", t.accuracy},
                     {"format", t.format},
                     {"loops", t.loops},
                     {"kl", t.kl},
                     {"nll_gain", t.nll_gain},
                     {"screened_out", t.screened_out},
                     {"within_bounds", t.within_bounds}});
  return {{"behaviour", behaviour},
          {"mode", to_string(mode)},
          {"verdict", to_string(verdict)},
          {"reason", reason},
          {"score_unsteered", score_unsteered},
          {"score_asked", score_asked},
          {"chosen", chosen},
          {"candidates", features},
          {"trials", tried},
          {"accuracy_unsteered", accuracy_unsteered},
          {"format_unsteered", format_unsteered},
          {"loops_unsteered", loops_unsteered}};
}

std::string AutoSteerResult::explain() const {
  std::string text = fmt::format("{} ({}): {}\n{}\n", behaviour, to_string(mode), to_string(verdict), reason);
  if (!steering.empty()) text += steering.describe() + "\n";
  text += "\n  feature  d     AUROC [low, high]   attribution  alone  label / why dropped\n";
  for (const auto& c : candidates)
    text += fmt::format("  {:>7}  {:>5.2f}  {:.2f} [{:.2f}, {:.2f}]  {:>11.4f}  {:>5.2f}  {}{}{}\n", c.feature,
                        c.contrast.standardised, c.contrast.auroc, c.contrast.auroc_low, c.contrast.auroc_high,
                        c.attribution, c.output_score, c.label, c.label.empty() || c.dropped.empty() ? "" : " / ",
                        c.dropped);
  text += "\n  behaviour  accuracy  format  loops  KL     NLL gain  strength  form\n";
  for (std::size_t t = 0; t < trials.size(); ++t) {
    const auto& trial = trials[t];
    if (trial.screened_out) continue;
    text += fmt::format("{} {:>9.2f}  {:>8.2f}  {:>6.2f}  {:>5.2f}  {:>5.3f}  {:>8.3f}  {:>8.2f}  {}\n",
                        static_cast<std::int64_t>(t) == chosen ? ">" : " ", trial.behaviour, trial.accuracy,
                        trial.format, trial.loops, trial.kl, trial.nll_gain, trial.strength, trial.form);
  }
  return text;
}

}  // namespace steer
