#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <steer/eval/results.hpp>
#include <steer/eval/tradeoff.hpp>
#include <steer/stats/statistics.hpp>

namespace steer {

struct AnalysisOptions {
  std::string baseline = "control";  ///< every other arm is compared with it, question by question
  double level = 0.95;               ///< of every interval and bound
  double accuracy_loss = 0.02;  ///< what may be lost, as a share: the margin of every test against a loss, 2 points
  double coherence = 4;         ///< what the trade-off must keep
  std::optional<double> reference = {};  ///< accuracy hypervolume begins at; none: the baseline's - 0.1
  std::int64_t draws = 10000;            ///< of the adjustment for comparing several arms
  std::uint64_t seed = 42;
  BootstrapOptions bootstrap{.draws = 2000};  ///< of hypervolume; its seed also halves the questions
};

/// A share of rows with its interval: Wilson's, for the effective number of rows where a question has several.
struct ShareStats {
  std::int64_t hits = 0, n = 0;
  double value = 0;  ///< NaN for n = 0
  Interval interval;
  double design_effect = 1;  ///< rows that say as much as one independent row (clustered_proportion)
};

/// A mean score with its interval (clustered by question), and what it could be were the failed judgements known.
struct ScoreStats {
  Summary summary;
  Interval interval;
  std::int64_t missing = 0;    ///< failed judgements
  double worst = 0, best = 0;  ///< means with all missing scores at 1, at 5
};

/// One arm under one behaviour, or (empty name) under all.
struct ArmCell {
  std::string arm, behaviour;
  bool steered_only = false;  ///< only the rows that were steered, of an arm that steers some and not others
  std::int64_t n = 0;
  ShareStats accuracy;  ///< strict rule; a row without an answer is wrong
  ShareStats accuracy_lenient;
  ShareStats
      accuracy_given_format;  ///< of the rows with a strict answer: of other questions in every arm, so no comparison
  ShareStats
      accuracy_forced;  ///< with the letter read from answers that were cut off (score "forced_correct"), where it was
  ShareStats format;    ///< rows with a strict answer
  ShareStats truncated;
  ShareStats collapsed;  ///< by the offline screen ("collapse" >= 2); n counts rows that were screened
  std::map<std::string, ScoreStats> scores;
};

/// An arm against the baseline on one measure, over the questions both answered. Interval and p come from one rule, so
/// that the interval leaves out 0 where p < 1 - level: for accuracy Tango's score test (paired_difference,
/// clustered_paired_difference), for scores Student's t clustered by question, and bets (betting_upper_bound) where all
/// scores differ alike and the error says nothing.
struct ArmComparison {
  std::string arm, behaviour;  ///< empty behaviour: all
  std::string measure;         ///< "accuracy", "behaviour", "coherence", ...
  bool steered_only = false;   ///< as ArmCell's
  ClusteredMean difference;    ///< arm - baseline; accuracy as a share
  std::int64_t identical = 0;  ///< rows that were not steered and have the baseline's own answer: they cannot differ
  std::string test;            ///< which test gave p
  double p = 1;
  double p_holm = 1;          ///< over the behaviours of this arm and measure; p itself for "all"
  double p_simultaneous = 1;  ///< over all behaviours: adjusted for all arms of this measure (Simultaneous)
  /// Over all behaviours, where they are a sample too and not the only ones one cares for: the interval of what the arm
  /// does to behaviours and questions alike (draw_spread), on the questions that were answered under all of them. NaN
  /// for fewer than two behaviours.
  Interval over_behaviours{NAN, NAN};
  double between_behaviours = NAN;  ///< standard deviation of the behaviours' own differences, without questions' luck
  Interval simultaneous = {};       ///< intervals of all arms that cover together at `level`; over all behaviours
  double effect = 0;                ///< paired standardised difference
  double p_non_inferior = 1;        ///< accuracy only: against a loss of `accuracy_loss` or more (loss_test)
  double p_non_inferior_holm = 1;   ///< over all behaviours: adjusted for all arms
  double p_equivalent = 1;          ///< accuracy only: against a difference of `accuracy_loss` or more
  double loss_bound = 1;            ///< accuracy only: one-sided upper bound of the loss at `level`

  /// No row can differ: the arm left every one of these answers unsteered.
  bool unsteered() const { return identical > 0 && identical == difference.n; }
};

/// All that a report says, computed from results alone.
struct Analysis {
  AnalysisOptions options;
  std::vector<std::string> arms, behaviours;  ///< in order of appearance
  std::vector<ArmCell> cells;                 ///< by arm; behaviours, all, and where they differ the steered rows
  std::vector<ArmComparison> comparisons;
  std::vector<Tradeoff> tradeoffs;  ///< by behaviour, then all

  /// @throws Error(argument) for an arm or behaviour that does not occur. Empty behaviour: all.
  const ArmCell& cell(const std::string& arm, const std::string& behaviour = "") const;
  /// Nothing when the pair was not compared.
  const ArmComparison* comparison(const std::string& arm, const std::string& measure,
                                  const std::string& behaviour = "") const;
  /// The arm's steered rows over all behaviours; nothing unless it steered some rows and not others.
  const ArmCell* steered_cell(const std::string& arm) const;
  const ArmComparison* steered_comparison(const std::string& arm, const std::string& measure) const;
};

/// Cells, comparisons with the baseline (rows joined by behaviour and question id; a row that one side lacks is left
/// out of that comparison) and trade-offs. Which rule makes which interval: docs/statistics.md.
/// @throws Error(argument) for no results, a result that occurs twice, or no row of the baseline.
Analysis analyse_results(std::span<const ResultRow> results, const AnalysisOptions& options = {});

}  // namespace steer
