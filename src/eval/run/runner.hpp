#pragma once
// A run, stage by stage. Its functions are in experiment.cpp (the order of the stages, and the answers),
// runner_steerings.cpp (what the arms steer with) and runner_verdicts.cpp (what judges say of the answers).

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <steer/eval/experiment.hpp>

#include "eval/run/describe_run.hpp"
#include "eval/run/identity.hpp"
#include "eval/run/records.hpp"
#include "eval/run/stage.hpp"

namespace steer::eval::detail {

using Indices = std::span<const std::size_t>;

class Runner {
 public:
  /// @param model, experiment, options  must outlive it.
  Runner(const Experiment& experiment, const Model& model, const ExperimentOptions& options);
  /// All stages, once.
  Report run();

 private:
  /// An arm, or a source of steerings, and a behaviour.
  using Pair = std::pair<std::string, std::string>;

  template <class Record>
  std::vector<std::optional<Record>> run(const Stage<Record>& stage) {
    return run_stage(stage, {.journal = options_.journal,
                             .identity = one_line(run_.identity),
                             .team = team_.get(),
                             .stop = options_.stop,
                             .used = &run_.journals,
                             .progress = options_.progress});
  }

  void find_steerings();
  const FoundSteering& found(const Arm& arm, const Behaviour& behaviour) const {
    return found_.at({arm.source->name, behaviour.name});
  }
  void check_steerings();
  PlaceboMatch match(const Arm& arm, const Behaviour& behaviour) const;
  void apply_steerings();

  void take_answers();

  void check_rules();
  std::vector<Made<Verdicts>> judge(std::span<const JudgeRequest> requests);
  void judge();
  void compare();
  void judge_off_target();

  const Experiment& experiment_;
  const Model& model_;
  const ExperimentOptions& options_;
  RunFacts run_;
  std::vector<OffTarget> off_target_;
  std::unique_ptr<Team> team_;
  std::map<Pair, FoundSteering> found_;  // by source and behaviour
  std::vector<ResultRow> rows_;
};

}  // namespace steer::eval::detail
