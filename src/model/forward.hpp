#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <steer/model/hooks.hpp>

#include "model/backend.hpp"
#include "model/hook_table.hpp"

namespace steer::model::detail {

/// Which rows of the last layer's output become logits.
struct LogitRows {
  bool all = false;
  std::vector<std::int64_t> rows;  ///< in order, each once
};

/// The passes of one session: what a layer is, in terms of a backend and of hooks.
class Forward {
 public:
  Forward(const Transformer& model, HookTable& hooks, KvCache& cache, const SessionOptions& options);

  /// One pass of a flat batch through layers [first, last).
  /// @param sequences  of each run; layers' caches are filled, `filled` is left to the caller.
  /// @param residual   input of layer `first` if that is not 0. The caller's tensor is not written to.
  /// @return logits [rows, vocab], or undefined without rows or when `last` is not the model's last layer.
  at::Tensor run(const BatchView& batch, std::span<SequenceCache* const> sequences, std::int64_t first,
                 std::int64_t last, const at::Tensor& residual, const LogitRows& wanted, const Replay& replay);
  /// Whether passes of single tokens may be recorded.
  bool records() const { return kernels_ && kernels_->records(); }

 private:
  at::Tensor layers(const BatchView& batch, Rows rows, std::int64_t first, std::int64_t last,
                    const at::Tensor& residual, const LogitRows& wanted);
  at::Tensor replayed(const BatchView& batch, std::span<SequenceCache* const> sequences, const Replay& replay);
  void layer(std::int64_t layer, at::Tensor& resid, const LogitRows* only);
  at::Tensor attention(std::int64_t layer, at::Tensor& resid, const LogitRows* only);
  at::Tensor attend(std::int64_t layer, const at::Tensor& q);
  at::Tensor delta_net(std::int64_t layer, at::Tensor& resid, const LogitRows* only);
  at::Tensor experts(std::int64_t layer, const at::Tensor& x);
  at::Tensor dense(const at::Tensor& x, const MlpWeights& weights);
  at::Tensor finished(at::Tensor out, const Norm& post, Site site, std::int64_t layer);
  at::Tensor query_growth() const;
  at::Tensor mlp(std::int64_t layer, at::Tensor& resid);
  at::Tensor logits(const at::Tensor& resid, const LogitRows& wanted);
  at::Tensor summed(const at::Tensor& part) const;
  void norm_heads(at::Tensor& x, const Norm& norm, Site site);
  std::int64_t hooks_on_parts(std::int64_t first, std::int64_t last) const;
  at::Tensor norm(at::Tensor& x, const Norm& norm, Site site, std::int64_t layer);
  void settle(at::Tensor& resid);
  void hook_resid(Site site, std::int64_t layer, at::Tensor& resid);
  at::Tensor linear(const at::Tensor& x, const Linear& weight);

  bool only_some_rows_matter(std::int64_t layer, const LogitRows& wanted) const;
  void narrow_to(const LogitRows& wanted);
  at::Tensor narrow(const at::Tensor& x) const;

  void hook(Site site, std::int64_t layer, at::Tensor& value) {
    if (hooks_.any(site, layer)) [[unlikely]]
      fire(site, layer, value, *batch_);
  }
  void fire(Site site, std::int64_t layer, at::Tensor& value, const BatchView& batch);
  void follow_gradient(const at::Tensor& value);

  const Transformer& model_;
  const ModelConfig& config_;
  HookTable& hooks_;
  RopeTables ropes_;
  AtenBackend aten_;
  std::unique_ptr<Backend> kernels_;  ///< may be none

  // Of the pass that runs.
  Backend* ops_ = nullptr;
  const BatchView* batch_ = nullptr;
  Rows all_, some_;             ///< `some_`: the wanted rows, each as a run of its own
  const Rows* rows_ = nullptr;  ///< one of them: what goes on
  std::vector<TokenRun> some_runs_;
  std::vector<SequenceCache*> some_sequences_;
  at::Tensor some_index_;           ///< of `some_` within `all_`
  const Replay* replay_ = nullptr;  ///< not null: the pass is recorded
  at::Tensor pending_;  ///< to be added to the stream: by the next norm, or before who looks at the stream earlier
};

}  // namespace steer::model::detail
