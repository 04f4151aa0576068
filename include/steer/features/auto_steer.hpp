#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <steer/core/enum.hpp>
#include <steer/core/progress.hpp>
#include <steer/features/contrast.hpp>
#include <steer/generate/generate.hpp>
#include <steer/model/model.hpp>
#include <steer/sae/labels.hpp>
#include <steer/sae/sae.hpp>
#include <steer/stats/certificate.hpp>
#include <steer/steering/steering.hpp>

namespace steer {

enum class AutoSteerMode {
  published,  ///< at most 3 features, nudged everywhere by strengths whose magnitudes sum to 1.1 of maximum activation
  safe,       ///< the features, form and strength that gain most behaviour within bounds on what they may cost
};

template <>
struct EnumTable<AutoSteerMode> {
  static constexpr std::string_view name = "Auto Steer mode";
  static constexpr EnumEntry<AutoSteerMode> entries[] = {{AutoSteerMode::published, "published"},
                                                         {AutoSteerMode::safe, "safe"}};
};

/// How a search ended.
enum class AutoSteerVerdict {
  steered,                ///< `steering` holds the edit
  not_needed,             ///< unsteered answers already show the behaviour about as much as asked-for ones
  not_known,              ///< asking for the behaviour hardly changes this model's answers
  no_candidate,           ///< no feature tells the behaviour's answers from others, or none acts on the output;
                          ///< safe: and activations do not differ either
  no_gain_in_bounds,      ///< safe: nothing tried gained behaviour within the bounds
  no_better_than_random,  ///< published: no set gains more than random features that change as much
  not_certified,          ///< safe: what was found in the search loses too much, or too much to tell, on new questions
};

template <>
struct EnumTable<AutoSteerVerdict> {
  static constexpr std::string_view name = "Auto Steer verdict";
  static constexpr EnumEntry<AutoSteerVerdict> entries[] = {
      {AutoSteerVerdict::steered, "steered"},
      {AutoSteerVerdict::not_needed, "not_needed"},
      {AutoSteerVerdict::not_known, "not_known"},
      {AutoSteerVerdict::no_candidate, "no_candidate"},
      {AutoSteerVerdict::no_gain_in_bounds, "no_gain_in_bounds"},
      {AutoSteerVerdict::no_better_than_random, "no_better_than_random"},
      {AutoSteerVerdict::not_certified, "not_certified"}};
};

/// How one answer to a capability prompt is judged.
struct CapabilityScore {
  bool correct = false;
  bool formatted = false;  ///< the answer could be read at all
};

/// Questions that steering must not spoil; disjoint from whatever the result will be evaluated on.
struct CapabilitySet {
  std::vector<std::vector<std::int64_t>> prompts{};  ///< ids, generation prompt included
  std::function<CapabilityScore(std::size_t prompt, const GenerateResult& answer)> score{};
};

/// What `safe` allows a steering to cost, against no steering.
struct CapabilityBounds {
  double accuracy_loss = 0.02;  ///< share of the capability set's prompts
  double format_loss = 0.02;
  double loop_gain = 0.02;  ///< share of answers that repeat themselves
  double nll_gain = 0.3;    ///< see AutoSteerTrial
  double kl = 1.0;          ///< mean KL of next-token distributions over the unsteered answers, nats a token
};

/// A question with one right answer among some.
struct ChoiceQuestion {
  std::string message{};               ///< as the user writes it
  std::vector<std::string> choices{};  ///< as the answer names them: "A", "B", ...
  std::size_t right = 0;               ///< place in `choices`
};

/// Questions on which the cost of what a search found is tested, and what of it is to be certified. They must be
/// drawn from what the certificate is to hold for, and disjoint from the search's and from whatever is evaluated later
/// (`search_options`). How many are needed: `certificate_plan`.
struct CertificateSet {
  std::vector<ChoiceQuestion> questions{};  ///< empty: no certificate
  std::string opening = "<answer>";         ///< what an answer has before the choice it names
  std::string closing = "</thinking>";      ///< what ends the thinking of an answer that came to no choice
  double accuracy_loss = 0.02;  ///< more than this must be ruled out; of the probability of the right answer
  double format_loss = 0.02;    ///< of the share of answers that come to a choice
  double off_target = 0.05;     ///< of the probability that an answer shows another of the behaviours `others`
  double level = 0.95;
  std::int64_t control_draws = 3;  ///< unsteered answers a question
  /// Above 0: a control variate. How much a steering moves the probability of the right answer after the unsteered
  /// model's own thinking is cheap to know (texts are read, none is written), here of all `questions` and of
  /// `population`; so much of it is taken off each question's loss (`adjust_losses`), which evens out how hard the
  /// questions are that happen to be asked. The certificate is then of `questions` and `population` together.
  double control_variate = 0;
  std::vector<ChoiceQuestion> population{};        ///< more questions of the kind, answered without steering only
  std::vector<double> multiples = {0.5, 0.75, 1};  ///< of the strength that the search chose, tested in this order
};

struct AutoSteerOptions {
  std::vector<std::string> prompts{};  ///< neutral user messages, disjoint from any evaluation; at least 4
  std::string ask = "When answering, please be more {}.";           ///< system prompt; {} is the behaviour
  std::string ask_opposite = "When answering, please be less {}.";  ///< empty: the opposite is not asked for
  CapabilitySet capability{};                                       ///< needed by `safe`
  CapabilityBounds bounds{};
  CertificateSet certificate{};  ///< `safe` proves what it found on these
  SamplingOptions sampling{.temperature = 0.6, .top_p = 0.9};
  std::int64_t max_tokens = 256;
  std::int64_t batch = 64;       ///< rows generated at once
  std::int64_t candidates = 12;  ///< features kept by contrast
  std::int64_t features = 3;     ///< at most this many are nudged
  double strength_sum = 1.1;     ///< published: sum of |strength|, in units of maximum activation
  /// safe: every form is tried at the strengths that reach these effects, see AutoSteerTrial::effect and
  /// `calibrate_strength`.
  std::vector<double> effects = {0.03, 0.1, 0.3, 1.0};
  /// safe: vectors are tried at these places too, not only where the SAE reads (features are the SAE's alone).
  std::vector<HookPoint> points{};
  /// Other behaviours: the behaviour score tells the wanted one from these too, directions are centred by answers that
  /// were asked for them (`centred_difference`), and a certified steering must not show them instead. Costs one answer
  /// a prompt each, shared by all behaviours' searches.
  std::vector<std::string> others{};
  std::int64_t train_steps = 0;  ///< safe: > 0 also tries a vector trained by so many steps (`train_vector`)
  double enough = 0.8;           ///< not needed when unsteered answers reach this share of the asked-for score
  std::optional<FeatureLabels>
      labels;                       ///< of this SAE: names, and maximum activations where known (else as observed here)
  std::filesystem::path journal{};  ///< keeps every answer generated, for any behaviours: a search that was interrupted
                                    ///< and is started again goes on there and finds the same. Empty: none
  std::uint64_t seed = 42;
  OnWarning on_warning = OnWarning::keep;  ///< what an SAE made for another model or place is (see SessionOptions)
  Progress progress{};
  std::function<bool()> cancelled{};  ///< asked at every token and between measurements; true ends `find`
};

/// A feature that was considered.
struct AutoSteerCandidate {
  std::int64_t feature = 0;
  std::string label;
  FeatureContrast contrast;  ///< between answers with the behaviour asked for and others, read without the request
  double max_activation = 0;
  double attribution = 0;   ///< gradient x activation on log p(answers with the behaviour), nats a token
  double output_score = 0;  ///< behaviour gained when it alone is nudged, as a share of what asking gains
  std::string dropped;      ///< why it was not used; empty if it was
};

/// One steering that was tried.
struct AutoSteerTrial {
  std::string form;     ///< "nudge the first 8 tokens", "raise the mean difference to target", ...
  double strength = 0;  ///< in the form's own unit
  double target = 0;    ///< of `effect`: which step of AutoSteerOptions::effects; 0: the strength was given
  double effect = 0;    ///< 95th percentile of the KL of next-token distributions over unsteered answers, nats
  std::vector<std::int64_t> features;
  Steering steering;
  double behaviour = 0;  ///< 0: as unsteered, 1: as when asked for
  double nll_gain = 0;   ///< of its answers above asked-for ones, under the unsteered model with or without the
                         ///< request, whichever explains them better: nats a token; broken text scores high
  double accuracy = 0, format = 0, loops = 0,
         kl = 0;              ///< on the capability set; these and nll_gain NaN where not measured
  bool screened_out = false;  ///< dropped on the first tokens of few answers: `behaviour` is of these
  bool within_bounds = false;
  std::string dropped;  ///< why it was not chosen; empty if it was
};

/// What was found, and why.
struct AutoSteerResult {
  std::string behaviour;
  AutoSteerMode mode = AutoSteerMode::safe;
  AutoSteerVerdict verdict = AutoSteerVerdict::no_candidate;
  std::string reason;          ///< one sentence with the numbers
  Steering steering;           ///< empty unless the verdict is `steered`
  double score_unsteered = 0;  ///< behaviour score (see AutoSteer), mean over unsteered answers
  double score_asked = 0;      ///< of answers with the behaviour asked for
  double score_opposite = 0;   ///< of answers with its opposite asked for; NaN when that is not asked
  std::int64_t chosen = -1;    ///< place in `trials`
  std::int64_t best_set = -1;  ///< of `published`: place of the set that gains most, whether it was chosen or not
  std::vector<AutoSteerCandidate> candidates;
  std::vector<AutoSteerTrial> trials;
  double accuracy_unsteered = 0, format_unsteered = 0, loops_unsteered = 0;
  std::optional<Certificate> certificate = {};  ///< of `safe` with a CertificateSet
  std::vector<std::string> warnings;            ///< what a person should know before trusting it

