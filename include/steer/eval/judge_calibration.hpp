#pragma once

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <steer/eval/judge.hpp>
#include <steer/eval/results.hpp>
#include <steer/stats/statistics.hpp>

namespace steer {

/// An arm against the baseline, as the reference and as the judge see it, on the same rows.
struct JudgedContrast {
  std::string arm;
  ClusteredMean reference, judge;  ///< arm - baseline, paired by question and behaviour
  /// Whether the judge says the opposite of a reference that is sure (its interval excludes 0).
  bool wrong_sign() const;
};

/// How a judge agrees with reference scores of one measure.
struct JudgeAgreement {
  std::int64_t rows = 0, failed = 0;
  double spearman = 0;                                             ///< over rows
  double weighted_kappa = 0;                                       ///< quadratic, scores rounded
  Interval spearman_interval{NAN, NAN}, kappa_interval{NAN, NAN};  ///< 95 %, bootstrap of whole questions
  std::vector<JudgedContrast> contrasts;
  /// Why no verdict may rest on this judge's scores of this measure; empty when one may. Spearman below 0.6, or a
  /// contrast of the wrong sign.
  std::string unusable() const;
};

/// A judge against reference scores of the same texts.
struct JudgeCalibration {
  std::string judge;                                ///< its identity
  std::string reference;                            ///< whose scores, in words
  std::map<std::string, JudgeAgreement> agreement;  ///< by measure: "behaviour", "coherence"

  /// A table for people.
  std::string describe() const;
  /// @throws Error(io).
  void save(const std::filesystem::path& json) const;
  /// @throws Error(io | format).
  static JudgeCalibration load(const std::filesystem::path& json);
};

/// Lets a judge score rows that have reference scores "behaviour" and "coherence", blind to them.
/// @param prompts   of the rows' questions, by id.
/// @param baseline  of the contrasts.
/// @throws Error(argument) for a question or behaviour that is not given, or no row with a reference; whatever the
///         judge throws.
JudgeCalibration calibrate_judge(std::span<const ResultRow> rows, const std::map<std::string, std::string>& prompts,
                                 const std::vector<Behaviour>& behaviours, Judge& judge, std::string reference,
                                 const std::string& baseline = "control");

}  // namespace steer
