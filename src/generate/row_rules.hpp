#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <steer/generate/generate.hpp>

namespace steer::generation::detail {

/// Whether a steering may act on, or remember, a prompt token: then the row computes its whole prompt itself.
bool looks_at_prompt(const Steering& steering);

/// Whether what a steering does to a prompt's beginning depends on where the prompt ends: then another prompt that
/// begins alike needs a computation of its own.
bool counts_from_prompt_end(const Steering& steering);

/// The tokens that end a row: the model's own, its chat format's end of turn, and what the caller adds.
std::set<std::int64_t> stop_ids(const Model& model, std::span<const std::int64_t> more);

/// What one row is to be made of.
struct RowSettings {
  std::span<const std::int64_t> ids, given;
  const SamplingOptions& sampling;
  std::int64_t max_tokens, min_tokens, top;
  std::span<const std::string> stop;
};

/// @throws Error(argument) for an empty prompt, ids outside the vocabulary or options out of range; Error(shape) for a
///         prompt that leaves the context no room; Error(config) for stop strings without a tokenizer.
void check_row(const Model& model, const RowSettings& row, std::string_view name, std::string_view where);

}  // namespace steer::generation::detail
