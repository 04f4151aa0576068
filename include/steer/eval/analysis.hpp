#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <steer/eval/results.hpp>
#include <steer/eval/tradeoff.hpp>
#include <steer/stats/statistics.hpp>

namespace steer {

struct AnalysisOptions {
  std::string baseline = "control";  ///< every other arm is compared with it, question by question
  double level = 0.95;
  double margin = 0.02;  ///< of non-inferiority and equivalence in accuracy, as a share: 2 points
  std::int64_t permutations = 10000;
  std::uint64_t seed = 42;
  TradeoffOptions tradeoff = {};
};

/// A share of rows with its interval: Wilson's for one behaviour, clustered by question over all.
struct Share {
  std::int64_t hits = 0, n = 0;
  double value = 0;  ///< NaN for n = 0
  Interval interval;
};

/// A mean score with its interval (clustered by question), and what it could be were the failed judgements known.
struct ScoreStats {
  Summary summary;
  Interval interval;
  std::int64_t missing = 0;    ///< failed judgements
  double worst = 0, best = 0;  ///< means with all missing scores at 1, at 5
};

/// One arm under one behaviour, or (empty name) under all.
struct Cell {
  std::string arm, behaviour;
  std::int64_t n = 0;
  Share accuracy;  ///< strict rule; a row without an answer is wrong
  Share accuracy_lenient;
  Share accuracy_given_format;  ///< of the rows with a strict answer
  Share format;                 ///< rows with a strict answer
  Share truncated;
  Share collapsed;  ///< by the offline screen ("collapse" >= 2); n counts rows that were screened
  std::map<std::string, ScoreStats> scores;
};

/// An arm against the baseline on one measure, over the questions both answered.
struct Comparison {
  std::string arm, behaviour;  ///< empty behaviour: all
  std::string measure;         ///< "accuracy", "behaviour", "coherence", ...
  ClusteredMean difference;    ///< arm - baseline; accuracy as a share
  std::string test;            ///< which test gave p
  double p = 1;
  double p_holm = 1;          ///< over the behaviours of this arm and measure; p itself for "all"
  double effect = 0;          ///< paired standardised difference
  double p_non_inferior = 1;  ///< accuracy only: against a loss of `margin` or more
  double p_equivalent = 1;    ///< accuracy only: against a difference of `margin` or more
};

/// All that a report says, computed from results alone.
struct Analysis {
  AnalysisOptions options;
  std::vector<std::string> arms, behaviours;  ///< in order of appearance
  std::vector<Cell> cells;                    ///< by arm; behaviours, then all
  std::vector<Comparison> comparisons;
  std::vector<Tradeoff> tradeoffs;  ///< by behaviour, then all

  /// @throws Error(argument) for an arm or behaviour that does not occur. Empty behaviour: all.
  const Cell& cell(const std::string& arm, const std::string& behaviour = "") const;
  /// Nothing when the pair was not compared.
  const Comparison* comparison(const std::string& arm, const std::string& measure,
                               const std::string& behaviour = "") const;
};

/// Per behaviour: exact McNemar for accuracy, Wilcoxon's signed ranks for scores, Holm over the behaviours. Over all
/// behaviours: sign permutation of whole questions, since rows of one question are alike. Rows are joined by behaviour
/// and question id; a row that one side lacks is left out of that comparison.
/// @throws Error(argument) for no results, a result that occurs twice, or no row of the baseline.
Analysis analyse(std::span<const Result> results, const AnalysisOptions& options = {});

}  // namespace steer
