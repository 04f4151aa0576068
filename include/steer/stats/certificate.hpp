#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <steer/core/enum.hpp>

namespace steer {

// How strong may a steering be before it costs more than it may? Strengths are tested from the weakest up on questions
// that no search has seen, each at the full level, until one fails: whatever was passed before is certified, and the
// chance that any certified strength costs more than allowed is below 1 - level (fixed-sequence testing as in Learn
// then Test, Angelopoulos et al. 2021, arXiv 2110.01052). No model is needed here: losses come from a function.

/// How a loss is bounded.
enum class LossBound {
  exact,    ///< losses of -1, 0 or 1: the number of lost questions is binomial; gains are not set against them
  betting,  ///< any losses up to 1, gains count, and a test may stop as soon as it has seen enough: BettingTest
};

template <>
struct EnumTable<LossBound> {
  static constexpr std::string_view name = "loss bound";
  static constexpr EnumEntry<LossBound> entries[] = {{LossBound::exact, "exact"}, {LossBound::betting, "betting"}};
};

/// What must not be lost, and how much of it may be. A question's loss is what the unsteered answer had of it less what
/// the steered one has: 1 for a right answer turned wrong, -1 for the opposite, a difference of probabilities, or a
/// mean of several draws.
struct Risk {
  std::string name = "accuracy";  ///< in the sentence
  double margin = 0.02;           ///< mean loss that is too much, as a share: 2 points
  LossBound bound = LossBound::betting;
  double highest = 1;  ///< no loss exceeds it (betting); with a control variate: what `adjust_losses` says
};

struct CertificateOptions {
  std::vector<Risk> risks = {Risk{}};  ///< all must hold at a strength: no correction is needed for several
  double level = 0.95;
  std::int64_t questions = 0;   ///< that may be asked a strength
  std::int64_t batch = 16;      ///< asked at once; a test may stop between batches
  std::string conditions = {};  ///< what the certificate is of, e.g. "512 tokens, the study's prompt"
};

/// Losses at strength `strength` (its index) of questions [first, first + count): [count][risks].
using AskLosses =
    std::function<std::vector<std::vector<double>>(std::size_t strength, std::int64_t first, std::int64_t count)>;

/// What was found of one risk at one strength.
struct RiskEvidence {
  double mean_loss = 0;
  std::int64_t lost = 0, gained = 0;  ///< questions with a loss above 0, below 0
  double p = 1;                       ///< of "the loss is the margin or more"
  double upper = 1;                   ///< upper bound of the loss at this strength alone, at `level`, of what was asked
};

struct StrengthEvidence {
  double strength = 0;
  std::int64_t asked = 0;
  bool passed = false;
  std::vector<RiskEvidence> risks;
};

struct Certificate {
  CertificateOptions options;
  std::vector<StrengthEvidence> tested;  ///< from the weakest up to the first that failed
  std::int64_t certified = -1;           ///< index of the strongest certified strength; -1: none
  double strength = 0;                   ///< that strength; 0 for none

  /// "Strength 4: accuracy loss at most 2 points with 95 % confidence on questions like these (171 asked, 0 lost); ..."
  /// or "Nothing certified with 64 questions: ...; the smallest bound reached is 4.6 points."
  std::string sentence() const;
};

/// @param strengths  rising; the order is that of the tests and must not depend on the losses.
/// @throws Error(argument) for no or not rising strengths, no risks, questions or batch below 1, a margin outside
///         (0, highest), a loss above `highest` or, with an exact bound, other than -1, 0 and 1; Error(shape) for
///         losses of another size than asked; whatever `losses` throws.
Certificate certify(std::span<const double> strengths, const AskLosses& losses, const CertificateOptions& options);

// Before anything is asked --------------------------------------------------------------------------------------------

/// The loss that n questions of which `lost` were lost certify by the exact bound: 64 with none, 4.6 points; 171, 1.7;
/// 500 with four lost, 1.8. @throws Error(argument) unless 0 <= lost <= n and 0 < level < 1.
double certifiable_loss(std::int64_t n, std::int64_t lost, double level = 0.95);
/// The fewest questions that certify a loss below `margin` when `lost` of them are lost: 149 for 2 points and none
/// lost.
/// @throws Error(argument) unless lost >= 0, 0 < margin < 1 and 0 < level < 1.
std::int64_t questions_to_certify(double margin, std::int64_t lost, double level = 0.95);
/// The chance that n questions certify `margin` by the exact bound where the share really lost is `true_loss`.
/// @throws Error(argument) for shares outside [0, 1].
double certificate_power(std::int64_t n, double margin, double true_loss, double level = 0.95);
/// The three in words: what n questions can certify with 0, 1, 2, 4 lost, and how many are needed for `margin`.
std::string certificate_plan(std::int64_t n, double margin, double level = 0.95);

// A control variate ---------------------------------------------------------------------------------------------------

struct AdjustedLosses {
  std::vector<double> losses;
  double highest = 1;  ///< for Risk::highest
};

/// Takes from each loss what a cheap prediction of it (a teacher-forced change of p(gold)), known of all questions of
/// the population, says of the luck of the draw: x - weight (z - mean of all z). The mean does not move; the variance
/// falls where they go together. `weight` must be fixed beforehand.
/// @param predicted  of the questions asked; `everywhere`: of all questions, those asked included.
/// @throws Error(shape) if losses and predictions differ in length, Error(argument) for a weight outside [0, 1], values
///         not finite, or no population.
AdjustedLosses adjust_losses(std::span<const double> losses, std::span<const double> predicted,
                             std::span<const double> everywhere, double weight);

}  // namespace steer
