#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <steer/model/session.hpp>

namespace steer::generation::detail {

/// One row to be computed up to its prompt's end.
struct PrefillRow {
  std::span<const std::int64_t> ids;
  InterventionPtr steering{};  ///< from the row's first own token on
  bool shareable = false;      ///< nothing edits its prompt, so a common prefix with another such row is computed once
  SequenceId after = -1;       ///< the tokens follow what this sequence holds; -1: a sequence of their own
  SequenceId sequence = -1;    ///< out: holds the prompt
  at::Tensor logits;           ///< out: [vocab], after the last prompt token
};

/// Computes all rows' prompts. Shareable rows form a trie: a prefix that several have in common is computed once and
/// forked; each level of the trie is one step over all its nodes.
void prefill(Session& session, std::span<PrefillRow> rows);

}  // namespace steer::generation::detail
