#pragma once
// The answers a search generates, and the file that keeps them.

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <steer/features/auto_steer.hpp>
#include <steer/io/journal.hpp>

namespace steer::features::detail {

/// Generates as a search's options say. With AutoSteerOptions::journal every answer is kept there, under a hash of all
/// it depends on, and taken from there when the same is asked for again, by this process or a later one.
class AnswerStore {
 public:
  /// @throws as Journal for a file that cannot be used or is of another model or sampling.
  AnswerStore(Model model, const AutoSteerOptions& options);
  AnswerStore(const AnswerStore&) = delete;
  const Model& model() const { return model_; }
  /// @throws Error(cancelled) when nobody wants the search any more.
  void check_cancelled() const;
  /// As steer::generate; of a kept answer's audit only how many tokens were edited. @throws as `check_cancelled`.
  /// @param what  for the progress display.
  std::vector<GenerateResult> generate(std::span<const GenerateRequest> requests, std::int64_t max_tokens,
                                       std::string_view what);

 private:
  Model model_;
  GenerateOptions how_;
  Progress progress_;
  std::function<bool()> cancelled_;
  std::unique_ptr<Journal> journal_;
  std::map<std::string, std::string, std::less<>> kept_;
};

/// Answers that one search takes from the model, at most. First tokens alone are not counted.
/// @param certificate  answers to its questions, unsteered and at each strength.
std::int64_t search_answers(AutoSteerMode mode, std::int64_t prompts, std::int64_t capability_prompts,
                            std::int64_t features, std::int64_t certificate);

}  // namespace steer::features::detail
