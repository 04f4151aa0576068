#pragma once

#include <functional>
#include <optional>
#include <vector>

#include <steer/eval/judge.hpp>

#include "eval/run/records.hpp"
#include "eval/run/stage.hpp"

namespace steer::eval::detail {

/// A judge with a memory: what it said of a text is kept by a stage of the run, so that a run that goes on does not ask
/// again. Equal requests are asked once.
class KeptJudge : public Judge {
 public:
  /// Runs the stage, whose name and batch are the caller's to set.
  using Keep = std::function<std::vector<std::optional<Verdicts>>(Stage<Verdicts>)>;

  KeptJudge(Judge& judge, Keep keep) : judge_(judge), keep_(std::move(keep)) {}
  std::string identity() const override { return judge_.identity(); }
  std::string measure(Rubric rubric) const override { return judge_.measure(rubric); }
  std::vector<Judgement> judge(Rubric rubric, std::span<const JudgeRequest> requests) override;

 private:
  Judge& judge_;
  Keep keep_;
};

}  // namespace steer::eval::detail
