#include <steer/eval/auto_steer_arm.hpp>

#include <algorithm>
#include <memory>
#include <optional>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>
#include <steer/core/random.hpp>
#include <steer/eval/answer.hpp>

#include "eval/run/prompts.hpp"
#include "features/auto_steer_answers.hpp"

namespace steer {
namespace {

constexpr std::int64_t kPrompts = 24, kCapability = 64;

/// Answers of one search, at most. Options without prompts are a plan's of the usual size.
std::int64_t answers_of(const AutoSteerOptions& options, AutoSteerMode mode) {
  const bool usual = options.prompts.empty();
  return features::detail::search_answers(mode, usual ? kPrompts : std::ssize(options.prompts),
                                          usual ? kCapability : std::ssize(options.capability.prompts),
                                          options.features);
}

/// One searcher for all behaviours and modes, made when first needed: it remembers each behaviour's evidence.
struct Searcher {
  Sae sae;
  AutoSteerOptions options;
  std::optional<AutoSteer> search = {};

  AutoSteerResult find(const Model& model, std::string_view behaviour, AutoSteerMode mode) {
    if (!search) search.emplace(model, sae, options);
    return search->find(behaviour, mode);
  }
};

std::string identity_of(const Searcher& searcher, AutoSteerMode mode) {
  const auto& options = searcher.options;
  ContentHasher hasher;
  hasher.update(searcher.sae.hash());
  for (const auto& prompt : options.prompts) hasher.update(prompt).update("\n");
  for (const auto& ids : options.capability.prompts)
    hasher.update(std::string_view(reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof ids[0]));
  hasher.update(fmt::format("{} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {}", to_string(mode), options.ask,
                            options.ask_opposite, options.bounds.accuracy_loss, options.bounds.format_loss,
                            options.bounds.loop_gain, options.bounds.nll_gain, options.bounds.kl,
                            options.sampling.temperature, options.sampling.top_p, options.sampling.top_k,
                            options.sampling.min_p, options.sampling.repetition_penalty, options.max_tokens,
                            options.candidates, options.features, options.strength_sum, options.enough, options.seed));
  return hasher.hex();
}

Arm arm_of(const std::shared_ptr<Searcher>& searcher, AutoSteerMode mode) {
  const auto find = [=](const Model& model, const Behaviour& behaviour) -> FoundSteering {
    const AutoSteerResult result = searcher->find(model, behaviour.name, mode);
    return {result.steering, fmt::format("{}: {}", to_string(result.verdict), result.reason)};
  };
  const bool safe = mode == AutoSteerMode::safe;
  return steered(
      safe ? "safe" : "published",
      safe ? "Auto Steer: the features, form and strength that gain most behaviour within bounds on what they may cost"
           : "Auto Steer as published: at most 3 features, nudged at every token",
      {.name = fmt::format("auto_steer_{}", to_string(mode)),
       .identity = identity_of(*searcher, mode),
       .find = find,
       .costly = true,
       .saes = {searcher->sae},
       .answers = answers_of(searcher->options, mode),
       .sought = "request_evidence"});
}

}  // namespace

AutoSteerArms auto_steer(Sae sae, AutoSteerOptions options) {
  const auto searcher = std::make_shared<Searcher>(std::move(sae), std::move(options));
  return {arm_of(searcher, AutoSteerMode::published), arm_of(searcher, AutoSteerMode::safe)};
}

Arm auto_steer(Sae sae, AutoSteerMode mode, AutoSteerOptions options) {
  return arm_of(std::make_shared<Searcher>(std::move(sae), std::move(options)), mode);
}

AutoSteerOptions search_options(const Model& model, const std::vector<Question>& held_out, std::int64_t max_tokens,
                                std::uint64_t seed) {
  std::vector<Question> usable;
  for (const auto& question : held_out)
    if (question.answer >= 0) usable.push_back(question);
  require(usable.size() >= 8, ErrorCode::argument, "search_options",
          "expected at least 8 questions with choices that the experiment does not ask but got {}", usable.size());
  require(max_tokens >= 1, ErrorCode::argument, "search_options", "expected max_tokens of at least 1 but got {}",
          max_tokens);
  Rng rng(derive_seed(seed, "auto steer questions"));
  rng.shuffle(usable);
  const std::size_t prompts = std::min<std::size_t>(kPrompts, usable.size() / 2);
  const std::size_t end = std::min<std::size_t>(usable.size(), prompts + kCapability);
  AutoSteerOptions options;
  for (std::size_t i = 0; i < prompts; ++i) options.prompts.push_back(user_prompt(usable[i]));
  std::vector<Question> asked(usable.begin() + static_cast<std::ptrdiff_t>(prompts),
                              usable.begin() + static_cast<std::ptrdiff_t>(end));
  for (const auto& question : asked)
    options.capability.prompts.push_back(eval::detail::chat_ids(model, "", user_prompt(question)));
  options.capability.score = [asked](std::size_t prompt, const GenerateResult& result) -> CapabilityScore {
    const Question& question = asked.at(prompt);
    const auto letter = parse_answer(result.text, static_cast<int>(question.choices.size())).strict;
    return {.correct = letter && *letter - 'A' == question.answer, .formatted = letter.has_value()};
  };
  options.max_tokens = max_tokens;
  options.seed = seed;
  return options;
}

}  // namespace steer
