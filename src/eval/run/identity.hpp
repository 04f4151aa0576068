#pragma once
// What a run's results depend on: journals and reports identify it by this.

#include <nlohmann/json_fwd.hpp>

#include <steer/eval/experiment.hpp>

namespace steer::eval::detail {

nlohmann::ordered_json arm_identity(const Arm& arm);
nlohmann::ordered_json run_identity(const Experiment& experiment, const Model& model, const Judge* judge,
                                    const PairJudge* pairs);

}  // namespace steer::eval::detail
