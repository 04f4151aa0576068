#pragma once

#include <cstdint>
#include <vector>

#include <steer/eval/arm.hpp>
#include <steer/eval/questions.hpp>
#include <steer/features/auto_steer.hpp>

namespace steer {

/// An arm whose steerings Auto Steer finds, one search a behaviour (by its name). Searches are journalled, and shared
/// by all arms made from this one.
/// @param options  prompts and capability set must be disjoint from the experiment's questions: see `search_options`.
Arm auto_steer(Sae sae, AutoSteerMode mode, AutoSteerOptions options);

/// The arms of both modes of one searcher: a behaviour's evidence (answers, contrasts, candidates) is gathered once.
struct AutoSteerArms {
  Arm published, safe;
};
/// The same as two calls of the above, for less. @param options  as above.
AutoSteerArms auto_steer(Sae sae, AutoSteerOptions options);

/// Search options from questions that the experiment does not ask: some as neutral prompts, the others as the
/// capability set, scored as the experiment scores its answers (strict rule).
/// @throws Error(argument) for fewer than 8 questions with choices, or max_tokens < 1.
AutoSteerOptions search_options(const Model& model, const std::vector<Question>& held_out, std::int64_t max_tokens,
                                std::uint64_t seed = 42);

}  // namespace steer
