#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <steer/model/session.hpp>

namespace steer {

/// How far two sessions lie apart at one point of one pass.
struct PointComparison {
  std::string name;                            ///< of the hook point, or "logits"
  std::int64_t position = 0;                   ///< of the pass's first token
  double largest = 0;                          ///< max |tested - reference|; NaN if either is
  double scale = 0;                            ///< max |reference|
  std::int64_t at_position = 0, at_index = 0;  ///< where `largest` is: the token, and the place in its row

  /// `largest` as a share of `scale`.
  double relative() const;
};

struct BackendComparison {
  std::vector<PointComparison> points;  ///< in the order of computation, pass after pass
  double tolerance = 0;

  /// The first point that differs by more than `tolerance` of its scale; null if none does.
  const PointComparison* first_difference() const;
  /// For people: the first difference with the points around it, or that there is none and the largest.
  std::string text() const;
};

struct CompareOptions {
  double tolerance = 1e-4;   ///< of the largest reference value at the point
  std::int64_t decoded = 2;  ///< this many of the last tokens come one by one, through the cache
  /// Gives every layer the reference's input, so that a layer's difference is its own and not what came before it.
  bool layers_alone = false;
};

/// Runs the same tokens through two sessions and compares every hook point: how a new family, kernel or device is
/// proved, and where a wrong one goes wrong is seen. Compares our kernels with libtorch's operators, for example:
///
///     Session tested(model), reference(model, {.backend = BackendKind::aten});
///     fmt::print("{}", compare_backends(tested, reference, ids).text());
///
/// Models may differ in device, weight format or file, not in configuration. Patterns of attention are compared too.
/// @param ids  a prompt, at most `prompt_chunk` tokens of either session.
/// @throws Error(argument) for models of another shape, for one session given twice, for no tokens.
BackendComparison compare_backends(Session& tested, Session& reference, std::span<const std::int64_t> ids,
                                   const CompareOptions& options = {});

}  // namespace steer
