#pragma once
// What a pass over a model computes with. `Forward` says in which order; a backend says how, on which device, and in
// which order the additions of a sum are done.
//
//   Cpu    our kernels on raw f32 memory
//   Cuda   our kernels on the card (model/cuda)
//   Aten   libtorch's operators: any device, and gradients. Slow and plainly right: what the others are compared with
//
// A kind of layer that needs something new gets one function here, and in Aten its definition.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include <steer/model/hooks.hpp>

#include "model/delta_net.hpp"
#include "model/kv_cache.hpp"
#include "model/recorded_pass.hpp"
#include "model/rope.hpp"
#include "model/transformer.hpp"

namespace steer::model::detail {

/// The rows of the tensors that a function works on: in order, runs of one sequence each.
struct Rows {
  std::span<const TokenRun> runs;
  std::span<SequenceCache* const> sequences;  ///< of each run
  std::vector<RopeTables::Rows> ropes;        ///< of each rope of the model
};

/// One of several products of the same x.
struct Product {
  const Linear* weight;
  at::Tensor* y;  ///< is assigned [rows, out]
};

/// A pass through all layers over a batch, each token of it to its logits.
using WholePass = std::function<at::Tensor(const BatchView& batch, const Rows& rows)>;

/// Tensors are f32 and [rows, width], on the model's device. An argument `at::Tensor&` is written to or replaced. With
/// `batch_invariant` a row's result depends on nothing but that row, and in attention on its own sequence.
class Backend {
 public:
  Backend(const Transformer& model, KvCache& cache, bool batch_invariant)
      : model_(model), cache_(cache), batch_invariant_(batch_invariant) {}
  virtual ~Backend() = default;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;

  /// Before a pass of so many tokens, through layers before `last`.
  virtual void begin(std::int64_t tokens, std::int64_t last) = 0;
  /// Forgets buffers: what was computed so far may be part of a gradient's graph.
  virtual void release() = 0;
  /// Whether passes of single tokens are recorded and done again.
  virtual bool records() const { return false; }
  /// Where it `records`: does a pass of single tokens from a recording, if it makes them of so many. `begin` comes
  /// before.
  /// @param pass  what is recorded. The batch it is given may have rows behind the step's own, which nobody asked for.
  /// @return logits [tokens, vocab], a new tensor; undefined: nothing was done.
  virtual at::Tensor replay(const BatchView& batch, std::span<SequenceCache* const> sequences, RopeTables& ropes,
                            PassEdits* edits, const WholePass& pass);

  /// Token embeddings, scaled, and learned positions.
  virtual at::Tensor embed(const BatchView& batch);

  /// The normalised rows, times the gain and plus the bias when `with_gain`.
  virtual at::Tensor norm(const at::Tensor& x, const Norm& norm, bool with_gain) = 0;
  /// What `norm` leaves to do after a hook saw the normalised rows.
  virtual void gain(at::Tensor& x, const Norm& norm) = 0;
  /// The norm of every head of x by itself.
  virtual void norm_heads(at::Tensor& x, const Norm& norm) = 0;
  virtual void linear(const at::Tensor& x, std::span<const Product> products, const Rows& rows) = 0;
  /// Turns the first `2 * rope.cos.size(1)` dimensions of every head of x; i pairs with i + half ("rotate half").
  virtual void rotate(at::Tensor& x, const RopeTables::Rows& rope) = 0;
  /// Keys and values of all rows of a pass, after rotation, into the cache.
  virtual void store(std::int64_t layer, const at::Tensor& k, const at::Tensor& v, const Rows& rows) = 0;
  /// `rotate` of q and k, where there is a rope, and `store`.
  virtual void rotate_and_store(std::int64_t layer, at::Tensor& q, at::Tensor& k, const at::Tensor& v,
                                const RopeTables::Rows* rope, const Rows& rows);
  /// Attention over what is stored: the heads' outputs side by side, [rows, heads * d_head].
  virtual at::Tensor attend(std::int64_t layer, const at::Tensor& q, const Rows& rows) = 0;
  /// The weights that `attend` gives the keys in one run, [heads, queries, keys].
  virtual at::Tensor pattern(std::int64_t layer, const at::Tensor& q, const Rows& rows, std::size_t run) = 0;
  /// gate = act(gate), times `up` when that is defined.
  virtual void activate(at::Tensor& gate, const at::Tensor& up) = 0;
  virtual void scale(at::Tensor& x, double factor) { x = x * factor; }
  /// x *= sigmoid(by).
  virtual void gate(at::Tensor& x, const at::Tensor& by) = 0;
  /// Row r of x *= factors[r].
  virtual void scale_rows(at::Tensor& x, const at::Tensor& factors) = 0;
  /// What a row's experts make of it, weighted (`ExpertsConfig`). @param router  [rows, experts], before any softmax.
  virtual at::Tensor experts(const at::Tensor& x, const at::Tensor& router, std::span<const MlpWeights> each,
                             const Rows& rows) = 0;
  /// Goes on with the recurrent states of a layer: [rows, value_heads * d_value] (model/delta_net.hpp).
  at::Tensor delta_net(std::int64_t layer, const at::Tensor& qkv, const at::Tensor& beta, const at::Tensor& alpha,
                       const Rows& rows);
  virtual void add(at::Tensor& x, const at::Tensor& y) = 0;
  /// `add`, then `norm` of the sums with the gain.
  virtual at::Tensor add_norm(at::Tensor& x, const at::Tensor& y, const Norm& norm);
  /// Logits [rows, vocab] of rows after the final norm; a new tensor.
  virtual at::Tensor unembed(const at::Tensor& x, const Rows& rows) = 0;

