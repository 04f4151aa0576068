// libtorch's operators. The other backends are compared with these, so each function is the formula and no more.

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros_like.h>

#include <limits>

#include "model/backend.hpp"

namespace steer::model::detail {
namespace {

at::Tensor normalised(const at::Tensor& x, const Norm& norm) {
  if (norm.kind == NormKind::rms) return x * at::rsqrt(x.square().mean(-1, true) + norm.eps);
  const auto centred = x - x.mean(-1, true);
  return centred * at::rsqrt(centred.square().mean(-1, true) + norm.eps);
}

at::Tensor soft_cap(const at::Tensor& x, double cap) { return cap > 0 ? at::tanh(x / cap) * cap : x; }

at::Tensor joined(const std::vector<at::Tensor>& parts) { return parts.size() == 1 ? parts[0] : at::cat(parts); }

}  // namespace

at::Tensor AtenBackend::norm(const at::Tensor& x, const Norm& norm, bool with_gain) {
  at::Tensor out = normalised(x, norm);
  if (with_gain) gain(out, norm);
  return out;
}

void AtenBackend::gain(at::Tensor& x, const Norm& norm) {
  x = x * norm.gain;
  if (norm.bias.defined()) x = x + norm.bias;
}

void AtenBackend::norm_heads(at::Tensor& x, const Norm& norm) {
  const std::int64_t width = norm.gain.size(0);
  x = (normalised(x.reshape({x.numel() / width, width}), norm) * norm.gain).reshape(x.sizes());
}

/// libtorch's products depend on the number of rows, so with `batch_invariant` each run gets one of its own.
void AtenBackend::linear(const at::Tensor& x, std::span<const Product> products, const Rows& rows) {
  for (const auto& p : products) {
    const at::Tensor weight = p.weight->to_f32();
    const at::Tensor& bias = p.weight->bias();
    if (!batch_invariant_ || rows.runs.size() < 2) {
      *p.y = at::linear(x, weight, bias);
      continue;
    }
    std::vector<at::Tensor> parts;
    for (const auto& run : rows.runs)
      parts.push_back(at::linear(x.narrow(0, run.begin, run.end - run.begin), weight, bias));
    *p.y = at::cat(parts);
  }
}

at::Tensor AtenBackend::product(const at::Tensor& x, const Linear& weight, const Rows& rows) {
  at::Tensor y;
  const Product one{&weight, &y};
  linear(x, {&one, 1}, rows);
  return y;
}

void AtenBackend::rotate(at::Tensor& x, const RopeTables::Rows& rope) {
  const std::int64_t half = rope.cos.size(1), d = model_.part.d_head;
  const auto by_head = x.reshape({x.size(0), x.size(1) / d, d});
  const auto a = by_head.narrow(2, 0, half), b = by_head.narrow(2, half, half);
  const auto c = rope.cos.unsqueeze(1), s = rope.sin.unsqueeze(1);
  x = at::cat(std::vector<at::Tensor>{a * c - b * s, b * c + a * s, by_head.narrow(2, 2 * half, d - 2 * half)}, 2)
          .reshape(x.sizes());
}

void AtenBackend::store(std::int64_t layer, const at::Tensor& k, const at::Tensor& v, const Rows& rows) {
  reserve(layer, rows);
  for (std::size_t i = 0; i < rows.runs.size(); ++i) {
    const auto& run = rows.runs[i];
    const std::int64_t count = run.end - run.begin;
    cache_.store(cache_of(rows, i, layer), run.position, k.narrow(0, run.begin, count), v.narrow(0, run.begin, count));
  }
  if (!at::GradMode::is_enabled() || !(k.requires_grad() || v.requires_grad())) return;
  stored_layer_ = layer;
  k_ = cache_.rounded(k), v_ = cache_.rounded(v);
  stored_runs_.assign(rows.runs.begin(), rows.runs.end());
}

/// Keys [kv_heads, d_head, tokens] and values [kv_heads, tokens, d_head] up to a run's end.
std::pair<at::Tensor, at::Tensor> AtenBackend::keys_and_values(std::int64_t layer, const Rows& rows,
                                                               std::size_t run) const {
  const TokenRun& own = rows.runs[run];
  const LayerCache& cache = cache_of(rows, run, layer);
  const std::int64_t total = own.position + own.end - own.begin, kv_heads = model_.part.n_kv_heads;
  if (layer != stored_layer_) return cache_.gather(cache, total);
  std::int64_t cached = total;
  std::vector<at::Tensor> keys(1), values(1);
  for (const auto& other : stored_runs_) {
    if (other.sequence != own.sequence || other.position >= total) continue;
    const std::int64_t count = std::min(other.end - other.begin, total - other.position);
    const auto by_head = [&](const at::Tensor& t) {
      return t.narrow(0, other.begin, count).reshape({count, kv_heads, model_.part.d_head});
    };
    keys.push_back(by_head(k_).permute({1, 2, 0}));
    values.push_back(by_head(v_).permute({1, 0, 2}));
    cached = std::min(cached, other.position);
  }
  std::tie(keys[0], values[0]) = cache_.gather(cache, cached);
  return {at::cat(keys, 2), at::cat(values, 1)};
}

at::Tensor AtenBackend::pattern(std::int64_t layer, const at::Tensor& q, const Rows& rows, std::size_t i) {
  const ModelConfig& c = model_.part;
  const TokenRun& run = rows.runs[i];
  const std::int64_t count = run.end - run.begin, total = run.position + count, group = c.n_heads / c.n_kv_heads,
                     window = c.layers[static_cast<std::size_t>(layer)].window;
  const at::Tensor keys = keys_and_values(layer, rows, i).first;
  const at::Tensor queries = q.narrow(0, run.begin, count)
                                 .reshape({count, c.n_kv_heads, group, c.d_head})
                                 .permute({1, 2, 0, 3})
                                 .reshape({c.n_kv_heads, group * count, c.d_head});
  const at::Tensor scores =
      soft_cap(at::matmul(queries, keys) * c.attn_scale, c.attn_soft_cap).reshape({c.n_heads, count, total});
  const auto options = at::TensorOptions().dtype(at::kLong).device(q.device());
  const at::Tensor at_query = at::arange(run.position, total, options).unsqueeze(1),
                   at_key = at::arange(total, options).unsqueeze(0);
  at::Tensor hidden = at_key > at_query;
  if (window > 0) hidden = hidden | (at_key <= at_query - window);
  const at::Tensor seen = scores.masked_fill(hidden, -std::numeric_limits<float>::infinity());
  const at::Tensor& sinks = model_.layers[static_cast<std::size_t>(layer)].sinks;
  if (!sinks.defined()) return at::softmax(seen, -1);
  const at::Tensor nothing = sinks.reshape({-1, 1, 1}).expand({-1, count, 1});
  return at::softmax(at::cat(std::vector<at::Tensor>{seen, nothing}, -1), -1).narrow(-1, 0, total);
}

at::Tensor AtenBackend::mix(std::int64_t layer, const at::Tensor& pattern, const Rows& rows, std::size_t run) {
  const ModelConfig& c = model_.part;
  const std::int64_t count = pattern.size(1), group = c.n_heads / c.n_kv_heads;
  const at::Tensor values = keys_and_values(layer, rows, run).second;
  return at::matmul(pattern.reshape({c.n_kv_heads, group * count, pattern.size(2)}), values)
      .reshape({c.n_heads, count, c.d_head})
      .permute({1, 0, 2})
      .reshape({count, c.n_heads * c.d_head});
}

at::Tensor AtenBackend::attend(std::int64_t layer, const at::Tensor& q, const Rows& rows) {
  if (rows.runs.empty()) return at::empty_like(q);
  std::vector<at::Tensor> parts;
  for (std::size_t i = 0; i < rows.runs.size(); ++i) parts.push_back(mix(layer, pattern(layer, q, rows, i), rows, i));
  return joined(parts);
}

void AtenBackend::activate(at::Tensor& gate, const at::Tensor& up) {
  const auto act = [&] {
    switch (model_.part.activation) {
      case ActivationKind::silu:
        return at::silu(gate);
      case ActivationKind::gelu:
        return at::gelu(gate);
      case ActivationKind::gelu_tanh:
        return at::gelu(gate, "tanh");
      case ActivationKind::relu:
        return at::relu(gate);
    }
    return at::Tensor();
  };
  if (const double limit = model_.part.glu_limit; limit > 0) {
    const at::Tensor g = gate.clamp_max(limit);
    gate = (up.clamp(-limit, limit) + 1) * g * at::sigmoid(1.702 * g);
    return;
  }
  gate = up.defined() ? act() * up : act();
}

void AtenBackend::gate(at::Tensor& x, const at::Tensor& by) { x = x * at::sigmoid(by); }

void AtenBackend::scale_rows(at::Tensor& x, const at::Tensor& factors) { x = x * factors.reshape({-1, 1}); }

at::Tensor AtenBackend::experts(const at::Tensor& x, const at::Tensor& router, std::span<const MlpWeights> each,
                                const Rows& rows) {
  const auto& c = model_.part.experts;
  const at::Tensor shares = at::softmax(router, -1);
  const at::Tensor chosen = std::get<1>(at::topk(router, c.per_token, -1));
  at::Tensor weights = at::zeros_like(shares).scatter(-1, chosen, shares.gather(-1, chosen));
  if (c.normalise) weights = weights / weights.sum(-1, true);
  at::Tensor out = at::zeros_like(x);
  for (std::int64_t e = 0; e < std::ssize(each); ++e) {
    const at::Tensor mine = at::nonzero(at::eq(chosen, e).any(-1)).flatten();
    if (mine.numel() == 0) continue;
    // The rows of each run by themselves, as everywhere where a row must not depend on its batch mates.
    std::vector<TokenRun> by_run;
    const at::Tensor on_host = mine.cpu();
    const std::int64_t* row = on_host.const_data_ptr<std::int64_t>();
    std::size_t run = 0;
    for (std::int64_t i = 0; i < mine.numel(); ++i) {
      const std::size_t before = run;
      while (rows.runs[run].end <= row[i]) ++run;
      if (by_run.empty() || run != before) by_run.push_back({.begin = i, .end = i});
      by_run.back().end = i + 1;
    }
    const Rows own{by_run, {}, {}};
    const at::Tensor in = x.index_select(0, mine);
    const auto& m = each[static_cast<std::size_t>(e)];
    at::Tensor gate = product(in, m.gate, own);
    activate(gate, product(in, m.up, own));
    out = out.index_add(0, mine, product(gate, m.down, own) * weights.index_select(0, mine).select(1, e).unsqueeze(1));
  }
  return out;
}

at::Tensor AtenBackend::recur(const DeltaNetWeights& weights, const at::Tensor& qkv, const at::Tensor& beta,
                              const at::Tensor& alpha, std::span<const DeltaNetRun> runs,
                              std::span<RecurrentState> after) {
  return delta_net_by_operators(model_.part.delta_net, weights, qkv, beta, alpha, runs, after);
}

at::Tensor AtenBackend::unembed(const at::Tensor& x, const Rows& rows) {
  return soft_cap(product(x, model_.unembed, rows) * model_.part.logit_scale, model_.part.logit_soft_cap);
}

}  // namespace steer::model::detail
