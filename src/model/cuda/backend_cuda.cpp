#include "model/cuda/backend_cuda.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>

#include <algorithm>

#include "model/cuda/runtime.hpp"

namespace steer::model::detail {
namespace {

static_assert(cuda::kBlock == cpu::kBlock && sizeof(cuda::CacheBlock) == sizeof(cpu::BlockView));

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

/// @param added  undefined, or what is first added to x.
void norm_rows(at::Tensor& out, const at::Tensor& x, const at::Tensor& added, const Norm& norm, bool with_gain,
               std::int64_t width) {
  cuda::norm(cuda::current_stream(), floats_to_write(out), static_cast<float*>(x.data_ptr()), floats(added),
             with_gain ? floats(norm.gain) : nullptr, with_gain ? floats(norm.bias) : nullptr, x.numel() / width, width,
             static_cast<float>(norm.eps), norm.kind == NormKind::layer_norm);
}

}  // namespace

std::size_t CudaBackend::add_tokens(cuda::Tables& tables, const BatchView& batch) {
  std::vector<cuda::Embedded> tokens;
  for (const TokenRun& run : batch.runs)
    for (std::int64_t t = run.begin; t < run.end; ++t)
      tokens.push_back({batch.ids[static_cast<std::size_t>(t)], run.position + t - run.begin});
  return tables.add(std::span<const cuda::Embedded>(tokens));
}

void CudaBackend::begin(std::int64_t tokens, std::int64_t last) {
  AtenBackend::begin(tokens, last);
  pass_ = {};
  last_ = last;
  cuda::check_launch("Session::step");  // of the last pass: an error is late, not lost
}

/// Memory for a result. A recording's must stay what it is.
at::Tensor CudaBackend::fresh(std::int64_t rows, std::int64_t width) {
  const auto make = [&] {
    return at::empty({rows, width}, at::TensorOptions().device(model_.device).dtype(at::kFloat));
  };
  if (!recording_) return make();
  for (const at::Tensor& kept : buffers_)
    if (kept.use_count() == 1 && kept.size(0) == rows && kept.size(1) == width) return kept;
  return buffers_.emplace_back(make());
}

at::Tensor CudaBackend::embed(const BatchView& batch) {
  const Linear& weight = model_.embed;
  at::Tensor out = fresh(batch.size(), weight.in_features());
  Tables own;
  if (!recording_) {
    own.tokens = add_tokens(own.sent, batch);
    own.sent.send(model_.device);
  }
  const Tables& t = recording_ ? pass_ : own;
  cuda::embed(cuda::current_stream(), weight.view(), t.sent.at<cuda::Embedded>(t.tokens), batch.size(),
              static_cast<float>(model_.config.embed_scale), floats(model_.positions), floats_to_write(out));
  return out;
}

void CudaBackend::scale(at::Tensor& x, double factor) {
  cuda::scale(cuda::current_stream(), floats_to_write(x), x.numel(), static_cast<float>(factor), 0);
}

at::Tensor CudaBackend::unembed(const at::Tensor& x, const Rows& rows) {
  at::Tensor y = product(x, model_.unembed, rows);
  const double factor = model_.part.logit_scale, cap = model_.part.logit_soft_cap;
  if (factor != 1 || cap > 0)
    cuda::scale(cuda::current_stream(), floats_to_write(y), y.numel(), static_cast<float>(factor),
                static_cast<float>(cap));
  return y;
}

at::Tensor CudaBackend::norm(const at::Tensor& x, const Norm& norm, bool with_gain) {
  at::Tensor out = fresh(x.size(0), x.size(1));
  norm_rows(out, x, {}, norm, with_gain, x.size(1));
  return out;
}

at::Tensor CudaBackend::add_norm(at::Tensor& x, const at::Tensor& y, const Norm& norm) {
  at::Tensor out = fresh(x.size(0), x.size(1));
  norm_rows(out, x, y, norm, true, x.size(1));
  return out;
}

void CudaBackend::gain(at::Tensor& x, const Norm& norm) {
  cuda::multiply_add_rows(cuda::current_stream(), floats_to_write(x), floats(norm.gain), floats(norm.bias), x.size(0),
                          x.size(1));
}

void CudaBackend::norm_heads(at::Tensor& x, const Norm& norm) { norm_rows(x, x, {}, norm, true, norm.gain.size(0)); }

void CudaBackend::rotate(at::Tensor& x, const RopeTables::Rows& rope) {
  const std::int64_t d = model_.part.d_head;
  cuda::rotate(cuda::current_stream(), floats_to_write(x), floats(rope.cos), floats(rope.sin), x.size(0), x.size(1) / d,
               d, rope.cos.size(1));
}

/// What the kernels of layers [first, end) read of these rows' caches, in one copy to the card.
CudaBackend::Tables CudaBackend::tables(std::int64_t first, std::int64_t end, const Rows& rows, bool with_slots) {
  Tables out;
  lay_out(out, first, end, rows, with_slots, 0);
  out.sent.send(model_.device);
  return out;
}

/// Adds them. @param room  blocks that each run has a place for; 0: as many as it has.
void CudaBackend::lay_out(Tables& out, std::int64_t first, std::int64_t end, const Rows& rows, bool with_slots,
                          std::int64_t room) {
  const std::int64_t group = model_.part.n_heads / model_.part.n_kv_heads;
  out.rows = rows.runs;
  out.first = first;
  std::vector<cuda::AttentionRun> runs;
  std::vector<cuda::AttentionTile> tiles;
  std::int64_t blocks = 0;
  for (std::size_t i = 0; i < rows.runs.size(); ++i) {
    const TokenRun& run = rows.runs[i];
    const std::int64_t queries = run.end - run.begin, keys = run.position + queries;
    runs.push_back({run.begin, queries, run.position, blocks});
    blocks += room > 0 ? room : (keys + cuda::kBlock - 1) / cuda::kBlock;
    for (std::int64_t pair = 0; pair < queries * group; pair += cuda::kTilePairs)
      tiles.push_back({static_cast<std::int64_t>(i), pair});
    out.longest = std::max(out.longest, keys);
  }
  if (room > 0) out.longest = room * cuda::kBlock;
  out.tile_count = std::ssize(tiles);
  out.runs = out.sent.add(std::span<const cuda::AttentionRun>(runs));
  out.tiles = out.sent.add(std::span<const cuda::AttentionTile>(tiles));
  std::vector<cuda::CacheBlock> of_layer;
  std::vector<cuda::CacheSlot> slots;
  for (std::int64_t layer = first; layer < end; ++layer) {
    of_layer.clear();
    slots.clear();
    const bool attends = model_.part.layers[static_cast<std::size_t>(layer)].mixer == MixerKind::attention;
    for (std::size_t i = 0; attends && i < rows.runs.size(); ++i) {
      const TokenRun& run = rows.runs[i];
      const bool nobodys = rows.sequences[i] == nullptr;
      const auto block = [&](std::int64_t b) -> const cpu::BlockView& {
        return nobodys ? nobodys_block() : cache_of(rows, i, layer).views[static_cast<std::size_t>(b)];
      };
      const std::int64_t keys = run.position + run.end - run.begin;
      for (std::int64_t b = 0; b * cuda::kBlock < keys; ++b) of_layer.push_back({block(b).k, block(b).v});
      if (room > 0) of_layer.resize((i + 1) * static_cast<std::size_t>(room));
      for (std::int64_t p = run.position; with_slots && p < keys; ++p) {
        const cpu::BlockView& to = block(p / cuda::kBlock);
        slots.push_back({{to.k, to.v}, p % cuda::kBlock});
      }
    }
    out.blocks.push_back(out.sent.add(std::span<const cuda::CacheBlock>(of_layer)));
    out.slots.push_back(out.sent.add(std::span<const cuda::CacheSlot>(slots)));
  }
}

const cpu::BlockView& CudaBackend::nobodys_block() {
  if (!nobodys_.defined()) {
    nobodys_ = at::empty({2, model_.part.n_kv_heads * model_.part.d_head * cuda::kBlock},
                         at::TensorOptions().device(model_.device).dtype(at::kFloat));  // room for any format
    auto* memory = static_cast<float*>(nobodys_.data_ptr());
    nobodys_view_ = {memory, memory + nobodys_.size(1)};
  }
  return nobodys_view_;
}

void CudaBackend::store_rotated(std::int64_t layer, const at::Tensor& k, const at::Tensor& v, cuda::Rotation rotation,
                                const Rows& rows) {
  // All layers of the pass at once, when the first of them stores.
  if (!pass_.is_of(layer, rows)) {
    for (std::int64_t l = layer; l < last_; ++l)
      if (model_.part.layers[static_cast<std::size_t>(l)].mixer == MixerKind::attention) reserve(l, rows);
    pass_ = tables(layer, last_, rows, /*with_slots=*/true);
  }
  cuda::store(cuda::current_stream(), pass_.slots_of(layer), floats(k), floats(v), rotation, k.size(0),
              model_.part.n_kv_heads, model_.part.d_head, cache_type(cache_.format()));
}

void CudaBackend::store(std::int64_t layer, const at::Tensor& k, const at::Tensor& v, const Rows& rows) {
  store_rotated(layer, k, v, {}, rows);
}

void CudaBackend::rotate_and_store(std::int64_t layer, at::Tensor& q, at::Tensor& k, const at::Tensor& v,
                                   const RopeTables::Rows* rope, const Rows& rows) {
  cuda::Rotation rotation{};
  if (rope)
    rotation = {floats(rope->cos), floats(rope->sin), floats_to_write(q), model_.part.n_heads, rope->cos.size(1)};
  store_rotated(layer, k, v, rotation, rows);
}

at::Tensor CudaBackend::attend(std::int64_t layer, const at::Tensor& q, const Rows& rows) {
  const ModelConfig& c = model_.part;
  at::Tensor z = fresh(q.size(0), q.size(1));
  const bool all = pass_.is_of(layer, rows);  // else some rows, which go on from the last layer
  const Tables some = all ? Tables() : tables(layer, layer + 1, rows, /*with_slots=*/false);
  const Tables& t = all ? pass_ : some;
  cuda::Attention a{.q = floats(q),
                    .z = floats_to_write(z),
                    .blocks = t.blocks_of(layer),
                    .runs = t.sent.at<cuda::AttentionRun>(t.runs),
                    .tiles = t.sent.at<cuda::AttentionTile>(t.tiles),
                    .tile_count = t.tile_count,
                    .rows = q.size(0),
                    .splits = (t.longest + cuda::kSplitKeys - 1) / cuda::kSplitKeys,
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
    partial = fresh(a.rows, a.heads * a.splits * (a.d_head + 2));
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

void CudaBackend::linear(const at::Tensor& x, std::span<const Product> products, const Rows&) {
  if (x.size(0) > kFewRows && !batch_invariant_ && x.is_cuda()) return matrix_products(x, products);
  const at::Tensor rows = x.contiguous();
  std::vector<cuda::Multiplied> weights;
  for (const Product& p : products) {
    *p.y = fresh(x.size(0), p.weight->out_features());
    weights.push_back({p.weight->view(), floats(p.weight->bias()), floats_to_write(*p.y)});
  }
  cuda::multiply(cuda::current_stream(), weights, floats(rows), x.size(0));
}

void CudaBackend::matrix_products(const at::Tensor& x, std::span<const Product> products) const {
  at::Tensor rounded;
  for (const Product& p : products) {
    const WeightView& w = p.weight->view();
    if (w.type == WeightType::f32) {
      *p.y = at::linear(x, p.weight->to_f32(), p.weight->bias());
      continue;
    }
    const auto type = w.type == WeightType::f16 ? at::kHalf : at::kBFloat16;
    at::Tensor matrix;
    if (w.type == WeightType::f16 || w.type == WeightType::bf16) {
      matrix = p.weight->matrix();
    } else {
      matrix = at::empty({w.n, w.k}, x.options().dtype(type));
      cuda::widen_to_bf16(cuda::current_stream(), w, static_cast<std::uint16_t*>(matrix.data_ptr()));
    }
    if (!rounded.defined() || rounded.scalar_type() != type) rounded = x.to(type);
    *p.y = at::mm(rounded, matrix.t(), at::kFloat);
    if (p.weight->bias().defined()) *p.y += p.weight->bias();
  }
}

}  // namespace steer::model::detail
