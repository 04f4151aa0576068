#pragma once
// What a run's report says besides its numbers: its arms and settings, and what a reader must know of both.

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <steer/eval/experiment.hpp>

namespace steer::eval::detail {

struct RunFacts {
  const Experiment& experiment;
  const ExperimentOptions& options;
  nlohmann::ordered_json identity;                                              ///< see `run_identity`
  std::map<std::pair<std::string, std::string>, FoundSteering> steerings = {};  ///< applied, by arm and behaviour
  std::vector<std::string> warnings = {};                                       ///< of the steerings
  std::set<std::filesystem::path> journals = {};                                ///< whose records were used
  double position = 0;          ///< mean preference of the pair judge for what is shown first
  std::int64_t unanswered = 0;  ///< rows that the judge could not be asked about
};

/// Whether an arm stands for another one's disturbance.
bool is_placebo(const Arm& arm);

/// Fills in all of a report but its results and their analysis.
void describe_run(const RunFacts& run, Report& report);

/// An arm that was steered and changed nothing anywhere is a mistake, not a result.
/// @throws Error(config) naming it.
void require_fired(const Experiment& experiment, const std::vector<ResultRow>& rows);

}  // namespace steer::eval::detail