 protected:
  LayerCache& cache_of(const Rows& rows, std::size_t run, std::int64_t layer) const {
    return rows.sequences[run]->layers[static_cast<std::size_t>(layer)];
  }
  virtual at::Tensor recur(const DeltaNetWeights& weights, const at::Tensor& qkv, const at::Tensor& beta,
                           const at::Tensor& alpha, std::span<const DeltaNetRun> runs,
                           std::span<RecurrentState> after) = 0;
  /// Room in the cache for all rows.
  void reserve(std::int64_t layer, const Rows& rows);

  const Transformer& model_;
  KvCache& cache_;
  bool batch_invariant_;
};

class CpuBackend final : public Backend {
 public:
  using Backend::Backend;
  void begin(std::int64_t tokens, std::int64_t last) override;
  void release() override { buffers_.clear(); }
  at::Tensor norm(const at::Tensor& x, const Norm& norm, bool with_gain) override;
  void gain(at::Tensor& x, const Norm& norm) override;
  void norm_heads(at::Tensor& x, const Norm& norm) override;
  void linear(const at::Tensor& x, std::span<const Product> products, const Rows& rows) override;
  void rotate(at::Tensor& x, const RopeTables::Rows& rope) override;
  void store(std::int64_t layer, const at::Tensor& k, const at::Tensor& v, const Rows& rows) override;
  at::Tensor attend(std::int64_t layer, const at::Tensor& q, const Rows& rows) override;
  at::Tensor pattern(std::int64_t layer, const at::Tensor& q, const Rows& rows, std::size_t run) override;
  void activate(at::Tensor& gate, const at::Tensor& up) override;
  void gate(at::Tensor& x, const at::Tensor& by) override;
  void scale_rows(at::Tensor& x, const at::Tensor& factors) override;
  at::Tensor experts(const at::Tensor& x, const at::Tensor& router, std::span<const MlpWeights> each,
                     const Rows& rows) override;
  void add(at::Tensor& x, const at::Tensor& y) override;
  at::Tensor unembed(const at::Tensor& x, const Rows& rows) override;

 protected:
  at::Tensor recur(const DeltaNetWeights& weights, const at::Tensor& qkv, const at::Tensor& beta,
                   const at::Tensor& alpha, std::span<const DeltaNetRun> runs,
                   std::span<RecurrentState> after) override;

 private:
  at::Tensor buffer(std::int64_t rows, std::int64_t width);
  cpu::AttentionArgs attention(std::int64_t layer, const at::Tensor& q, const Rows& rows, std::size_t run) const;

  std::vector<at::Tensor> buffers_;  ///< each free while nobody else holds it
  std::int64_t tokens_ = -1;         ///< of the pass they were made in
};

class AtenBackend : public Backend {
 public:
  using Backend::Backend;
  void begin(std::int64_t, std::int64_t) override { stored_layer_ = -1; }
  void release() override {}
  at::Tensor norm(const at::Tensor& x, const Norm& norm, bool with_gain) override;
  void gain(at::Tensor& x, const Norm& norm) override;
  void norm_heads(at::Tensor& x, const Norm& norm) override;
  void linear(const at::Tensor& x, std::span<const Product> products, const Rows& rows) override;
  void rotate(at::Tensor& x, const RopeTables::Rows& rope) override;
  void store(std::int64_t layer, const at::Tensor& k, const at::Tensor& v, const Rows& rows) override;
  at::Tensor attend(std::int64_t layer, const at::Tensor& q, const Rows& rows) override;
  at::Tensor pattern(std::int64_t layer, const at::Tensor& q, const Rows& rows, std::size_t run) override;
  void activate(at::Tensor& gate, const at::Tensor& up) override;
  void gate(at::Tensor& x, const at::Tensor& by) override;
  void scale_rows(at::Tensor& x, const at::Tensor& factors) override;
  at::Tensor experts(const at::Tensor& x, const at::Tensor& router, std::span<const MlpWeights> each,
                     const Rows& rows) override;
  void add(at::Tensor& x, const at::Tensor& y) override { x = x + y; }
  at::Tensor unembed(const at::Tensor& x, const Rows& rows) override;

  /// What `attend` does with a pattern: the rows [queries, heads * d_head] of one run. An edited pattern may look at
  /// any key, so other backends have it done here.
  at::Tensor mix(std::int64_t layer, const at::Tensor& pattern, const Rows& rows, std::size_t run);

 protected:
  at::Tensor product(const at::Tensor& x, const Linear& weight, const Rows& rows);
  at::Tensor recur(const DeltaNetWeights& weights, const at::Tensor& qkv, const at::Tensor& beta,
                   const at::Tensor& alpha, std::span<const DeltaNetRun> runs,
                   std::span<RecurrentState> after) override;

 private:
  std::pair<at::Tensor, at::Tensor> keys_and_values(std::int64_t layer, const Rows& rows, std::size_t run) const;

  // Keys and values of this pass that a gradient hangs on; the cache has only their numbers.
  std::int64_t stored_layer_ = -1;
  at::Tensor k_, v_;
  std::vector<TokenRun> stored_runs_;
};

/// Our own kernels for the model's device; null where there are none, and libtorch's operators do all.
std::unique_ptr<Backend> make_kernel_backend(const Transformer& model, KvCache& cache, bool batch_invariant);

/// Tests run the card's kernels on the CPU. Null, or what makes the backend of every session made while it is set.
extern std::unique_ptr<Backend> (*kernel_backend_for_testing)(const Transformer&, KvCache&, bool);

}  // namespace steer::model::detail
