#include <steer/eval/auto_steer_arm.hpp>

#include <algorithm>
#include <memory>
#include <optional>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>
#include <steer/core/random.hpp>
#include <steer/eval/answer.hpp>

#include "core/format_text.hpp"
#include "eval/run/prompts.hpp"
#include "features/auto_steer_answers.hpp"

namespace steer {
namespace {

/// Answers of one search, at most. Options without prompts are a plan's of the usual size.
std::int64_t answers_of(const AutoSteerOptions& options, AutoSteerMode mode) {
  const SearchSizes usual;
  const bool planned = options.prompts.empty();
  const auto& proof = options.certificate;
  return features::detail::search_answers(
      mode, planned ? usual.prompts : std::ssize(options.prompts),
      planned ? usual.checks : std::ssize(options.capability.prompts), options.features,
      std::ssize(proof.questions) * (proof.control_draws + std::ssize(proof.multiples)));
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
  hasher.update(format_text("{} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {}", to_string(mode), options.ask,
                            options.ask_opposite, options.bounds.accuracy_loss, options.bounds.format_loss,
                            options.bounds.loop_gain, options.bounds.nll_gain, options.bounds.kl,
                            options.sampling.temperature, options.sampling.top_p, options.sampling.top_k,
                            options.sampling.min_p, options.sampling.repetition_penalty, options.max_tokens,
                            options.candidates, options.features, options.strength_sum, options.enough, options.seed));
  hasher.update(
      format_text("|{}|{}|{}", fmt::join(options.effects, " "), fmt::join(options.others, " "), options.train_steps));
  const auto& proof = options.certificate;
  for (const auto& question : proof.questions)
    hasher.update(format_text("{}|{}|{}\n", question.message, fmt::join(question.choices, " "), question.right));
  for (const auto& point : options.points) hasher.update("|" + point.name());
  if (proof.control_variate > 0) {
    hasher.update(format_text("|variate {}", proof.control_variate));
    for (const auto& question : proof.population) hasher.update(question.message + "|");
  }
  hasher.update(format_text("{} {} {} {} {} {} {} {}", proof.opening, proof.closing, proof.accuracy_loss,
                            proof.format_loss, proof.off_target, proof.level, proof.control_draws,
                            fmt::join(proof.multiples, " ")));
  return hasher.hex();
}

Arm arm_of(const std::shared_ptr<Searcher>& searcher, AutoSteerMode mode) {
  const auto find = [=](const Model& model, const Behaviour& behaviour) -> FoundSteering {
    const AutoSteerResult result = searcher->find(model, behaviour.name, mode);
    return {result.steering, format_text("{}: {}", to_string(result.verdict), result.reason)};
  };
  const bool safe = mode == AutoSteerMode::safe;
  return Arm::steered(
      safe ? "safe" : "published",
      safe ? "Auto Steer: the features, form and strength that gain most behaviour within bounds on what they may cost"
           : "Auto Steer as published: at most 3 features, nudged at every token",
      {.name = format_text("auto_steer_{}", to_string(mode)),
       .identity = identity_of(*searcher, mode),
       .find = find,
       .costly = true,
       .saes = {searcher->sae},
       .answers = answers_of(searcher->options, mode),
       .sought = "request_evidence"});
}

}  // namespace

AutoSteerArms auto_steer_arms(Sae sae, AutoSteerOptions options) {
  const auto searcher = std::make_shared<Searcher>(std::move(sae), std::move(options));
  return {arm_of(searcher, AutoSteerMode::published), arm_of(searcher, AutoSteerMode::safe)};
}

Arm auto_steer_arm(Sae sae, AutoSteerMode mode, AutoSteerOptions options) {
  return arm_of(std::make_shared<Searcher>(std::move(sae), std::move(options)), mode);
}

AutoSteerOptions search_options(const Model& model, const std::vector<Question>& held_out, std::int64_t max_tokens,
                                std::uint64_t seed, const SearchSizes& sizes) {
  constexpr auto where = "search_options";
  std::vector<Question> usable;
  for (const auto& question : held_out)
    if (question.answer >= 0) usable.push_back(question);
  require(sizes.prompts >= 1 && sizes.checks >= 1 && sizes.certificate >= 0, ErrorCode::argument, where,
          "expected at least one prompt and one check but got {}, {} and {} for the certificate", sizes.prompts,
          sizes.checks, sizes.certificate);
  require(std::ssize(usable) >= 8 + sizes.certificate, ErrorCode::argument, where,
          "expected at least {} questions with choices that the experiment does not ask but got {}",
          8 + sizes.certificate, usable.size());
  require(max_tokens >= 1, ErrorCode::argument, where, "expected max_tokens of at least 1 but got {}", max_tokens);
  std::ranges::stable_sort(usable, {}, [&](const Question& question) {
    return ContentHasher().update(format_text("{}|{}", seed, question.id)).hex();
  });
  const auto certified = static_cast<std::size_t>(sizes.certificate);
  const std::vector<Question> proof(usable.begin(), usable.begin() + sizes.certificate);
  const std::size_t left = usable.size() - certified,
                    prompts = std::min(static_cast<std::size_t>(sizes.prompts), left / 2),
                    checks = std::min(static_cast<std::size_t>(sizes.checks), left - prompts);
  AutoSteerOptions options;
  for (std::size_t i = 0; i < prompts; ++i) options.prompts.push_back(user_prompt(usable[certified + i]));
  const auto first = usable.begin() + static_cast<std::ptrdiff_t>(certified + prompts);
  const std::vector<Question> asked(first, first + static_cast<std::ptrdiff_t>(checks));
  for (const auto& question : asked)
    options.capability.prompts.push_back(eval::detail::chat_ids(model, "", user_prompt(question)));
  options.capability.score = [asked](std::size_t prompt, const GenerateResult& result) -> CapabilityScore {
    const Question& question = asked.at(prompt);
    const auto letter = parse_answer(result.text, static_cast<int>(question.choices.size())).strict;
    return {.correct = letter && *letter - 'A' == question.answer, .formatted = letter.has_value()};
  };
  for (const auto& question : proof) {
    ChoiceQuestion choice{.message = user_prompt(question), .right = static_cast<std::size_t>(question.answer)};
    for (std::size_t c = 0; c < question.choices.size(); ++c)
      choice.choices.push_back(std::string(1, static_cast<char>('A' + c)));
    options.certificate.questions.push_back(std::move(choice));
  }
  options.max_tokens = max_tokens;
  options.seed = seed;
  return options;
}

}  // namespace steer
