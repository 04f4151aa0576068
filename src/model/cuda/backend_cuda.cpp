#include "model/cuda/backend_cuda.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>

#include <span>

#include "model/cuda/runtime.hpp"
#include "model/cuda/tables.hpp"

namespace steer::model::detail {
namespace {

static_assert(cuda::kBlock == cpu::kBlock && sizeof(cuda::CacheBlock) == sizeof(cpu::BlockView));

/// Rows of x up to which reading the weights is all the time, so that widening them in registers costs nothing.
constexpr std::int64_t kFewRows = 8;
/// Blocks of threads that keep a large card busy; with fewer, attention spreads each query's keys over several.
constexpr std::int64_t kEnoughBlocks = 512;

const float* floats(const at::Tensor& t) { return t.defined() ? t.const_data_ptr<float>() : nullptr; }
float* floats_to_write(at::Tensor& t) { return static_cast<float*>(t.data_ptr()); }

cuda::Activation activation(ActivationKind kind) {
  switch (kind) {
    case ActivationKind::silu:
      return cuda::Activation::silu;
    case ActivationKind::gelu:
      return cuda::Activation::gelu;
    case ActivationKind::gelu_tanh:
      return cuda::Activation::gelu_tanh;
    case ActivationKind::relu:
      return cuda::Activation::relu;
  }
  return cuda::Activation::silu;
}

cuda::CacheType cache_type(CacheFormat format) {
  return format == CacheFormat::f32    ? cuda::CacheType::f32
         : format == CacheFormat::bf16 ? cuda::CacheType::bf16
                                       : cuda::CacheType::f16;
}

void norm_rows(at::Tensor& out, const at::Tensor& x, const Norm& norm, bool with_gain, std::int64_t width) {
  cuda::norm(cuda::current_stream(), floats_to_write(out), floats(x), with_gain ? floats(norm.gain) : nullptr,
             with_gain ? floats(norm.bias) : nullptr, x.numel() / width, width, static_cast<float>(norm.eps),
             norm.kind == NormKind::layer_norm);
}

}  // namespace

void CudaBackend::begin(std::int64_t tokens) {
  AtenBackend::begin(tokens);
  cuda::check_launch("Session::step");  // of the last pass: an error is late, not lost
}

at::Tensor CudaBackend::norm(const at::Tensor& x, const Norm& norm, bool with_gain) {
  at::Tensor out = at::empty_like(x);
  norm_rows(out, x, norm, with_gain, x.size(1));
  return out;
}

void CudaBackend::gain(at::Tensor& x, const Norm& norm) {
  cuda::multiply_add_rows(cuda::current_stream(), floats_to_write(x), floats(norm.gain), floats(norm.bias), x.size(0),
                          x.size(1));
}

void CudaBackend::norm_heads(at::Tensor& x, const Norm& norm) { norm_rows(x, x, norm, true, norm.gain.size(0)); }

void CudaBackend::rotate(at::Tensor& x, const RopeTables::Rows& rope) {
  const std::int64_t d = model_.part.d_head;
  cuda::rotate(cuda::current_stream(), floats_to_write(x), floats(rope.cos), floats(rope.sin), x.size(0), x.size(1) / d,
               d, rope.cos.size(1));
}

void CudaBackend::store(std::int64_t layer, const at::Tensor& k, const at::Tensor& v, const Rows& rows) {
  reserve(layer, rows);
  std::vector<cuda::CacheSlot> slots;
  slots.reserve(static_cast<std::size_t>(k.size(0)));
  for (std::size_t i = 0; i < rows.runs.size(); ++i) {
    const TokenRun& run = rows.runs[i];
    const auto& views = cache_of(rows, i, layer).views;
    for (std::int64_t p = run.position; p < run.position + run.end - run.begin; ++p) {
      const cpu::BlockView& block = views[static_cast<std::size_t>(p / cuda::kBlock)];
      slots.push_back({{block.k, block.v}, p % cuda::kBlock});
    }
  }
  cuda::Tables tables;
  const std::size_t at = tables.add(std::span<const cuda::CacheSlot>(slots));
  tables.send(k.device());
  cuda::store(cuda::current_stream(), tables.at<cuda::CacheSlot>(at), floats(k), floats(v), k.size(0),
              model_.part.n_kv_heads, model_.part.d_head, cache_type(cache_.format()));
}

at::Tensor CudaBackend::attend(std::int64_t layer, const at::Tensor& q, const Rows& rows) {
  const ModelConfig& c = model_.part;
  const std::int64_t group = c.n_heads / c.n_kv_heads;
  std::vector<cuda::CacheBlock> blocks;
  std::vector<cuda::AttentionRun> runs;
  std::vector<cuda::AttentionTile> tiles;
  std::int64_t longest = 0;
  for (std::size_t i = 0; i < rows.runs.size(); ++i) {
    const TokenRun& run = rows.runs[i];
    const std::int64_t queries = run.end - run.begin, keys = run.position + queries;
    const auto& views = cache_of(rows, i, layer).views;
    const auto used = static_cast<std::size_t>((keys + cuda::kBlock - 1) / cuda::kBlock);
    runs.push_back({run.begin, queries, run.position, std::ssize(blocks)});
    for (std::size_t b = 0; b < used; ++b) blocks.push_back({views[b].k, views[b].v});
    for (std::int64_t pair = 0; pair < queries * group; pair += cuda::kTilePairs)
      tiles.push_back({static_cast<std::int64_t>(i), pair});
    longest = std::max(longest, keys);
  }
  at::Tensor z = at::empty_like(q);
  cuda::Tables tables;
  const std::size_t at_blocks = tables.add(std::span<const cuda::CacheBlock>(blocks)),
                    at_runs = tables.add(std::span<const cuda::AttentionRun>(runs)),
                    at_tiles = tables.add(std::span<const cuda::AttentionTile>(tiles));
  tables.send(q.device());
  cuda::Attention a{.q = floats(q),
                    .z = floats_to_write(z),
                    .blocks = tables.at<cuda::CacheBlock>(at_blocks),
                    .runs = tables.at<cuda::AttentionRun>(at_runs),
                    .tiles = tables.at<cuda::AttentionTile>(at_tiles),
                    .tile_count = std::ssize(tiles),
                    .rows = q.size(0),
                    .splits = (longest + cuda::kSplitKeys - 1) / cuda::kSplitKeys,
                    .heads = c.n_heads,
                    .kv_heads = c.n_kv_heads,
                    .d_head = c.d_head,
                    .window = c.layers[static_cast<std::size_t>(layer)].window,
                    .scale = static_cast<float>(c.attn_scale),
                    .soft_cap = static_cast<float>(c.attn_soft_cap),
                    .sinks = floats(model_.layers[static_cast<std::size_t>(layer)].sinks),
                    .format = cache_type(cache_.format())};
  at::Tensor partial;
  if (a.splits > 1 && a.tile_count * a.kv_heads < kEnoughBlocks) {
    partial = at::empty({a.rows * a.heads * a.splits * (a.d_head + 2)}, q.options());
    a.partial = floats_to_write(partial);
  }
  cuda::attend(cuda::current_stream(), a);
  return z;
}

void CudaBackend::activate(at::Tensor& gate, const at::Tensor& up) {
  cuda::activate(cuda::current_stream(), floats_to_write(gate), floats(up), gate.numel(),
                 activation(model_.part.activation), static_cast<float>(model_.part.glu_limit));
}

void CudaBackend::gate(at::Tensor& x, const at::Tensor& by) {
  cuda::gate(cuda::current_stream(), floats_to_write(x), floats(by), x.numel());
}

void CudaBackend::scale_rows(at::Tensor& x, const at::Tensor& factors) {
  cuda::scale_rows(cuda::current_stream(), floats_to_write(x), floats(factors), x.size(0), x.size(1));
}

void CudaBackend::add(at::Tensor& x, const at::Tensor& y) {
  cuda::add(cuda::current_stream(), floats_to_write(x), floats(y), x.numel());
}

at::Tensor CudaBackend::product(const at::Tensor& x, const Linear& weight, const Rows&) const {
  if (x.size(0) > kFewRows && !batch_invariant_ && x.is_cuda()) return matrix_product(x, weight);
  const at::Tensor rows = x.contiguous();
  at::Tensor y = at::empty({x.size(0), weight.out_features()}, x.options());
  cuda::multiply(cuda::current_stream(), weight.view(), floats(weight.bias()), floats(rows), x.size(0),
                 floats_to_write(y));
  return y;
}

at::Tensor CudaBackend::matrix_product(const at::Tensor& x, const Linear& weight) const {
  const WeightView& w = weight.view();
  if (w.type == WeightType::f32) return at::linear(x, weight.to_f32(), weight.bias());
  const auto type = w.type == WeightType::f16 ? at::kHalf : at::kBFloat16;
  at::Tensor matrix;
  if (w.type == WeightType::f16 || w.type == WeightType::bf16) {
    matrix = weight.matrix();
  } else {
    matrix = at::empty({w.n, w.k}, x.options().dtype(type));
    cuda::widen_to_bf16(cuda::current_stream(), w, static_cast<std::uint16_t*>(matrix.data_ptr()));
  }
  at::Tensor y = at::mm(x.to(type), matrix.t(), at::kFloat);
  if (weight.bias().defined()) y += weight.bias();
  return y;
}

}  // namespace steer::model::detail
