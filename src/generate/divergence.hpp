#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <steer/generate/engine.hpp>
#include <steer/generate/score.hpp>

namespace steer::generation::detail {

/// `divergence_from_unsteered` of one steering after another on the same texts: the unsteered half is computed once
/// (where its logits take no more than 512 MB), and prompts that no steering touches are too.
class DivergenceMeter {
 public:
  /// @param texts  their own steerings do not count. @throws as `divergence_from_unsteered`.
  DivergenceMeter(const Model& model, std::vector<ScoreRequest> texts);

  /// One result a text. @throws as `divergence_from_unsteered`; the meter goes on.
  std::vector<TextDivergence> of(const Steering& steering);

 private:
  /// Logits that predict this token of the text's tail.
  std::span<float> row_of(std::size_t text, std::size_t place);

  std::vector<ScoreRequest> texts_;
  std::int64_t vocabulary_;
  Engine engine_;
  std::vector<std::vector<float>> unsteered_;  ///< of each text [tail, vocab]; empty: too much to keep
};

}  // namespace steer::generation::detail
