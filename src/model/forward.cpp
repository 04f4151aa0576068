#include "model/forward.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include <steer/core/error.hpp>

#include "model/send.hpp"
#include "model/split.hpp"

namespace steer::model::detail {

Forward::Forward(const Transformer& model, HookTable& hooks, KvCache& cache, const SessionOptions& options)
    : model_(model),
      config_(model.config),
      hooks_(hooks),
      ropes_(model),
      aten_(model, cache, options.batch_invariant),
      kernels_(options.backend == BackendKind::automatic ? make_kernel_backend(model, cache, options.batch_invariant)
                                                         : nullptr) {}

at::Tensor Forward::run(const BatchView& batch, std::span<SequenceCache* const> sequences, std::int64_t first,
                        std::int64_t last, const at::Tensor& residual, const LogitRows& wanted, const Replay& replay) {
  if (model_.split) model_.split->agree(batch, first, last, hooks_on_parts(first, last));
  ops_ = kernels_ ? kernels_.get() : &aten_;
  ops_->begin(batch.size(), last);
  if (ops_ != &aten_) aten_.begin(batch.size(), last);
  if (replay.allowed && wanted.all && first == 0 && last == config_.n_layers)
    if (at::Tensor out = replayed(batch, sequences, replay); out.defined()) return out;
  return layers(batch, {batch.runs, sequences, ropes_.rows(batch.runs)}, first, last, residual, wanted);
}

at::Tensor Forward::layers(const BatchView& batch, Rows rows, std::int64_t first, std::int64_t last,
                           const at::Tensor& residual, const LogitRows& wanted) {
  batch_ = &batch;
  all_ = std::move(rows);
  rows_ = &all_;
  at::Tensor resid;
  if (first == 0) {
    resid = ops_->embed(batch);
    hook(Site::embed, 0, resid);
  } else {
    resid = residual.clone(at::MemoryFormat::Contiguous);  // layers add in place
    follow_gradient(resid);
  }
  for (std::int64_t i = first; i < last; ++i) layer(i, resid, only_some_rows_matter(i, wanted) ? &wanted : nullptr);
  settle(resid);
  return last == config_.n_layers ? logits(resid, wanted) : at::Tensor();
}

/// Undefined where the backend records nothing of the kind.
at::Tensor Forward::replayed(const BatchView& batch, std::span<SequenceCache* const> sequences, const Replay& replay) {
  if (replay.edits && !replay.edits->begin(batch, replay.groups)) return {};
  replay_ = &replay;
  const auto end = [](Forward* self) { self->replay_ = nullptr; };
  const std::unique_ptr<Forward, decltype(end)> ending(this, end);
  at::Tensor out = ops_->replay(batch, sequences, ropes_, replay.edits, [&](const BatchView& all, const Rows& rows) {
    return layers(all, rows, 0, config_.n_layers, {}, {.all = true});
  });
  if (out.defined() && replay.edits) replay.edits->note();
  return out;
}

/// One layer. @param only  given: the rows that go on from its attention; of all others nothing but keys and values is
///                         ever used again. A row's bits are the same either way.
void Forward::layer(std::int64_t layer, at::Tensor& resid, const LogitRows* only) {
  hook_resid(Site::resid_pre, layer, resid);
  const bool recurrent = config_.layers[static_cast<std::size_t>(layer)].mixer == MixerKind::delta_net;
  at::Tensor attn_out = recurrent ? delta_net(layer, resid, only) : attention(layer, resid, only);
  if (!config_.parallel_residual) {
    pending_ = attn_out;
    hook_resid(Site::resid_mid, layer, resid);
  }
  at::Tensor mlp_out = mlp(layer, resid);  // may change `ops_`
  if (config_.parallel_residual) ops_->add(mlp_out, attn_out);
  pending_ = mlp_out;
  hook_resid(Site::resid_post, layer, resid);
}

/// Adds what is still to be added to the stream.
void Forward::settle(at::Tensor& resid) {
  if (const at::Tensor out = std::exchange(pending_, {}); out.defined()) ops_->add(resid, out);
}

void Forward::hook_resid(Site site, std::int64_t layer, at::Tensor& resid) {
  if (!hooks_.any(site, layer)) [[likely]]
    return;
  settle(resid);
  fire(site, layer, resid, *batch_);
}

/// Leaves the rows of `only` in `resid` and in `rows_`.
at::Tensor Forward::attention(std::int64_t layer, at::Tensor& resid, const LogitRows* only) {
  const LayerWeights& w = model_.layers[static_cast<std::size_t>(layer)];
  const at::Tensor normed = norm(resid, w.ln1, Site::ln1, layer);
  at::Tensor q, k, v, gate;
  if (only) {
    ops_->linear(normed, std::array{Product{&w.k, &k}, Product{&w.v, &v}}, all_);
    narrow_to(*only);
    resid = narrow(resid);
    q = linear(narrow(normed), w.q);
  } else {
    ops_->linear(normed, std::array{Product{&w.q, &q}, Product{&w.k, &k}, Product{&w.v, &v}}, all_);
  }
  if (w.q_gate.defined()) gate = linear(only ? narrow(normed) : normed, w.q_gate);
  if (w.q_norm) {
    norm_heads(q, w.q_norm, Site::attn_q);
    norm_heads(k, w.k_norm, Site::attn_k);
  }
  hook(Site::attn_q, layer, q);
  hook(Site::attn_k, layer, k);
  hook(Site::attn_v, layer, v);
  const auto rope = static_cast<std::size_t>(w.rope);
  if (rows_ == &all_) {
    ops_->rotate_and_store(layer, q, k, v, w.rope >= 0 ? &all_.ropes[rope] : nullptr, all_);
  } else {
    if (w.rope >= 0) {
      ops_->rotate(q, rows_->ropes[rope]);
      ops_->rotate(k, all_.ropes[rope]);
    }
    ops_->store(layer, k, v, all_);
  }
  if (config_.query_growth != 0) ops_->scale_rows(q, query_growth());
  at::Tensor z = attend(layer, q);
  if (gate.defined()) ops_->gate(z, gate);
  hook(Site::attn_z, layer, z);
  return finished(summed(linear(z, w.o)), w.post_attn, Site::attn_out, layer);
}

/// Where several processes compute a layer, each has a part of what its last product adds up.
at::Tensor Forward::summed(const at::Tensor& part) const { return model_.split ? model_.split->sum(part) : part; }

/// Each head by itself, or all together, for which all must be there.
void Forward::norm_heads(at::Tensor& x, const Norm& norm, Site site) {
  if (!model_.split || !config_.qk_norm_whole) return ops_->norm_heads(x, norm);
  at::Tensor all = model_.split->whole(site, x);
  ops_->norm_heads(all, norm);
  x = model_.split->part(site, all);
}

/// What attention or an MLP adds to the stream.
at::Tensor Forward::finished(at::Tensor out, const Norm& post, Site site, std::int64_t layer) {
  if (post) out = ops_->norm(out, post, true);
  if (config_.residual_scale != 1) ops_->scale(out, config_.residual_scale);
  hook(site, layer, out);
  return out;
}

/// Factors [rows] of queries far from the start.
at::Tensor Forward::query_growth() const {
  at::Tensor out = at::empty({rows_->runs.empty() ? 0 : rows_->runs.back().end}, at::kFloat);
  auto* factor = out.data_ptr<float>();
  for (const auto& run : rows_->runs)
    for (std::int64_t row = run.begin; row < run.end; ++row) {
      const std::int64_t position = run.position + row - run.begin;
      factor[row] = static_cast<float>(
          1 + config_.query_growth * std::log(1 + static_cast<double>(position / config_.query_growth_period)));
    }
  return send(out, model_.device);
}

/// A layer that keeps a state instead of keys and values. All rows go through it: each leaves a trace.
at::Tensor Forward::delta_net(std::int64_t layer, at::Tensor& resid, const LogitRows* only) {
  const LayerWeights& all = model_.layers[static_cast<std::size_t>(layer)];
  const DeltaNetWeights& w = all.delta_net;
  const at::Tensor normed = norm(resid, all.ln1, Site::ln1, layer);
  at::Tensor qkv, z, beta, alpha;
  ops_->linear(normed,
               std::array{Product{&w.qkv, &qkv}, Product{&w.z, &z}, Product{&w.beta, &beta}, Product{&w.alpha, &alpha}},
               all_);
  at::Tensor out = ops_->delta_net(layer, qkv, beta, alpha, all_);
  ops_->norm_heads(out, w.norm);
  ops_->activate(z, out);
  if (only) {
    narrow_to(*only);
    resid = narrow(resid);
    z = narrow(z);
  }
  return finished(linear(z, w.out), all.post_attn, Site::attn_out, layer);
}

at::Tensor Forward::attend(std::int64_t layer, const at::Tensor& q) {
  if (!hooks_.any(Site::attn_pattern, layer)) [[likely]]
    return ops_->attend(layer, q, *rows_);
  const bool edited = hooks_.any_editing(Site::attn_pattern, layer);
  std::vector<at::Tensor> parts;
  for (std::size_t i = 0; i < rows_->runs.size(); ++i) {
    at::Tensor pattern = ops_->pattern(layer, q, *rows_, i);
    TokenRun alone = rows_->runs[i];
    const auto ids =
        batch_->ids.subspan(static_cast<std::size_t>(alone.begin), static_cast<std::size_t>(alone.end - alone.begin));
    alone.end -= std::exchange(alone.begin, 0);
    fire(Site::attn_pattern, layer, pattern, {ids, {&alone, 1}});
    if (edited) parts.push_back(aten_.mix(layer, pattern, *rows_, i));
  }
  return edited ? at::cat(parts) : ops_->attend(layer, q, *rows_);
}

at::Tensor Forward::mlp(std::int64_t layer, at::Tensor& resid) {
  const LayerWeights& w = model_.layers[static_cast<std::size_t>(layer)];
  const at::Tensor normed = norm(resid, w.ln2, Site::ln2, layer);
  if (config_.layers[static_cast<std::size_t>(layer)].experts)
    return finished(summed(experts(layer, normed)), w.post_mlp, Site::mlp_out, layer);
  at::Tensor gate, up;
  const Product both[] = {{&w.gate, &gate}, {&w.up, &up}};
  ops_->linear(normed, std::span(both).first(w.up.defined() ? 2 : 1), *rows_);
  hook(Site::mlp_pre, layer, gate);
  ops_->activate(gate, up);
  hook(Site::mlp_post, layer, gate);
  return finished(summed(linear(gate, w.down)), w.post_mlp, Site::mlp_out, layer);
}

at::Tensor Forward::experts(std::int64_t layer, const at::Tensor& x) {
  const ExpertWeights& w = model_.layers[static_cast<std::size_t>(layer)].experts;
  at::Tensor router = linear(x, w.router);
  hook(Site::router_logits, layer, router);
  at::Tensor out = ops_->experts(x, router, w.each, *rows_);
  if (w.shared_gate.defined()) {
    at::Tensor shared = dense(x, w.shared), share = at::ones({x.size(0), 1}, x.options());
    ops_->gate(share, linear(x, w.shared_gate));
    ops_->scale_rows(shared, share);
    ops_->add(out, shared);
  }
  return out;
}

at::Tensor Forward::dense(const at::Tensor& x, const MlpWeights& w) {
  at::Tensor gate, up;
  ops_->linear(x, std::array{Product{&w.gate, &gate}, Product{&w.up, &up}}, *rows_);
  ops_->activate(gate, up);
  return linear(gate, w.down);
}

at::Tensor Forward::logits(const at::Tensor& resid, const LogitRows& wanted) {
  const bool hooked = hooks_.any(Site::ln_final, 0), none = !wanted.all && wanted.rows.empty();
  if (none && !hooked) return {};
  narrow_to(wanted);
  at::Tensor last = hooked ? resid : narrow(resid);
  const at::Tensor normed = norm(last, model_.final_norm, Site::ln_final, 0);
  return none ? at::Tensor() : ops_->unembed(narrow(normed), *rows_);
}

/// x is the stream: what is still to be added to it is added on the way.
at::Tensor Forward::norm(at::Tensor& x, const Norm& norm, Site site, std::int64_t layer) {
  const bool hooked = hooks_.any(site, layer);
  if (norm && !hooked && pending_.defined()) [[likely]]
    return ops_->add_norm(x, std::exchange(pending_, {}), norm);
  settle(x);
  if (!norm) return x;  // a family without norms here
  if (!hooked) return ops_->norm(x, norm, true);
  at::Tensor out = ops_->norm(x, norm, false);
  fire(site, layer, out, *batch_);
  ops_->gain(out, norm);
  return out;
}

at::Tensor Forward::linear(const at::Tensor& x, const Linear& weight) {
  at::Tensor y;
  ops_->linear(x, std::array{Product{&weight, &y}}, *rows_);
  return y;
}

/// Whether this is the last layer, some rows are wanted, and no hook from here on is to see the others.
bool Forward::only_some_rows_matter(std::int64_t layer, const LogitRows& wanted) const {
  if (layer + 1 < config_.n_layers || wanted.all || std::ssize(wanted.rows) == batch_->size()) return false;
  return std::ranges::none_of(EnumTable<Site>::entries, [&](const auto& site) {
    if (site.value == Site::embed) return false;
    return hooks_.any(site.value, site.value == Site::ln_final ? 0 : layer);
  });
}

/// From here on only the wanted rows matter.
void Forward::narrow_to(const LogitRows& wanted) {
  if (wanted.all || rows_ == &some_ || std::ssize(wanted.rows) == batch_->size()) return;
  some_runs_.clear();
  some_sequences_.clear();
  std::size_t i = 0;
  for (const std::int64_t row : wanted.rows) {
    while (all_.runs[i].end <= row) ++i;
    TokenRun run = all_.runs[i];
    run.position += row - run.begin;
    run.begin = std::ssize(some_runs_);
    run.end = run.begin + 1;
    some_runs_.push_back(run);
    some_sequences_.push_back(all_.sequences[i]);
  }
  some_index_ = send(at::tensor(wanted.rows, at::kLong), model_.device);
  some_ = {some_runs_, some_sequences_, {}};
  rows_ = &some_;
  for (const auto& rope : all_.ropes) some_.ropes.push_back({narrow(rope.cos), narrow(rope.sin)});
}

/// The rows of x that matter; x may have been narrowed already.
at::Tensor Forward::narrow(const at::Tensor& x) const {
  return rows_ == &all_ || x.size(0) != batch_->size() ? x : x.index_select(0, some_index_);
}

/// Points of layers [first, last) with hooks that are shown values put together from parts.
std::int64_t Forward::hooks_on_parts(std::int64_t first, std::int64_t last) const {
  std::int64_t count = 0;
  for (const auto& site : EnumTable<Site>::entries) {
    if (!model_.split->divides(site.value)) continue;
    for (std::int64_t layer = first; layer < last; ++layer) count += hooks_.any(site.value, layer);
  }
  return count;
}

void Forward::fire(Site site, std::int64_t layer, at::Tensor& value, const BatchView& batch) {
  if (replay_) {
    if (replay_->edits) replay_->edits->launch({site, layer}, value);
    return;
  }
  const bool divided = model_.split && model_.split->divides(site);
  if (divided) value = model_.split->whole(site, value);
  const at::Tensor own = value;
  hooks_.fire({site, layer}, value, batch);
  if (divided) {
    follow_gradient(value);
    value = model_.split->part(site, value);
    return;
  }
  // Later operations write in place: into our buffer, not into a tensor the hook's owner may still use.
  if (!value.is_same(own) || !value.is_contiguous()) value = value.clone(at::MemoryFormat::Contiguous);
  follow_gradient(value);
}

/// From a value on that a gradient hangs on, libtorch's operators compute.
void Forward::follow_gradient(const at::Tensor& value) {
  if (!value.requires_grad() || !at::GradMode::is_enabled()) return;
  require(!model_.split, ErrorCode::unsupported, "Session",
          "expected values without gradients where several processes compute a model (LoadOptions::parallel); load it "
          "in one process");
  if (ops_ == &aten_) return;
  ops_->release();
  ops_ = &aten_;
}

}  // namespace steer::model::detail
