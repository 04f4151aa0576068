#pragma once
// One search: what is known of a model and of behaviours, and how steerings are tried and measured.

#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <steer/features/auto_steer.hpp>
#include <steer/features/strength.hpp>

#include "features/auto_steer_certificate.hpp"
#include "features/auto_steer_evidence.hpp"
#include "features/effect_meter.hpp"

namespace steer::features::detail {

/// Of what a search did not measure.
inline constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

/// More of a steering's answers must not repeat themselves.
constexpr double most_loops = 0.34;

/// Trials whose whole answers are read, at most: to a third of the prompts; to all of them those of the better half.
constexpr std::size_t finalists = 16;
/// `published` tries all sets of so many features, at most.
constexpr std::size_t most_combined = 4;
/// How near a strength comes to the effect it is to have.
inline const StrengthOptions effect_options{.tolerance = 0.15, .max_measured = 12};

struct CapabilityFigures {
  double accuracy = 0, format = 0, loops = 0;
};

/// A way of steering, at strength 1 of its own unit.
struct Form {
  std::string name;
  Steering steering;
  std::vector<std::int64_t> features = {};
  bool fine = false;  ///< tried at strengths in between too
};

class Search {
 public:
  Search(Model model, Sae sae, AutoSteerOptions options);

  const AutoSteerOptions& options() const { return options_; }
  const std::vector<std::string>& warnings() const { return session_.warnings(); }
  /// Gathered once for each behaviour.
  const Evidence& evidence_for(std::string_view behaviour);
  /// Of all sets of the best features the one whose nudge, by the published sum, gains most on whole answers, if it
  /// gains more than random features that change as much.
  void find_published(const Evidence& found, AutoSteerResult& result);
  /// The form, features and strength that gain most within the bounds.
  void find_safe(const Evidence& found, AutoSteerResult& result);
  /// Replaces the result's steering by the strongest multiple of it whose cost is certified; none, and a verdict that
  /// says so, if no multiple's is.
  void certify(const Evidence& found, AutoSteerResult& result);

 private:
  std::vector<AutoSteerTrial> propose(const Evidence& found);
  void add_vector_forms(const Evidence& found, const HookPoint& point, const at::Tensor& at_asked,
                        const at::Tensor& at_other, std::vector<Form>& forms);
  void screen_trials(const Evidence& found, std::vector<AutoSteerTrial>& trials);
  /// Behaviour of whole answers to the first `prompts`, for the trials of these numbers. @return each one's share of
  /// loops.
  std::vector<double> measure_behaviour(const Evidence& found, std::vector<AutoSteerTrial>& trials,
                                        std::span<const std::size_t> which, std::size_t prompts);
  /// What answers under `steering` show. @param behaviour  that the steering is for.
  std::vector<CertificateReading> read_answers(std::span<const ChoiceQuestion* const> questions,
                                               std::span<const GenerateResult> answers,
                                               const std::optional<Steering>& steering,
                                               const std::string& behaviour) const;
  /// How much each multiple of a steering lowers the probability of the right answer after unsteered thinking:
  /// [multiples][questions of the certificate, then its population].
  std::vector<std::vector<double>> predicted_losses(const Steering& steering, const std::string& behaviour);
  /// Unsteered answers to the capability prompts, once.
  void measure_capability();
  CapabilityFigures figures(std::span<const GenerateResult> answers) const;
  /// Figures on the capability set, for the trials of these numbers.
  void measure_cost(std::vector<AutoSteerTrial>& trials, std::span<const std::size_t> which);
  /// The first bound a trial breaks, in words; empty if none. What was not measured (NaN) breaks none.
  std::string beyond_bounds(const AutoSteerTrial& trial) const;
  double kl_of(const Steering& steering) const;
  double behaviour_share(const Evidence& found, double posterior) const;
  /// Where steering acts in answers that think in tags: there and not on the answer itself.
  Scope generated_scope() const;
  /// The beginnings of a few unsteered answers: what effects are measured on.
  std::vector<TokenizedText> effect_texts() const;
  EffectMeter& effect_meter();
  /// Mean residual over the answers given when a behaviour was asked for, read without the request. [d_in]
  at::Tensor asked_residual(const std::string& behaviour);
  const std::vector<Answer>& unsteered();

  Model model_;
  Sae sae_;
  AutoSteerOptions options_;
  HookPoint point_;
  Session session_;
  AnswerStore store_;
  std::vector<Answer> unsteered_;                   ///< to the neutral prompts
  std::vector<GenerateResult> capability_answers_;  ///< unsteered
  CapabilityFigures capability_;                    ///< unsteered
  bool capability_known_ = false;
  std::optional<EffectMeter> effect_meter_;
  std::map<std::string, Evidence, std::less<>> evidence_;
  std::map<std::string, at::Tensor> asked_residuals_;
};

}  // namespace steer::features::detail
