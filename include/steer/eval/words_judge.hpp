#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <steer/core/progress.hpp>
#include <steer/eval/behaviours.hpp>
#include <steer/eval/judge.hpp>
#include <steer/eval/questions.hpp>
#include <steer/generate/generate.hpp>
#include <steer/model/model.hpp>

namespace steer {

/// A text with what it is an example of, and the question it answers: texts of one question are never on both sides of
/// a held-out check.
struct LabelledText {
  std::string text{}, label{}, group{};
};

/// Tells kinds of texts apart by words alone: which words and pairs of neighbours occur (Bernoulli naive Bayes over
/// what is present, all labels equally likely beforehand). It knows nothing of any model's likelihoods. Log odds are
/// divided by a temperature that makes held-out texts most likely, since neighbouring words are no independent
/// witnesses. A value; const members may be called from several threads.
class WordClassifier {
 public:
  /// How well texts were told that took no part in the fit.
  struct HeldOut {
    std::map<std::string, double> recall{};  ///< by label: share of its texts that were given it
    std::map<std::string, double> auroc{};   ///< by label: its texts against all others
    double accuracy = 0;                     ///< mean recall over labels
  };

  /// @throws Error(argument) for fewer than 2 labels, or fewer than 2 groups.
  explicit WordClassifier(std::span<const LabelledText> texts);

  /// Rising.
  const std::vector<std::string>& labels() const { return labels_; }
  /// The probability of each label. [labels]
  std::vector<double> probabilities(std::string_view text) const;
  /// The likeliest.
  const std::string& classify(std::string_view text) const;
  /// By cross-validation over five parts of the groups (as many as there are, if fewer).
  const HeldOut& held_out() const { return held_out_; }
  double temperature() const { return temperature_; }

 private:
  WordClassifier() = default;
  void learn(std::string_view text, std::size_t label);
  std::vector<double> log_odds(std::string_view text) const;
  std::vector<std::string> labels_;
  std::vector<double> texts_;                                       ///< learnt of each label
  std::map<std::string, std::vector<double>, std::less<>> counts_;  ///< term to texts of each label that have it
  double temperature_ = 1;
  HeldOut held_out_;
};

struct WordsJudgeOptions {
  SamplingOptions sampling{.temperature = 0.6, .top_p = 0.9};
  std::int64_t max_tokens = 256;
  std::int64_t batch = 64;          ///< answers computed at once
  std::filesystem::path journal{};  ///< keeps the answers it is fitted on; empty: none
  std::uint64_t seed = 42;
  Progress progress{};
};

/// A judge of behaviour that needs no other model and reads no likelihoods: `WordClassifier`, fitted on the model's own
/// answers to other questions, asked for each behaviour and for none. Its score is 1 + 4 p, p the probability that an
/// answer is of the behaviour and neither of another nor of none: 5 says that words alone take it for an answer that
/// was asked to be so. What prompting brings about is thus what it looks for; how well it tells held-out answers is in
/// its caveat, and where it does not (mean AUROC over behaviours below 0.8) it is `unfit`. Coherence is not judged.
/// Rule-checked behaviours are left out. Costs (behaviours + 1) x questions answers, journalled.
/// @param questions  that the experiment does not ask; two dozen do.
/// @throws Error(argument) for no behaviour to judge or fewer than 4 questions; as generate and Journal.
std::shared_ptr<Judge> words_judge(const Model& model, std::span<const Question> questions,
                                   const std::vector<Behaviour>& behaviours, const WordsJudgeOptions& options = {});

}  // namespace steer
