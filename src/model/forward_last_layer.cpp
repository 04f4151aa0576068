// The last layer of a prompt. Only the rows that become logits go on from there: of all others nothing but keys and
// values is ever used again. A row's bits are those of a pass over all rows.

#include <ATen/Functions.h>

#include <algorithm>

#include "model/cpu_ops.hpp"
#include "model/forward.hpp"
#include "model/ops.hpp"

namespace steer::model::detail {

bool ForwardPass::only_some_rows_matter(const at::Tensor& resid, const LogitRows& rows) const {
  if (rows.all || std::ssize(rows.rows) == batch_->size() || !is_plain(resid)) return false;
  const std::int64_t layer = config_.n_layers - 1;
  return std::ranges::none_of(EnumTable<Site>::entries, [&](const auto& site) {
    if (site.value == Site::embed) return false;
    return hooks_.any(site.value, site.value == Site::ln_final ? 0 : layer);
  });
}

at::Tensor ForwardPass::last_layer(const at::Tensor& all, const LogitRows& rows) {
  const std::int64_t layer = config_.n_layers - 1;
  const LayerWeights& w = model_.layers[static_cast<std::size_t>(layer)];
  at::Tensor normed = work_.normed, k = work_.k, v = work_.v;
  normalise(normed, all, w.ln1, true);
  project(k, normed, w.k);
  project(v, normed, w.v);
  if (w.k_norm) normalise_heads(k, w.k_norm);
  const auto* rope = w.rope >= 0 ? &ropes_[static_cast<std::size_t>(w.rope)] : nullptr;
  if (rope) rotate(k, rope->cos, rope->sin, config_.d_head);
  for (std::size_t i = 0; i < states_.size(); ++i) {
    const auto& run = batch_->runs[i];
    const auto count = run.end - run.begin;
    LayerCache& cache = states_[i]->layers[static_cast<std::size_t>(layer)];
    cache_.reserve(cache, run.position, count);
    cache_.store(cache, run.position, k.narrow(0, run.begin, count), v.narrow(0, run.begin, count));
  }
  if (rows.rows.empty()) return {};

  const at::Tensor chosen = at::tensor(rows.rows, at::kLong);
  at::Tensor resid = all.index_select(0, chosen);
  const at::Tensor own = normed.index_select(0, chosen);
  const auto make = [&](std::int64_t width) { return at::empty({resid.size(0), width}, at::kFloat); };
  at::Tensor q = make(config_.n_heads * config_.d_head), z = at::empty_like(q), attn_out = make(config_.d_model);
  project(q, own, w.q);
  if (w.q_norm) normalise_heads(q, w.q_norm);
  if (rope) rotate(q, rope->cos.index_select(0, chosen), rope->sin.index_select(0, chosen), config_.d_head);
  std::vector<cpu::AttentionArgs> queries;
  std::size_t i = 0;
  for (std::size_t j = 0; j < rows.rows.size(); ++j) {  // in order, as the runs are
    while (batch_->runs[i].end <= rows.rows[j]) ++i;
    const auto& run = batch_->runs[i];
    const auto at = static_cast<std::int64_t>(j) * q.size(1);
    queries.push_back(attention_args(layer, i, q.const_data_ptr<float>() + at, static_cast<float*>(z.data_ptr()) + at,
                                     1, run.position + rows.rows[j] - run.begin));
  }
  cpu::attend(queries);
  project(attn_out, z, w.o);
  if (w.post_attn) normalise(attn_out, at::Tensor(attn_out), w.post_attn, true);

  const auto add_mlp = [&](at::Tensor& to) {
    at::Tensor before = make(config_.d_model), gate = make(config_.d_mlp), out = make(config_.d_model), up;
    normalise(before, resid, w.ln2, true);
    project(gate, before, w.gate);
    if (w.up.defined()) {
      up = make(config_.d_mlp);
      project(up, before, w.up);
    }
    activate(gate, at::Tensor(gate), up, config_.activation);
    project(out, gate, w.down);
    if (w.post_mlp) normalise(out, at::Tensor(out), w.post_mlp, true);
    add(to, out);
  };
  if (config_.parallel_residual) {
    add_mlp(attn_out);
    add(resid, attn_out);
  } else {
    add(resid, attn_out);
    add_mlp(resid);
  }
  return logits(resid, {.all = true, .rows = {}});
}

}  // namespace steer::model::detail
