#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include <steer/model/hooks.hpp>

#include "model/cpu_ops.hpp"
#include "model/hook_table.hpp"
#include "model/kv_cache.hpp"
#include "model/transformer.hpp"

namespace steer::model::detail {

/// Cosines and sines of the positions met so far, one table for each rope of the model.
class RopeTables {
 public:
  explicit RopeTables(const Transformer& model) : model_(&model), tables_(model.inv_freq.size()) {}
  struct Rows {
    at::Tensor cos, sin;  ///< [tokens, rotary_dims / 2], f32, on the model's device
  };
  /// The rows of the runs' positions, one entry for each rope.
  std::vector<Rows> rows(std::span<const TokenRun> runs);

 private:
  struct Table {
    std::vector<float> cos, sin;
    std::int64_t positions = 0;
  };
  void grow(std::size_t rope, std::int64_t positions);

  const Transformer* model_;
  std::vector<Table> tables_;
};

/// Buffers of one pass on the CPU, kept between passes of the same number of tokens. Undefined on other devices, where
/// every operator makes its own output.
struct Workspace {
  std::int64_t tokens = -1;
  at::Tensor normed, q, k, v, z, attn_out, gate, up, mlp_out;
  void prepare(const Transformer& model, std::int64_t count);
};

/// Which rows of the last layer's output become logits.
struct LogitRows {
  bool all = false;
  std::vector<std::int64_t> rows;
};

/// One pass of a flat batch through layers [first, last).
class ForwardPass {
 public:
  ForwardPass(const Transformer& model, HookTable& hooks, KvCache& cache, RopeTables& ropes, Workspace& workspace,
              bool batch_invariant);

  /// @param states    of each run's sequence; layers' caches are filled, `filled` is left to the caller.
  /// @param residual  input of layer `first` if that is not 0. The caller's tensor is not written to.
  /// @return logits [rows, vocab], or undefined without rows or when `last` is not the model's last layer.
  at::Tensor run(const BatchView& batch, std::span<SequenceCache* const> states, std::int64_t first, std::int64_t last,
                 const at::Tensor& residual, const LogitRows& logits);

 private:
  void hook(Site site, std::int64_t layer, at::Tensor& value);
  void hook(Site site, std::int64_t layer, at::Tensor& value, const BatchView& batch);
  void normalise_hooked(at::Tensor& out, const at::Tensor& x, const Norm& norm, Site site, std::int64_t layer);
  void project(at::Tensor& y, const at::Tensor& x, const Linear& weight) const;
  at::Tensor by_itself(const at::Tensor& x, const Linear& weight) const;
  at::Tensor embed();
  at::Tensor attention(std::int64_t layer, const at::Tensor& resid);
  at::Tensor mlp(std::int64_t layer, const at::Tensor& resid);
  at::Tensor attend_plain(std::int64_t layer, const at::Tensor& q);
  /// Of consecutive queries of one run over its cache. @param position  of the first query.
  cpu::AttentionArgs attention_args(std::int64_t layer, std::size_t run, const float* q, float* z, std::int64_t queries,
                                    std::int64_t position) const;
  at::Tensor attend_by_operators(std::int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);
  at::Tensor logits(const at::Tensor& resid, const LogitRows& rows);
  bool only_some_rows_matter(const at::Tensor& resid, const LogitRows& rows) const;
  at::Tensor last_layer(const at::Tensor& resid, const LogitRows& rows);

  const Transformer& model_;
  const ModelConfig& config_;
  HookTable& hooks_;
  KvCache& cache_;
  RopeTables& rope_tables_;
  Workspace& work_;
  bool batch_invariant_;
  bool tainted_ = false;  ///< a gradient entered: buffers may be part of its graph
  const BatchView* batch_ = nullptr;
  std::span<SequenceCache* const> states_;
  std::vector<RopeTables::Rows> ropes_;
};

}  // namespace steer::model::detail
