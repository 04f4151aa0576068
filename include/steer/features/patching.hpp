#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <steer/core/progress.hpp>
#include <steer/model/session.hpp>

namespace steer {

/// What a run is worth, from the logits [vocab], f32, after its last token: a logit difference, say.
using PatchMetric = std::function<double(const at::Tensor& logits)>;

struct PatchOptions {
  std::vector<std::int64_t> layers{};     ///< rows of the result; empty: all
  std::vector<std::int64_t> positions{};  ///< columns of the result; empty: all
  std::int64_t rows = 16;                 ///< runs computed in one pass
  Progress progress{};                    ///< counts runs
};

/// What `patch_sweep` found.
struct PatchSweep {
  std::vector<std::int64_t> layers, positions;
  at::Tensor metric;   ///< [layers, positions], f64: with that one activation taken from the clean run
  double clean = 0;    ///< metric of the clean run
  double corrupt = 0;  ///< metric of the corrupt run
  /// (metric - corrupt) / (clean - corrupt), [layers, positions], f64: 0 restores nothing, 1 everything.
  /// @throws Error(argument) where clean and corrupt have one metric, so that there is nothing to restore.
  at::Tensor restored() const;
};

/// Activation patching, also called causal tracing (Vig et al. 2020, arXiv:2004.12265; Meng et al. 2022,
/// arXiv:2202.05262): runs `corrupt` once for each layer and position with the activation at `site` there replaced by
/// that of `clean`, and says what this does to the metric. Layers below the patched one are computed once.
/// Hooks and steering of the session apply to all runs. For one bit-exact result whatever `rows` is, open the session
/// with `batch_invariant`.
/// @param site  of every layer; not `embed`, `ln_final` or `attn_pattern`, which are no site of a token in a layer
/// @param clean, corrupt  prompts of the same number of tokens
/// @throws Error(argument) for prompts of different lengths or none, a site, layer or position that is not there, or a
///         metric that is not finite.
PatchSweep patch_sweep(Session& session, Site site, std::span<const std::int64_t> clean,
                       std::span<const std::int64_t> corrupt, const PatchMetric& metric,
                       const PatchOptions& options = {});

}  // namespace steer
