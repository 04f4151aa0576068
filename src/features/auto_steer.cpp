#include <steer/features/auto_steer.hpp>

#include <algorithm>
#include <cmath>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"
#include "features/auto_steer_search.hpp"

namespace steer {
namespace {

/// Asking must raise the score by this much: else the model does not know the behaviour.
constexpr double least_knowledge = 0.1;

}  // namespace

std::int64_t features::detail::search_answers(AutoSteerMode mode, std::int64_t prompts, std::int64_t capability_prompts,
                                              std::int64_t features, std::int64_t certificate) {
  constexpr std::int64_t evidence = 3;  // to each prompt: asked, not asked, asked for the opposite
  if (mode == AutoSteerMode::published) {
    const auto sets = (std::int64_t{1} << std::min<std::int64_t>(features, most_combined)) - 1;
    return (evidence + 2 * sets) * prompts;  // each set and its placebo
  }
  const auto all = static_cast<std::int64_t>(finalists), half = all / 2, first = (prompts + 2) / 3;
  return (evidence + half) * prompts + (all - half) * first + (1 + half) * capability_prompts + certificate;
}

struct AutoSteer::Impl : features::detail::Search {
  using Search::Search;
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
  require(options.certificate.control_variate >= 0 && options.certificate.control_variate <= 1, ErrorCode::argument,
          where, "expected a share from 0 to 1 as the control variate's weight but got {}",
          options.certificate.control_variate);
  require(!options.effects.empty() && std::ranges::all_of(options.effects, [](double e) { return e > 0; }),
          ErrorCode::argument, where, "expected effects above 0 nats to bring steerings to");
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
  const AutoSteerOptions& options = impl_->options();
  require(!behaviour.empty(), ErrorCode::argument, where, "expected a behaviour in words but got an empty text");
  require(mode == AutoSteerMode::published || !options.capability.prompts.empty(), ErrorCode::config, where,
          "expected a capability set for mode safe but AutoSteerOptions::capability is empty; give questions it must "
          "not spoil");
  const features::detail::Evidence& found = impl_->evidence_for(behaviour);
  AutoSteerResult result{.behaviour = std::string(behaviour),
                         .mode = mode,
                         .reason = {},
                         .steering = {},
                         .score_unsteered = found.unsteered.posterior,
                         .score_asked = found.asked.posterior,
                         .score_opposite = found.opposite.posterior,
                         .candidates = found.candidates,
                         .trials = {}};
  result.warnings = impl_->warnings();
  const double asked = found.asked.posterior, unsteered = found.unsteered.posterior,
               opposite = found.opposite.posterior;
  const bool asking_gains = asked - unsteered >= least_knowledge && unsteered < options.enough * asked;
  // A request that the model ignores scores one half.
  const bool shown = unsteered - opposite >= least_knowledge || unsteered - 0.5 >= least_knowledge;
  const auto with_opposite = std::isnan(opposite) ? "" : format_text(", {:.2f} with the opposite asked for", opposite);
  if (!asking_gains && shown) {
    result.verdict = AutoSteerVerdict::not_needed;
    result.reason = format_text("no steering needed: unsteered answers score {:.2f}, asked-for ones {:.2f}{}",
                                unsteered, asked, with_opposite);
  } else if (!asking_gains) {
    result.verdict = AutoSteerVerdict::not_known;
    result.reason = format_text(
        "asking for \"{}\" hardly changes this model's answers (score {:.2f} asked, {:.2f} unsteered{}): it may not "
        "know the behaviour",
        behaviour, asked, unsteered, with_opposite);
  } else if (found.usable == 0 && (mode == AutoSteerMode::published || !found.residual_asked.defined())) {
    result.reason =
        format_text("none of {} features passed the filters; see each one's reason", found.candidates.size());
  } else if (mode == AutoSteerMode::published) {
    impl_->find_published(found, result);
  } else {
    impl_->find_safe(found, result);
    if (result.chosen >= 0 && !options.certificate.questions.empty()) impl_->certify(found, result);
  }
  if (result.verdict == AutoSteerVerdict::steered)
    result.steering = result.trials[static_cast<std::size_t>(result.chosen)].steering;
  for (auto& candidate : result.candidates) {
    const auto& used = result.chosen < 0 ? std::vector<std::int64_t>{}
                                         : result.trials[static_cast<std::size_t>(result.chosen)].features;
    if (candidate.dropped.empty() && std::ranges::find(used, candidate.feature) == used.end())
      candidate.dropped = "not in the chosen steering";
  }
  return result;
}

}  // namespace steer
