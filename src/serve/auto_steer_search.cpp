#include "serve/auto_steer_search.hpp"

#include <mutex>

#include <steer/core/error.hpp>

namespace steer::serve::detail {

namespace {

AutoSteerOptions search_options(const ServedSae& served) {
  AutoSteerOptions options;
  options.prompts = {"Tell me about your favourite place.",
                     "How should I spend a free afternoon?",
                     "What makes a good neighbour?",
                     "Explain how bread is made.",
                     "Describe the weather on a day in autumn.",
                     "What would you take on a long walk?",
                     "Why do people keep animals in their homes?",
                     "How can I learn something new?"};
  options.max_tokens = 64;
  options.labels = served.labels;
  options.on_warning = OnWarning::ignore;
  return options;
}

}  // namespace

AutoSteerResult find_published(Service& service, const ServedSae& served, std::string_view behaviour,
                               const Progress& progress, const std::function<bool()>& still) {
  static std::mutex searching;
  const std::lock_guard lock(searching);
  if (still && !still()) fail(ErrorCode::cancelled, "Server", "the search was cancelled");
  AutoSteerOptions options = search_options(served);
  options.progress = progress;
  return AutoSteer(service.model, served.sae, options).find(behaviour, AutoSteerMode::published);
}

}  // namespace steer::serve::detail
