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
Arm auto_steer_arm(Sae sae, AutoSteerMode mode, AutoSteerOptions options);

/// The arms of both modes of one searcher: a behaviour's evidence (answers, contrasts, candidates) is gathered once.
struct AutoSteerArms {
  Arm published, safe;
};
/// The same as two calls of the above, for less. @param options  as above.
AutoSteerArms auto_steer_arms(Sae sae, AutoSteerOptions options);

/// How many questions a search looks at.
struct SearchSizes {
  std::int64_t prompts = 24;     ///< whose answers it compares
  std::int64_t checks = 64;      ///< on which it measures what a steering costs; no more than there are
  std::int64_t certificate = 0;  ///< on which the cost of what it found is then certified: see `certificate_plan`
};

/// Search options from questions that the experiment does not ask: some as neutral prompts, some as the capability set,
/// scored as the experiment scores its answers (strict rule), some for the certificate. Which question serves for what
/// follows from a hash of its id and the seed, not from its place.
/// @throws Error(argument) for fewer than 8 questions with choices beside the certificate's, sizes below 1
/// (certificate: 0), or max_tokens < 1.
AutoSteerOptions search_options(const Model& model, const std::vector<Question>& held_out, std::int64_t max_tokens,
                                std::uint64_t seed = 42, const SearchSizes& sizes = {});

}  // namespace steer
