#include "serve/auto_steer_search.hpp"

#include <algorithm>
#include <chrono>
#include <mutex>

#include <steer/core/error.hpp>
#include <steer/text/chat_template.hpp>

namespace steer::serve::detail {

namespace {

const std::vector<std::string> kNeutral = {"Tell me about your favourite place.",
                                           "How should I spend a free afternoon?",
                                           "What makes a good neighbour?",
                                           "Explain how bread is made.",
                                           "Describe the weather on a day in autumn.",
                                           "What would you take on a long walk?",
                                           "Why do people keep animals in their homes?",
                                           "How can I learn something new?"};

/// The choice that an answer names behind its opening tag.
CapabilityScore score_choice(const ChoiceQuestion& question, const std::string& opening, std::string_view text) {
  const auto tag = text.find(opening);
  if (tag == std::string_view::npos) return {};
  text.remove_prefix(tag + opening.size());
  text.remove_prefix(std::min(text.find_first_not_of(" \n\t"), text.size()));
  std::size_t named = question.choices.size(), longest = 0;
  for (std::size_t i = 0; i < question.choices.size(); ++i)
    if (question.choices[i].size() > longest && text.starts_with(question.choices[i]))
      named = i, longest = question.choices[i].size();
  return {.correct = named == question.right, .formatted = named < question.choices.size()};
}

AutoSteerOptions options_of(const Service& service, const ServedSae& served, const SearchRequest& request) {
  AutoSteerOptions options;
  options.prompts = request.prompts.empty() ? kNeutral : request.prompts;
  for (const auto& question : request.questions)
    options.capability.prompts.push_back(service.model.chat().render({{Role::user, question.message}}).ids);
  options.capability.score = [questions = request.questions, opening = request.certificate.opening](
                                 std::size_t i, const GenerateResult& answer) {
    return score_choice(questions.at(i), opening, answer.text);
  };
  options.certificate = request.certificate;
  options.max_tokens = request.max_tokens;
  options.seed = request.seed;
  options.enough = request.enough;
  options.labels = served.labels;
  options.on_warning = OnWarning::ignore;
  return options;
}

}  // namespace

AutoSteerResult find_steering(Service& service, const ServedSae& served, const SearchRequest& request,
                              const Progress& progress, const std::function<bool()>& still) {
  std::unique_lock lock(service.searching, std::defer_lock);
  while (!lock.try_lock_for(std::chrono::milliseconds(100)))
    require(still(), ErrorCode::cancelled, "Server", "the search was cancelled before it began");
  AutoSteerOptions options = options_of(service, served, request);
  options.progress = progress;
  options.cancelled = [&still] { return !still(); };
  return AutoSteer(service.model, served.sae, std::move(options)).find(request.behaviour, request.mode);
}

}  // namespace steer::serve::detail
