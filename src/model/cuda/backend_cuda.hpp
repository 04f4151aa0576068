#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "model/backend.hpp"
#include "model/cuda/kernels.hpp"
#include "model/cuda/recording.hpp"
#include "model/cuda/tables.hpp"

namespace steer::model::detail {

/// Our kernels on the card; its recordings are in replay.cpp. What they do not do (an attention pattern that is looked
/// at, recurrent layers) libtorch's operators do there.
///
/// Products of up to eight rows take the weights as they are kept and round nothing. Products of more rows, unless
/// `batch_invariant`, are matrix products of the card's own kind: 16-bit weights and blocks then meet activations
/// rounded to 16 bits, summed in f32; f32 weights stay f32.
class CudaBackend final : public AtenBackend {
 public:
  using AtenBackend::AtenBackend;
  void begin(std::int64_t tokens, std::int64_t last) override;
  bool records() const override;
  at::Tensor replay(const BatchView& batch, std::span<SequenceCache* const> sequences, RopeTables& ropes,
                    PassEdits* edits, const WholePass& pass) override;
  at::Tensor embed(const BatchView& batch) override;
  void scale(at::Tensor& x, double factor) override;
  at::Tensor norm(const at::Tensor& x, const Norm& norm, bool with_gain) override;
  void gain(at::Tensor& x, const Norm& norm) override;
  void norm_heads(at::Tensor& x, const Norm& norm) override;
  void linear(const at::Tensor& x, std::span<const Product> products, const Rows& rows) override;
  void rotate(at::Tensor& x, const RopeTables::Rows& rope) override;
  void store(std::int64_t layer, const at::Tensor& k, const at::Tensor& v, const Rows& rows) override;
  void rotate_and_store(std::int64_t layer, at::Tensor& q, at::Tensor& k, const at::Tensor& v,
                        const RopeTables::Rows* rope, const Rows& rows) override;
  at::Tensor attend(std::int64_t layer, const at::Tensor& q, const Rows& rows) override;
  void activate(at::Tensor& gate, const at::Tensor& up) override;
  void gate(at::Tensor& x, const at::Tensor& by) override;
  void scale_rows(at::Tensor& x, const at::Tensor& factors) override;
  void add(at::Tensor& x, const at::Tensor& y) override;
  at::Tensor add_norm(at::Tensor& x, const at::Tensor& y, const Norm& norm) override;
  at::Tensor unembed(const at::Tensor& x, const Rows& rows) override;

 private:
  /// Rows of x up to which reading the weights is all the time, so that widening them in registers costs nothing.
  static constexpr std::int64_t kFewRows = 8;

  /// On the card, of the layers from `first` on.
  struct Tables {
    std::span<const TokenRun> rows = {};
    std::int64_t first = 0, longest = 0, tile_count = 0;
    std::size_t tokens = 0, runs = 0, tiles = 0;
    std::vector<std::size_t> blocks = {}, slots = {};  ///< of each layer
    cuda::Tables sent = {};

    bool is_of(std::int64_t layer, const Rows& of) const {
      return of.runs.data() == rows.data() && of.runs.size() == rows.size() && layer >= first &&
             layer - first < std::ssize(blocks);
    }
    const cuda::CacheBlock* blocks_of(std::int64_t layer) const {
      return sent.at<cuda::CacheBlock>(blocks[static_cast<std::size_t>(layer - first)]);
    }
    const cuda::CacheSlot* slots_of(std::int64_t layer) const {
      return sent.at<cuda::CacheSlot>(slots[static_cast<std::size_t>(layer - first)]);
    }
  };

  /// What a recorded pass depends on: steps of equal shapes share one.
  struct Shape {
    std::int64_t places = 0;  ///< rows, those behind the step's own included
    std::int64_t blocks = 0;  ///< of the cache, for each row
    std::vector<std::int64_t> edits = {};
    friend auto operator<=>(const Shape&, const Shape&) = default;
  };
  struct Recorded {
    std::vector<std::int64_t> ids;
    std::vector<TokenRun> runs;
    std::vector<SequenceCache*> sequences;  ///< null: nobody's
    at::Tensor memory;                      ///< where the tables lie
    at::Tensor logits;                      ///< [places, vocab], what the recording writes
    std::optional<cuda::Recording> recording;
  };

  Tables tables(std::int64_t first, std::int64_t end, const Rows& rows, bool with_slots);
  void lay_out(Tables& out, std::int64_t first, std::int64_t end, const Rows& rows, bool with_slots, std::int64_t room);
  static std::size_t add_tokens(cuda::Tables& tables, const BatchView& batch);
  Rows stage(Recorded& kept, const Shape& shape, const BatchView& batch, std::span<SequenceCache* const> sequences,
             RopeTables& ropes, PassEdits* edits);
  const cpu::BlockView& nobodys_block();
  at::Tensor fresh(std::int64_t rows, std::int64_t width);
  void store_rotated(std::int64_t layer, const at::Tensor& k, const at::Tensor& v, cuda::Rotation rotation,
                     const Rows& rows);
  void matrix_products(const at::Tensor& x, std::span<const Product> products) const;

  Tables pass_;            ///< of all rows of the pass that runs
  std::int64_t last_ = 0;  ///< its layers end here

  std::map<Shape, Recorded> recorded_;
  std::vector<at::Tensor> buffers_;  ///< of all recordings: no two run at once. Each free while nobody else holds it
  bool recording_ = false;           ///< the pass that runs takes its memory from there
  at::Tensor nobodys_;               ///< keys and values of rows that are nobody's
  cpu::BlockView nobodys_view_{};
};

}  // namespace steer::model::detail
