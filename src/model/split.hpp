#pragma once
// A model that several processes compute together ("tensor parallel", Shoeybi et al. 2019, arXiv 1909.08053): each has
// some heads and some of the MLP's inner width of every layer. Of a product that widens it has rows of the weight, of
// the one that narrows again columns, and what comes out is summed over the processes. So the residual stream is whole
// in each of them, and so is everything that a hook is shown.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include <steer/model/communicator.hpp>
#include <steer/model/config.hpp>
#include <steer/model/hooks.hpp>

#include "model/transformer.hpp"

namespace steer::model::detail {

/// [begin, end) of a width.
struct Range {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
};
/// The part of each process. Parts may overlap: key heads that several share.
using Ranges = std::vector<Range>;

class Split {
 public:
  /// @throws Error(unsupported) where the model has too few heads for so many processes.
  Split(const ModelConfig& config, std::shared_ptr<Communicator> peers);

  std::int64_t processes() const { return peers_->size(); }
  /// The configuration with the heads and widths that this process computes.
  ModelConfig part_of(const ModelConfig& config) const;
  /// What `cut` did.
  struct Report {
    std::int64_t bytes = 0;    ///< of weights that only others keep
    std::int64_t widened = 0;  ///< matrices that are f32 now because their blocks were cut
  };
  /// Leaves this process's part of a layer's weights, on `device`.
  void cut(LayerWeights& layer, at::Device device, Report& report) const;

  /// Whether values at a site are parts of what a hook is shown.
  bool divides(Site site) const { return cut_at(site).ranges != nullptr; }
  at::Tensor whole(Site site, const at::Tensor& part) const;
  at::Tensor part(Site site, const at::Tensor& whole) const;
  /// The sum over all processes, in the order of ranks: the same bits in each, whatever other rows there are.
  at::Tensor sum(const at::Tensor& part) const;
  /// @throws Error(argument) unless all processes compute the same pass, with as many points hooked that show parts.
  void agree(const BatchView& batch, std::int64_t first, std::int64_t last, std::int64_t hooked) const;

 private:
  struct Cut {
    const Ranges* ranges = nullptr;
    std::int64_t unit = 1;  ///< columns (or heads, of a pattern) of one step of a range
    std::int64_t dim = 1;
  };
  Cut cut_at(Site site) const;
  const Range& mine(const Ranges& ranges) const { return ranges[static_cast<std::size_t>(peers_->rank())]; }
  void cut(MlpWeights& mlp, const Ranges& inner, Report& report) const;
  Linear rows(const Linear& weight, const Range& range, std::int64_t unit) const;
  Linear columns(const Linear& weight, const Range& range, std::int64_t unit, Report& report) const;

  std::shared_ptr<Communicator> peers_;
  std::int64_t d_head_;
  Ranges heads_, kv_heads_, inner_, expert_inner_, shared_inner_;
};

}  // namespace steer::model::detail
