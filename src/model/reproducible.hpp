#pragma once

#include <steer/model/model.hpp>
#include <steer/model/session.hpp>

namespace steer::model::detail {

/// Options of a session whose rows are compared with each other, or with those of a run that was resumed in other
/// batches: their bits do not depend on the batch where that is cheap. On a GPU it takes a product for each sequence.
inline SessionOptions reproducible(const Model& model) { return {.batch_invariant = model.device().is_cpu()}; }

}  // namespace steer::model::detail
