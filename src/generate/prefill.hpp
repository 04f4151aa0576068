#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <steer/model/session.hpp>

namespace steer::generation::detail {

/// One row to be computed up to its prompt's end.
struct PrefillRow {
  std::span<const std::int64_t> ids;
  bool shareable = false;    ///< nothing edits its prompt, so a common prefix with another such row is computed once
  SequenceId sequence = -1;  ///< out: holds the prompt
  at::Tensor logits;         ///< out: [vocab], after the last prompt token
};

/// Told of each sequence when it comes to hold tokens of a row, before they are computed.
using OnSequence = std::function<void(std::size_t row, SequenceId sequence)>;

/// Computes all rows' prompts. Shareable rows form a trie: a prefix that several have in common is computed once and
/// forked; each level of the trie is one step over all its nodes.
/// @param on_sequence  called for the sequence a row ends up with (never for a shared prefix).
void prefill(Session& session, std::span<PrefillRow> rows, const OnSequence& on_sequence);

}  // namespace steer::generation::detail
