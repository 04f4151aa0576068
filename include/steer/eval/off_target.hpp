#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <steer/eval/judge.hpp>
#include <steer/eval/results.hpp>
#include <steer/stats/statistics.hpp>

namespace steer {

/// Which behaviours an arm's answers show, beside the one that was asked for.
struct OffTarget {
  std::string arm;
  std::vector<std::string> behaviours;
  /// [asked][shown]: the arm's score minus the baseline's on the same questions; the diagonal is what was wanted.
  std::vector<std::vector<ClusteredMean>> rise;

  /// The table in Markdown: means, and a star where the interval excludes 0 after Bonferroni over the table.
  std::string markdown() const;
};

struct OffTargetOptions {
  std::string baseline = "control";
  std::int64_t questions = 20;  ///< of each behaviour, at most, by draw
  std::uint64_t seed = 42;
};

/// Judges answers that were asked (or steered) for one behaviour for all the others as well, and the baseline's answers
/// to the same questions too. Rule-checked behaviours are left out. Costs arms x behaviours^2 x questions judgements.
/// @param prompts  of the questions, by id. @throws Error(argument) for a question that is not given; whatever the
///                 judge throws.
std::vector<OffTarget> off_target(std::span<const ResultRow> results, const std::map<std::string, std::string>& prompts,
                                  const std::vector<Behaviour>& behaviours, Judge& judge,
                                  const OffTargetOptions& options = {});

}  // namespace steer
