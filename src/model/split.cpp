#include "model/split.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>

#include "core/format_text.hpp"

namespace steer::model::detail {
namespace {

constexpr auto kSplit = "LoadOptions::parallel";

/// [0, total) in parts of about one size that begin at multiples of `step`.
Ranges in_parts(std::int64_t total, std::int64_t parts, std::int64_t step = 1) {
  Ranges out;
  const std::int64_t steps = total / step;
  for (std::int64_t i = 0; i < parts; ++i) out.push_back({steps * i / parts * step, steps * (i + 1) / parts * step});
  return out;
}

/// A width in parts that begin where the largest block of any weight format does, if there are enough of those.
Ranges in_blocks(std::int64_t width, std::int64_t parts) {
  for (const std::int64_t step : {256, 32})
    if (width % step == 0 && width / step >= parts) return in_parts(width, parts, step);
  return in_parts(width, parts);
}

template <class F>
void for_each_matrix(LayerWeights& w, const F& f) {
  const auto each = [&](auto&... matrices) { ((matrices.defined() ? f(matrices) : void()), ...); };
  each(w.q, w.k, w.v, w.o, w.q_gate, w.gate, w.up, w.down, w.experts.router, w.experts.shared_gate);
  each(w.delta_net.qkv, w.delta_net.z, w.delta_net.beta, w.delta_net.alpha, w.delta_net.out);
  for (auto& expert : w.experts.each) each(expert.gate, expert.up, expert.down);
  each(w.experts.shared.gate, w.experts.shared.up, w.experts.shared.down);
}

std::int64_t bytes_of(LayerWeights& w) {
  std::int64_t bytes = 0;
  for_each_matrix(w, [&](const Linear& weight) { bytes += weight.bytes(); });
  return bytes;
}

}  // namespace

Split::Split(const ModelConfig& c, std::shared_ptr<Communicator> peers) : peers_(std::move(peers)), d_head_(c.d_head) {
  const std::int64_t parts = peers_->size();
  // Queries go with their keys; where there are more processes than key heads, several share one.
  const std::int64_t group = c.n_heads / c.n_kv_heads;
  if (c.n_kv_heads >= parts) {
    kv_heads_ = in_parts(c.n_kv_heads, parts);
    for (const auto& range : kv_heads_) heads_.push_back({range.begin * group, range.end * group});
  } else {
    require(
        parts % c.n_kv_heads == 0 && parts <= c.n_heads, ErrorCode::unsupported, kSplit,
        "expected at most {0} processes, or a multiple of {0} up to {1}, for a model of {0} key and value heads and "
        "{1} query heads but got {2}",
        c.n_kv_heads, c.n_heads, parts);
    for (std::int64_t head = 0; head < c.n_kv_heads; ++head)
      for (const auto& range : in_parts(group, parts / c.n_kv_heads)) {
        kv_heads_.push_back({head, head + 1});
        heads_.push_back({head * group + range.begin, head * group + range.end});
      }
  }
  const auto inner = [&](std::int64_t width, const char* what) {
    require(width == 0 || width >= parts, ErrorCode::unsupported, kSplit,
            "expected at most {} processes, one for each inner dimension of {}, but got {}", width, what, parts);
    return in_blocks(width, parts);
  };
  inner_ = inner(c.d_mlp, "the MLP");
  expert_inner_ = inner(c.experts.d_mlp, "an expert");
  shared_inner_ = inner(c.experts.d_shared, "the shared expert");
}

ModelConfig Split::part_of(const ModelConfig& config) const {
  ModelConfig part = config;
  part.n_heads = mine(heads_).size();
  part.n_kv_heads = mine(kv_heads_).size();
  part.d_mlp = mine(inner_).size();
  part.experts.d_mlp = mine(expert_inner_).size();
  part.experts.d_shared = mine(shared_inner_).size();
  return part;
}

Linear Split::rows(const Linear& weight, const Range& range, std::int64_t unit) const {
  return weight.defined() ? weight.rows(range.begin * unit, range.end * unit) : weight;
}

/// One process adds the bias.
Linear Split::columns(const Linear& weight, const Range& range, std::int64_t unit, Report& report) const {
  Linear part = weight.columns(range.begin * unit, range.end * unit, /*with_bias=*/peers_->rank() == 0);
  report.widened += part.type() != weight.type();
  return part;
}

void Split::cut(MlpWeights& mlp, const Ranges& inner, Report& report) const {
  if (!mlp.down.defined()) return;
  mlp.gate = rows(mlp.gate, mine(inner), 1);
  mlp.up = rows(mlp.up, mine(inner), 1);
  mlp.down = columns(mlp.down, mine(inner), 1, report);
}

void Split::cut(LayerWeights& w, at::Device device, Report& report) const {
  const std::int64_t before = bytes_of(w);
  if (w.q.defined()) {
    w.q = rows(w.q, mine(heads_), d_head_);
    w.q_gate = rows(w.q_gate, mine(heads_), d_head_);
    w.k = rows(w.k, mine(kv_heads_), d_head_);
    w.v = rows(w.v, mine(kv_heads_), d_head_);
    w.o = columns(w.o, mine(heads_), d_head_, report);
    if (w.sinks.defined()) w.sinks = w.sinks.narrow(0, mine(heads_).begin, mine(heads_).size()).contiguous();
  }
  MlpWeights dense{w.gate, w.up, w.down};
  cut(dense, inner_, report);
  w.gate = dense.gate, w.up = dense.up, w.down = dense.down;
  for (auto& expert : w.experts.each) cut(expert, expert_inner_, report);
  cut(w.experts.shared, shared_inner_, report);
  for_each_matrix(w, [&](Linear& weight) { weight = weight.to(device); });
  report.bytes += before - bytes_of(w);
}

Split::Cut Split::cut_at(Site site) const {
  switch (site) {
    case Site::attn_q:
    case Site::attn_z:
      return {&heads_, d_head_, 1};
    case Site::attn_k:
    case Site::attn_v:
      return {&kv_heads_, d_head_, 1};
    case Site::attn_pattern:
      return {&heads_, 1, 0};
    case Site::mlp_pre:
    case Site::mlp_post:
      return {&inner_, 1, 1};
    default:
      return {};
  }
}

at::Tensor Split::whole(Site site, const at::Tensor& part) const {
  const Cut cut = cut_at(site);
  std::int64_t widest = 0, width = 0;
  for (const auto& range : *cut.ranges) {
    widest = std::max(widest, range.size() * cut.unit);
    width = std::max(width, range.end * cut.unit);
  }
  // An exchange is of one shape: narrower parts are padded.
  std::vector<std::int64_t> pad(static_cast<std::size_t>(2 * (part.dim() - cut.dim)));
  pad.back() = widest - part.size(cut.dim);
  const at::Tensor all = peers_->all_gather(at::constant_pad_nd(part, pad).contiguous());
  auto shape = part.sizes().vec();
  shape[static_cast<std::size_t>(cut.dim)] = width;
  at::Tensor out = at::empty(shape, part.options());
  for (std::int64_t r = 0; r < processes(); ++r) {
    const Range& range = (*cut.ranges)[static_cast<std::size_t>(r)];
    const std::int64_t size = range.size() * cut.unit;
    out.narrow(cut.dim, range.begin * cut.unit, size).copy_(all[r].narrow(cut.dim, 0, size));
  }
  return out;
}

at::Tensor Split::part(Site site, const at::Tensor& whole) const {
  const Cut cut = cut_at(site);
  const Range& range = mine(*cut.ranges);
  return whole.narrow(cut.dim, range.begin * cut.unit, range.size() * cut.unit).contiguous();
}

at::Tensor Split::sum(const at::Tensor& part) const {
  const at::Tensor all = peers_->all_gather(part.contiguous());
  at::Tensor out = all[0];
  for (std::int64_t r = 1; r < processes(); ++r) out.add_(all[r]);
  return out;
}

void Split::agree(const BatchView& batch, std::int64_t first, std::int64_t last, std::int64_t hooked) const {
  ContentHasher hasher;
  const auto add = [&](std::int64_t value) { hasher.update({reinterpret_cast<const char*>(&value), sizeof value}); };
  for (const std::int64_t id : batch.ids) add(id);
  for (const auto& run : batch.runs)
    for (const std::int64_t number : {run.begin, run.end, run.position}) add(number);
  std::uint64_t digest = 0;
  const std::string hex = hasher.hex();
  std::from_chars(hex.data(), hex.data() + 16, digest, 16);
  const at::Tensor all =
      peers_->all_gather(at::tensor({static_cast<std::int64_t>(digest), batch.size(), first, last, hooked}, at::kLong));
  const auto* pass = all.const_data_ptr<std::int64_t>();
  const auto said = [](const std::int64_t* p) {
    return format_text("{} tokens in layers [{}, {}) with {} hooked points (of digest {:x})", p[1], p[2], p[3], p[4],
                       static_cast<std::uint64_t>(p[0]));
  };
  for (std::int64_t r = 1; r < processes(); ++r)
    require(
        all[r].equal(all[0]), ErrorCode::argument, kSplit,
        "expected all processes to compute the same but rank 0 computes {} and rank {} {}; make the same calls with "
        "the same arguments in each",
        said(pass), r, said(pass + r * all.size(1)));
}

}  // namespace steer::model::detail