  /// Everything but the tensors.
  nlohmann::json to_json() const;
  /// A page of text: the verdict, the features and the strength curve.
  std::string explain() const;
  /// The strength curve as a picture, SVG: a panel a form, behaviour and accuracy over strength.
  std::string to_svg() const;
};

/// From a behaviour in words to a steering, on one's own model and SAE: a local reconstruction of the hosted Auto Steer
/// (`published`), and a search that minds what steering costs (`safe`).
///
/// The behaviour score of an answer is the unsteered model's own posterior that the behaviour was asked for, at even
/// odds of this, of nothing and of three of `AutoSteerOptions::others`, with each prompt the next three:
/// p(answer | request, prompt) over the sum of p(answer | prompt) and of p(answer | each request, prompt). Without
/// `others` any style may score high.
/// Steps: the model's answers to neutral prompts with the behaviour asked for, not asked for and its opposite asked
/// for; features by contrast between them, read without the request, and by how far their decoder rows point along the
/// mean difference; each nudged alone on the first tokens of a few answers and kept if that alone moves the behaviour
/// (what marks a behaviour need not cause it); then the mode's own choice of form and strength, tried in batches,
/// pruned early.
///
/// Immutable but for what `find` remembers: unsteered answers are made once and shared by all behaviours. One thread.
class AutoSteer {
 public:
  /// @throws Error(argument) for fewer than 4 prompts or options out of range; Error(config) for a model without a chat
  ///         template or labels of another SAE; as `sae_point` when the SAE does not fit; as Journal.
  AutoSteer(Model model, Sae sae, AutoSteerOptions options);
  ~AutoSteer();
  AutoSteer(AutoSteer&&) noexcept;
  AutoSteer& operator=(AutoSteer&&) noexcept;

  /// @param behaviour  a word or phrase that completes the request: "funny".
  /// @throws Error(argument) for an empty behaviour; Error(config) for `safe` without a capability set;
  ///         Error(cancelled) when `AutoSteerOptions::cancelled` says so: what was found until then is kept.
  AutoSteerResult find(std::string_view behaviour, AutoSteerMode mode = AutoSteerMode::safe);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace steer
