#pragma once
// The merges of sentencepiece's BPE: it joins the neighbours whose joined piece has the highest score.

#include <span>

#include "text/bpe.hpp"

namespace steer::text::detail {

/// Every way to cut a piece in two is a merge, ranked by the piece's score. @param scores  finite, one a piece.
/// Call before `Bpe::finish`.
void add_score_merges(const Vocabulary& vocabulary, std::span<const float> scores, Bpe& out);

}  // namespace steer::text::detail
