// Our kernels on the CPU: f32 rows in raw memory, in buffers that are used again.

#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>

#include "core/crew.hpp"
#include "model/backend.hpp"
#include "model/cpu_loops.hpp"
#include "model/experts.hpp"

namespace steer::model::detail {
namespace {

/// Elements below which a second thread costs more than it saves.
constexpr std::int64_t kGrain = 8192;
/// An activation function is some ten times the work of a sum.
constexpr std::int64_t kActivationGrain = kGrain / 4;

/// Calls f(begin, end) over rows, on several threads where there is enough to do.
template <class F>
void over_rows(std::int64_t rows, std::int64_t width, const F& f) {
  core::detail::run_ranges(rows, kGrain / std::max<std::int64_t>(width, 1), f);
}

const float* data(const at::Tensor& t) { return t.defined() ? t.const_data_ptr<float>() : nullptr; }
float* mutable_data(at::Tensor& t) { return static_cast<float*>(t.data_ptr()); }

void norm_rows(float* out, const float* x, const Norm& norm, bool with_gain, std::int64_t rows, std::int64_t width) {
  const float* gain = with_gain ? data(norm.gain) : nullptr;
  const float* bias = with_gain ? data(norm.bias) : nullptr;
  const auto eps = static_cast<float>(norm.eps);
  over_rows(rows, width, [&](std::int64_t begin, std::int64_t end) {
    if (norm.kind == NormKind::rms)
      cpu::loops().rms_norm(out + begin * width, x + begin * width, gain, end - begin, width, eps);
    else
      cpu::loops().layer_norm(out + begin * width, x + begin * width, gain, bias, end - begin, width, eps);
  });
}

}  // namespace

void CpuBackend::begin(std::int64_t tokens, std::int64_t) {
  // Tensors made under InferenceMode cannot be edited outside of it.
  const bool usable = buffers_.empty() || buffers_[0].is_inference() == c10::InferenceMode::is_enabled();
  if (tokens != tokens_ || !usable) buffers_.clear();
  tokens_ = tokens;
}

at::Tensor CpuBackend::buffer(std::int64_t rows, std::int64_t width) {
  for (const auto& b : buffers_)
    if (b.use_count() == 1 && b.size(0) == rows && b.size(1) == width && b.storage().use_count() == 1) return b;
  at::Tensor made = at::empty({rows, width}, at::kFloat);
  constexpr std::size_t kMost = 32;  // more are only in use where a hook keeps them, against its contract
  if (buffers_.size() < kMost) buffers_.push_back(made);
  return made;
}

at::Tensor CpuBackend::norm(const at::Tensor& x, const Norm& norm, bool with_gain) {
  at::Tensor out = buffer(x.size(0), x.size(1));
  norm_rows(mutable_data(out), data(x), norm, with_gain, x.size(0), x.size(1));
  return out;
}

void CpuBackend::gain(at::Tensor& x, const Norm& norm) {
  float* rows = mutable_data(x);
  const std::int64_t width = x.size(1);
  over_rows(x.size(0), width, [&](std::int64_t begin, std::int64_t end) {
    cpu::loops().multiply_add_rows(rows + begin * width, data(norm.gain), data(norm.bias), end - begin, width);
  });
}

void CpuBackend::norm_heads(at::Tensor& x, const Norm& norm) {
  const std::int64_t width = norm.gain.size(0);
  norm_rows(mutable_data(x), data(x), norm, true, x.numel() / width, width);
}

void CpuBackend::linear(const at::Tensor& x, std::span<const Product> products, const Rows&) {
  std::vector<LinearCall> calls;
  calls.reserve(products.size());
  for (const auto& p : products) {
    *p.y = buffer(x.size(0), p.weight->out_features());
    calls.push_back({p.weight, mutable_data(*p.y), 0});
  }
  apply_together(data(x), x.size(0), calls, model_.rounding);
}

void CpuBackend::rotate(at::Tensor& x, const RopeTables::Rows& rope) {
  float* rows = mutable_data(x);
  const std::int64_t half = rope.cos.size(1), width = x.size(1), d = model_.part.d_head;
  over_rows(x.size(0), width, [&](std::int64_t begin, std::int64_t end) {
    cpu::loops().rotate(rows + begin * width, data(rope.cos) + begin * half, data(rope.sin) + begin * half, end - begin,
                        width / d, d, half);
  });
}

void CpuBackend::store(std::int64_t layer, const at::Tensor& k, const at::Tensor& v, const Rows& rows) {
  reserve(layer, rows);
  over_rows(std::ssize(rows.runs), 2 * k.size(1), [&](std::int64_t first, std::int64_t last) {
    for (auto i = static_cast<std::size_t>(first); i < static_cast<std::size_t>(last); ++i) {
      const auto& run = rows.runs[i];
      cpu::store_kv(cache_of(rows, i, layer).views, cache_.format(), data(k) + run.begin * k.size(1),
                    data(v) + run.begin * v.size(1), run.end - run.begin, run.position, model_.part.n_kv_heads,
                    model_.part.d_head);
    }
  });
}

cpu::AttentionArgs CpuBackend::attention(std::int64_t layer, const at::Tensor& q, const Rows& rows,
                                         std::size_t run) const {
  const ModelConfig& c = model_.part;
  return {.q = data(q) + rows.runs[run].begin * q.size(1),
          .blocks = cache_of(rows, run, layer).views,
          .format = cache_.format(),
          .queries = rows.runs[run].end - rows.runs[run].begin,
          .position = rows.runs[run].position,
          .n_heads = c.n_heads,
          .n_kv_heads = c.n_kv_heads,
          .d_head = c.d_head,
          .window = c.layers[static_cast<std::size_t>(layer)].window,
          .scale = static_cast<float>(c.attn_scale),
          .soft_cap = static_cast<float>(c.attn_soft_cap),
          .sinks = data(model_.layers[static_cast<std::size_t>(layer)].sinks)};
}

at::Tensor CpuBackend::attend(std::int64_t layer, const at::Tensor& q, const Rows& rows) {
  at::Tensor z = buffer(q.size(0), q.size(1));
  std::vector<cpu::AttentionArgs> runs;
  runs.reserve(rows.runs.size());
  for (std::size_t i = 0; i < rows.runs.size(); ++i) {
    runs.push_back(attention(layer, q, rows, i));
    runs.back().z = mutable_data(z) + rows.runs[i].begin * z.size(1);
  }
  cpu::attend(runs);
  return z;
}

at::Tensor CpuBackend::pattern(std::int64_t layer, const at::Tensor& q, const Rows& rows, std::size_t run) {
  cpu::AttentionArgs args = attention(layer, q, rows, run);
  at::Tensor out = at::empty({args.n_heads, args.queries, args.position + args.queries}, at::kFloat);
  args.pattern = mutable_data(out);
  cpu::attend({&args, 1});
  return out;
}

void CpuBackend::activate(at::Tensor& gate, const at::Tensor& up) {
  float* x = mutable_data(gate);
  if (const auto limit = static_cast<float>(model_.part.glu_limit); limit > 0) {
    core::detail::run_ranges(gate.numel(), kActivationGrain, [&](std::int64_t begin, std::int64_t end) {
      cpu::loops().clamped_glu(x + begin, data(up) + begin, end - begin, limit);
    });
    return;
  }
  core::detail::run_ranges(gate.numel(), kActivationGrain, [&](std::int64_t begin, std::int64_t end) {
    cpu::loops().activate(x + begin, x + begin, up.defined() ? data(up) + begin : nullptr, end - begin,
                          model_.part.activation);
  });
}

void CpuBackend::gate(at::Tensor& x, const at::Tensor& by) {
  float* rows = mutable_data(x);
  core::detail::run_ranges(x.numel(), kActivationGrain, [&](std::int64_t begin, std::int64_t end) {
    cpu::loops().sigmoid_gate(rows + begin, data(by) + begin, end - begin);
  });
}

void CpuBackend::scale_rows(at::Tensor& x, const at::Tensor& factors) {
  float* rows = mutable_data(x);
  const std::int64_t width = x.size(1);
  over_rows(x.size(0), width, [&](std::int64_t begin, std::int64_t end) {
    cpu::loops().scale_rows(rows + begin * width, data(factors) + begin, end - begin, width);
  });
}

at::Tensor CpuBackend::experts(const at::Tensor& x, const at::Tensor& router, std::span<const MlpWeights> each,
                               const Rows&) {
  const std::int64_t width = x.size(1), inner = model_.part.experts.d_mlp;
  const Routing routing = route(data(router), x.size(0), model_.part.experts);
  // All experts' rows one after another, so that a product of all is one parallel region.
  const std::int64_t all = x.size(0) * model_.part.experts.per_token;
  at::Tensor in = buffer(all, width), gate = buffer(all, inner), up = buffer(all, inner), made = buffer(all, width);
  std::vector<LinearCall> calls;
  calls.reserve(3 * each.size());
  std::vector<LinearGroup> widen, narrow;
  std::int64_t begin = 0;
  for (std::size_t e = 0; e < each.size(); ++e) {
    const auto& chosen = routing[e];
    const auto rows = std::ssize(chosen);
    if (rows == 0) continue;
    const float* from = data(x) + chosen.front().row * width;
    if (rows > 1) {
      float* to = mutable_data(in) + begin * width;
      from = to;
      for (const auto& routed : chosen) to = std::copy_n(data(x) + routed.row * width, width, to);
    }
    float *const g = mutable_data(gate) + begin * inner, *const u = mutable_data(up) + begin * inner;
    const LinearCall* const first = calls.data() + calls.size();
    calls.insert(calls.end(), {{&each[e].gate, g, 0}, {&each[e].up, u, 0}});
    calls.push_back({&each[e].down, mutable_data(made) + begin * width, 0});
    widen.push_back({from, rows, {first, 2}});
    narrow.push_back({g, rows, {first + 2, 1}});
    begin += rows;
  }
  apply_together(widen, model_.rounding);
  activate(gate, up);
  apply_together(narrow, model_.rounding);
  // Experts add to a row in their order, whatever other rows there are.
  at::Tensor out = buffer(x.size(0), width);
  over_rows(x.size(0), width * model_.part.experts.per_token, [&](std::int64_t first, std::int64_t last) {
    std::fill(mutable_data(out) + first * width, mutable_data(out) + last * width, 0.0f);
    const float* from = data(made);
    for (const auto& chosen : routing)
      for (const auto& [row, weight] : chosen) {
        if (row >= first && row < last)
          cpu::loops().add_scaled_row(mutable_data(out) + row * width, from, weight, width);
        from += width;
      }
  });
  return out;
}

at::Tensor CpuBackend::recur(const DeltaNetWeights& weights, const at::Tensor& qkv, const at::Tensor& beta,
                             const at::Tensor& alpha, std::span<const DeltaNetRun> runs,
                             std::span<RecurrentState> after) {
  return delta_net_on_cpu(model_.part.delta_net, weights, qkv, beta, alpha, runs, after);
}

void CpuBackend::add(at::Tensor& x, const at::Tensor& y) {
  float* to = mutable_data(x);
  const float* from = data(y);
  over_rows(x.numel(), 1,
            [&](std::int64_t begin, std::int64_t end) { cpu::loops().add(to + begin, from + begin, end - begin); });
}

at::Tensor CpuBackend::unembed(const at::Tensor& x, const Rows&) {
  at::Tensor out = at::empty({x.size(0), model_.part.vocab_size}, at::kFloat);
  float* logits = mutable_data(out);
  model_.unembed.apply(data(x), x.size(0), logits, model_.rounding);
  if (model_.part.logit_scale != 1) out.mul_(model_.part.logit_scale);
  if (const auto cap = static_cast<float>(model_.part.logit_soft_cap); cap > 0)
    core::detail::run_ranges(out.numel(), kActivationGrain, [&](std::int64_t begin, std::int64_t end) {
      cpu::loops().soft_cap(logits + begin, end - begin, cap);
    });
  return out;
}

}  // namespace steer::model::detail
