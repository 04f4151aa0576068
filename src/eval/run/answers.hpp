#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include <steer/eval/experiment.hpp>
#include <steer/eval/results.hpp>

namespace steer::eval::detail {

/// One answer to take: an arm's to a question. `behaviour` is null where it makes no difference.
struct Task {
  const Arm* arm = nullptr;
  const Behaviour* behaviour = nullptr;
  const Question* question = nullptr;
  Steering steering = {};
};

/// Takes answers; results have arm, behaviour ("" for null) and question filled in, judged scores not.
/// @param stop  asked at every token; true gives these answers up. @throws Error(cancelled) then.
std::vector<ResultRow> take_answers(const Experiment& experiment, const Model& model, std::span<const Task> tasks,
                                    std::int64_t batch, const std::function<bool()>& stop = {});

/// The same by letter likelihoods: no response, scores "p_gold" (probability of the right letter among the letters).
std::vector<ResultRow> take_letters(const Model& model, std::span<const Task> tasks);

/// Ids of a task's prompt.
std::vector<std::int64_t> prompt_of(const Model& model, const Task& task, AnswerMode mode);

}  // namespace steer::eval::detail
