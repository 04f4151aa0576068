#include "model/forward.hpp"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>

#include <cmath>
#include <limits>

#include "model/ops.hpp"

namespace steer::model::detail {

void RopeTables::grow(std::size_t rope, std::int64_t positions) {
  Table& table = tables_[rope];
  if (positions <= table.positions) return;
  const auto& inv_freq = model_->inv_freq[rope];
  const std::int64_t half = inv_freq.size(0), to = std::max<std::int64_t>({positions, 2 * table.positions, 256});
  table.cos.resize(static_cast<std::size_t>(to * half));
  table.sin.resize(table.cos.size());
  const float* freq = inv_freq.const_data_ptr<float>();
  for (std::int64_t p = table.positions; p < to; ++p)
    for (std::int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(p) * freq[i];  // rounded to f32 as the reference implementations do
      table.cos[static_cast<std::size_t>(p * half + i)] = std::cos(angle);
      table.sin[static_cast<std::size_t>(p * half + i)] = std::sin(angle);
    }
  table.positions = to;
}

std::vector<RopeTables::Rows> RopeTables::rows(std::span<const TokenRun> runs) {
  std::int64_t tokens = 0, positions = 0;
  for (const auto& run : runs) {
    tokens = run.end;
    positions = std::max(positions, run.position + run.end - run.begin);
  }
  std::vector<Rows> out;
  for (std::size_t rope = 0; rope < tables_.size(); ++rope) {
    grow(rope, positions);
    const std::int64_t half = model_->inv_freq[rope].size(0);
    Rows rows{at::empty({tokens, half}, at::kFloat), at::empty({tokens, half}, at::kFloat)};
    for (const auto& run : runs) {
      const auto from = run.position * half, count = (run.end - run.begin) * half;
      std::copy_n(tables_[rope].cos.data() + from, count, rows.cos.data_ptr<float>() + run.begin * half);
      std::copy_n(tables_[rope].sin.data() + from, count, rows.sin.data_ptr<float>() + run.begin * half);
    }
    out.push_back({rows.cos.to(model_->device), rows.sin.to(model_->device)});
  }
  return out;
}

void Workspace::prepare(const Transformer& model, std::int64_t count) {
  // Tensors made under InferenceMode cannot be edited outside of it.
  const bool usable = !normed.defined() || normed.is_inference() == c10::InferenceMode::is_enabled();
  if ((tokens == count && usable) || !model.device.is_cpu()) return;
  const ModelConfig& c = model.config;
  const auto make = [&](std::int64_t width) { return at::empty({count, width}, at::kFloat); };
  const std::int64_t q_width = c.n_heads * c.d_head, kv_width = c.n_kv_heads * c.d_head;
  *this = {count,           make(c.d_model), make(q_width),
           make(kv_width),  make(kv_width),  make(q_width),
           make(c.d_model), make(c.d_mlp),   c.gated_mlp ? make(c.d_mlp) : at::Tensor(),
           make(c.d_model)};
}

ForwardPass::ForwardPass(const Transformer& model, HookTable& hooks, KvCache& cache, RopeTables& ropes,
                         Workspace& workspace, bool batch_invariant)
    : model_(model),
      config_(model.config),
      hooks_(hooks),
      cache_(cache),
      rope_tables_(ropes),
      work_(workspace),
      batch_invariant_(batch_invariant) {}

at::Tensor ForwardPass::run(const BatchView& batch, std::span<SequenceCache* const> states, std::int64_t first,
                            std::int64_t last, const at::Tensor& residual, const LogitRows& rows) {
  batch_ = &batch;
  states_ = states;
  work_.prepare(model_, batch.size());
  ropes_ = rope_tables_.rows(batch.runs);
  at::Tensor resid = first == 0 ? embed() : residual;
  // Layers add in place; the caller's tensor must stay as it is.
  if (first > 0 && is_plain(resid)) resid = resid.clone();
  for (std::int64_t layer = first; layer < last; ++layer) {
    if (layer + 1 == config_.n_layers && only_some_rows_matter(resid, rows)) return last_layer(resid, rows);
    hook(Site::resid_pre, layer, resid);
    at::Tensor attn_out = attention(layer, resid);
    if (config_.parallel_residual) {
      const at::Tensor mlp_out = mlp(layer, resid);
      add(attn_out, mlp_out);
      add(resid, attn_out);
    } else {
      add(resid, attn_out);
      hook(Site::resid_mid, layer, resid);
      const at::Tensor mlp_out = mlp(layer, resid);
      add(resid, mlp_out);
    }
    hook(Site::resid_post, layer, resid);
  }
  at::Tensor out = last == config_.n_layers ? logits(resid, rows) : at::Tensor();
  if (tainted_) work_ = {};
  return out;
}

void ForwardPass::hook(Site site, std::int64_t layer, at::Tensor& value) { hook(site, layer, value, *batch_); }

void ForwardPass::hook(Site site, std::int64_t layer, at::Tensor& value, const BatchView& batch) {
  if (!hooks_.any(site, layer)) [[likely]]
    return;
  const at::Tensor own = value;
  hooks_.fire({site, layer}, value, batch);
  if (value.requires_grad() && at::GradMode::is_enabled()) {
    tainted_ = true;
  } else if (!value.is_same(own) && own.is_cpu()) {
    // Later operations write in place: into our buffer, not into a tensor the hook's owner may still use.
    own.copy_(value);
    value = own;
  }
}

void ForwardPass::normalise_hooked(at::Tensor& out, const at::Tensor& x, const Norm& norm, Site site,
                                   std::int64_t layer) {
  if (!hooks_.any(site, layer)) [[likely]]
    return normalise(out, x, norm, true);
  normalise(out, x, norm, false);
  hook(site, layer, out);
  apply_gain(out, norm);
}

void ForwardPass::project(at::Tensor& y, const at::Tensor& x, const Linear& weight) const {
  if (is_plain(x) && is_plain(y))
    weight.apply(x.const_data_ptr<float>(), x.size(0), static_cast<float*>(y.data_ptr()), batch_invariant_);
  else if (!batch_invariant_)
    y = weight(x);
  else
    y = by_itself(x, weight);
}

/// libtorch's products depend on the number of rows, so each sequence gets one of its own.
at::Tensor ForwardPass::by_itself(const at::Tensor& x, const Linear& weight) const {
  std::vector<at::Tensor> parts;
  if (x.size(0) == batch_->size())
    for (const auto& run : batch_->runs) parts.push_back(weight(x.narrow(0, run.begin, run.end - run.begin)));
  else
    for (std::int64_t row = 0; row < x.size(0); ++row) parts.push_back(weight(x.narrow(0, row, 1)));
  return at::cat(parts);
}

at::Tensor ForwardPass::embed() {
  at::Tensor resid = model_.embed.gather(batch_->ids);
  if (config_.embed_scale != 1) resid.mul_(config_.embed_scale);
  if (model_.positions.defined())
    for (const auto& run : batch_->runs)
      resid.narrow(0, run.begin, run.end - run.begin)
          .add_(model_.positions.narrow(0, run.position, run.end - run.begin));
  hook(Site::embed, 0, resid);
  return resid;
}

at::Tensor ForwardPass::attention(std::int64_t layer, const at::Tensor& resid) {
  const LayerWeights& w = model_.layers[static_cast<std::size_t>(layer)];
  at::Tensor normed = work_.normed, q = work_.q, k = work_.k, v = work_.v;
  normalise_hooked(normed, resid, w.ln1, Site::ln1, layer);
  if (is_plain(normed) && is_plain(q) && is_plain(k) && is_plain(v)) {
    const auto data = [](at::Tensor& t) { return static_cast<float*>(t.data_ptr()); };
    const LinearCall calls[] = {{&w.q, data(q), 0}, {&w.k, data(k), 0}, {&w.v, data(v), 0}};
    apply_together(normed.const_data_ptr<float>(), normed.size(0), calls, batch_invariant_);
  } else {
    project(q, normed, w.q);
    project(k, normed, w.k);
    project(v, normed, w.v);
  }
  if (w.q_norm) {
    normalise_heads(q, w.q_norm);
    normalise_heads(k, w.k_norm);
  }
  hook(Site::attn_q, layer, q);
  hook(Site::attn_k, layer, k);
  hook(Site::attn_v, layer, v);
  if (w.rope >= 0) {
    const auto& rope = ropes_[static_cast<std::size_t>(w.rope)];
    rotate(q, rope.cos, rope.sin, config_.d_head);
    rotate(k, rope.cos, rope.sin, config_.d_head);
  }
  for (std::size_t i = 0; i < states_.size(); ++i) {
    const auto& run = batch_->runs[i];
    const auto count = run.end - run.begin;
    LayerCache& cache = states_[i]->layers[static_cast<std::size_t>(layer)];
    cache_.reserve(cache, run.position, count);
    if (is_plain(k) && is_plain(v))
      cpu::store_kv(cache.views, k.const_data_ptr<float>() + run.begin * k.size(1),
                    v.const_data_ptr<float>() + run.begin * v.size(1), count, run.position, config_.n_kv_heads,
                    config_.d_head);
    else
      cache_.store(cache, run.position, k.narrow(0, run.begin, count), v.narrow(0, run.begin, count));
  }
  const bool plain = is_plain(q) && is_plain(k) && is_plain(v) && !hooks_.any(Site::attn_pattern, layer);
  at::Tensor z = plain ? attend_plain(layer, q) : attend_by_operators(layer, q, k, v);
  hook(Site::attn_z, layer, z);
  at::Tensor out = work_.attn_out;
  project(out, z, w.o);
  if (w.post_attn) normalise(out, at::Tensor(out), w.post_attn, true);
  hook(Site::attn_out, layer, out);
  return out;
}

cpu::AttentionArgs ForwardPass::attention_args(std::int64_t layer, std::size_t run, const float* q, float* z,
                                               std::int64_t queries, std::int64_t position) const {
  return {.q = q,
          .z = z,
          .blocks = states_[run]->layers[static_cast<std::size_t>(layer)].views,
          .queries = queries,
          .position = position,
          .n_heads = config_.n_heads,
          .n_kv_heads = config_.n_kv_heads,
          .d_head = config_.d_head,
          .window = config_.layers[static_cast<std::size_t>(layer)].window,
          .scale = static_cast<float>(config_.attn_scale),
          .soft_cap = static_cast<float>(config_.attn_soft_cap)};
}

at::Tensor ForwardPass::attend_plain(std::int64_t layer, const at::Tensor& q) {
  at::Tensor z = is_plain(work_.z) ? work_.z : at::empty_like(q);
  std::vector<cpu::AttentionArgs> runs;
  runs.reserve(states_.size());
  const std::int64_t width = q.size(1);
  for (std::size_t i = 0; i < states_.size(); ++i) {
    const auto& run = batch_->runs[i];
    runs.push_back(attention_args(layer, i, q.const_data_ptr<float>() + run.begin * width,
                                  static_cast<float*>(z.data_ptr()) + run.begin * width, run.end - run.begin,
                                  run.position));
  }
  cpu::attend(runs);
  return z;
}

at::Tensor ForwardPass::attend_by_operators(std::int64_t layer, const at::Tensor& q, const at::Tensor& k,
                                            const at::Tensor& v) {
  const std::int64_t kv_heads = config_.n_kv_heads, group = config_.n_heads / kv_heads, d = config_.d_head;
  const std::int64_t window = config_.layers[static_cast<std::size_t>(layer)].window;
  std::vector<at::Tensor> parts;
  for (std::size_t i = 0; i < states_.size(); ++i) {
    const auto& run = batch_->runs[i];
    const std::int64_t count = run.end - run.begin, total = run.position + count;
    // Keys of this pass are taken from `k`, not from the cache: a gradient may hang on them.
    std::int64_t cached = run.position;
    std::vector<at::Tensor> keys(1), values(1);
    for (std::size_t j = 0; j <= i; ++j) {
      const auto& other = batch_->runs[j];
      if (other.sequence != run.sequence) continue;
      cached = std::min(cached, other.position);
      const auto rows = [&](const at::Tensor& t) {
        return t.narrow(0, other.begin, other.end - other.begin).reshape({other.end - other.begin, kv_heads, d});
      };
      keys.push_back(rows(k).permute({1, 2, 0}));
      values.push_back(rows(v).permute({1, 0, 2}));
    }
    std::tie(keys[0], values[0]) = cache_.gather(states_[i]->layers[static_cast<std::size_t>(layer)], cached);
    const at::Tensor all_k = at::cat(keys, 2), all_v = at::cat(values, 1);

    const at::Tensor queries = q.narrow(0, run.begin, count).reshape({count, kv_heads, group, d}).permute({1, 2, 0, 3});
    at::Tensor scores = at::matmul(queries.reshape({kv_heads, group * count, d}), all_k) * config_.attn_scale;
    if (config_.attn_soft_cap > 0) scores = at::tanh(scores / config_.attn_soft_cap) * config_.attn_soft_cap;
    scores = scores.reshape({config_.n_heads, count, total});
    const auto options = at::TensorOptions().dtype(at::kLong).device(q.device());
    const at::Tensor at_query = at::arange(run.position, total, options).unsqueeze(1),
                     at_key = at::arange(total, options).unsqueeze(0);
    at::Tensor hidden = at_key > at_query;
    if (window > 0) hidden = hidden | (at_key <= at_query - window);
    at::Tensor pattern = at::softmax(scores.masked_fill(hidden, -std::numeric_limits<float>::infinity()), -1);

    if (hooks_.any(Site::attn_pattern, layer)) {
      TokenRun alone = run;
      alone.begin = 0;
      alone.end = count;
      const BatchView view{batch_->ids.subspan(static_cast<std::size_t>(run.begin), static_cast<std::size_t>(count)),
                           {&alone, 1}};
      hook(Site::attn_pattern, layer, pattern, view);
    }
    parts.push_back(at::matmul(pattern.reshape({kv_heads, group * count, total}), all_v)
                        .reshape({kv_heads, group, count, d})
                        .permute({2, 0, 1, 3})
                        .reshape({count, kv_heads * group * d}));
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts);
}

at::Tensor ForwardPass::mlp(std::int64_t layer, const at::Tensor& resid) {
  const LayerWeights& w = model_.layers[static_cast<std::size_t>(layer)];
  at::Tensor normed = work_.normed, gate = work_.gate, up = work_.up;
  normalise_hooked(normed, resid, w.ln2, Site::ln2, layer);
  if (w.up.defined() && is_plain(normed) && is_plain(gate) && is_plain(up)) {
    const LinearCall calls[] = {{&w.gate, static_cast<float*>(gate.data_ptr()), 0},
                                {&w.up, static_cast<float*>(up.data_ptr()), 0}};
    apply_together(normed.const_data_ptr<float>(), normed.size(0), calls, batch_invariant_);
  } else {
    project(gate, normed, w.gate);
    if (w.up.defined()) project(up, normed, w.up);
  }
  hook(Site::mlp_pre, layer, gate);
  at::Tensor post = gate;
  activate(post, gate, up, config_.activation);
  hook(Site::mlp_post, layer, post);
  at::Tensor out = work_.mlp_out;
  project(out, post, w.down);
  if (w.post_mlp) normalise(out, at::Tensor(out), w.post_mlp, true);
  hook(Site::mlp_out, layer, out);
  return out;
}

at::Tensor ForwardPass::logits(const at::Tensor& resid, const LogitRows& rows) {
  const bool hooked = hooks_.any(Site::ln_final, 0);
  const bool wanted = rows.all || !rows.rows.empty();
  if (!hooked && !wanted) return {};
  const auto select = [&](const at::Tensor& x) {
    if (rows.all) return x;
    return x.index_select(0, at::tensor(rows.rows, at::kLong).to(x.device()));
  };
  at::Tensor normed;
  if (hooked) {
    if (is_plain(resid)) normed = at::empty_like(resid);
    normalise_hooked(normed, resid, model_.final_norm, Site::ln_final, 0);
    if (!wanted) return {};
    normed = select(normed);
  } else {
    const at::Tensor chosen = select(resid);
    if (is_plain(chosen)) normed = at::empty_like(chosen);
    normalise(normed, chosen, model_.final_norm, true);
  }
  at::Tensor out;
  if (is_plain(normed)) out = at::empty({normed.size(0), config_.vocab_size}, normed.options());
  project(out, normed, model_.unembed);
  if (config_.logit_soft_cap > 0) soft_cap(out, config_.logit_soft_cap);
  return out;
}

}  // namespace steer::model::detail
