#include "model/kv_cache.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <steer/core/error.hpp>

namespace steer::model::detail {

using cpu::kBlock;

KvCache::KvCache(const ModelConfig& config, at::Device device, CacheFormat format, std::int64_t max_bytes)
    : n_layers_(config.n_layers),
      kv_heads_(config.n_kv_heads),
      d_head_(config.d_head),
      device_(device),
      format_(format),
      max_bytes_(max_bytes),
      block_bytes_(2 * kv_heads_ * d_head_ * kBlock * static_cast<std::int64_t>(c10::elementSize(type()))) {
  for (const auto& layer : config.layers) recurrent_.push_back(layer.mixer == MixerKind::delta_net);
  const auto& d = config.delta_net;
  const std::int64_t channels = 2 * d.key_heads * d.d_key + d.value_heads * d.d_value;
  state_bytes_ = (d.value_heads * d.d_key * d.d_value + std::max<std::int64_t>(d.kernel - 1, 0) * channels) *
                 static_cast<std::int64_t>(sizeof(float));
}

at::ScalarType KvCache::type() const {
  return format_ == CacheFormat::f32 ? at::kFloat : format_ == CacheFormat::bf16 ? at::kBFloat16 : at::kHalf;
}

SequenceId KvCache::open() {
  sequences_[next_].layers.resize(static_cast<std::size_t>(n_layers_));
  return next_++;
}

SequenceCache& KvCache::at(SequenceId sequence, const char* where) {
  const auto found = sequences_.find(sequence);
  require(found != sequences_.end(), ErrorCode::argument, where,
          "expected an open sequence but got {}, which was closed or never opened; open() one", sequence);
  return found->second;
}

const SequenceCache& KvCache::at(SequenceId sequence, const char* where) const {
  return const_cast<KvCache*>(this)->at(sequence, where);
}

SequenceId KvCache::fork(SequenceId source, const ForkOptions& options) {
  constexpr auto kWhere = "Session::fork";
  const SequenceCache& from = at(source, kWhere);
  const std::int64_t length = options.length < 0 ? from.length : options.length;
  require(options.length >= -1 && length <= from.length, ErrorCode::argument, kWhere,
          "expected a length of at most {} (the sequence's) or -1 but got {}; fork what is there", from.length,
          options.length);
  require(options.below_layer >= -1 && options.below_layer <= n_layers_, ErrorCode::argument, kWhere,
          "expected below_layer in [0, {}] or -1 but got {}", n_layers_, options.below_layer);
  const auto shared = static_cast<std::size_t>(options.below_layer < 0 ? n_layers_ : options.below_layer);
  SequenceCache copy;
  copy.layers.resize(from.layers.size());
  for (std::size_t i = 0; i < shared; ++i) {
    require(from.layers[i].filled >= length, ErrorCode::argument, kWhere,
            "expected layers below {} to hold {} tokens but layer {} holds {}; run step over the missing layers first",
            shared, length, i, from.layers[i].filled);
    if (!from.layers[i].states.empty()) state(from.layers[i], length);  // refuses what is not kept
    copy.layers[i] = from.layers[i];
    truncate(copy.layers[i], length);
  }
  copy.length = length;
  copy.prompt_length = std::min(from.prompt_length, length);
  copy.generated = from.generated && length > from.prompt_length;
  if (options.next_turn) copy.prompt_length = length, copy.generated = false;
  copy.ids.assign(from.ids.begin(), from.ids.begin() + length);
  sequences_.emplace(next_, std::move(copy));
  return next_++;
}

void KvCache::close(SequenceId sequence) {
  at(sequence, "Session::close");
  sequences_.erase(sequence);
}

void KvCache::require_room(std::int64_t more) const {
  require(max_bytes_ <= 0 || bytes() + more <= max_bytes_, ErrorCode::argument, "Session::step",
          "expected a KV cache of at most {} bytes (SessionOptions::max_cache_bytes) but this step needs more; close "
          "sequences or allow more",
          max_bytes_);
}

std::shared_ptr<const RecurrentState> KvCache::state(const LayerCache& layer, std::int64_t length) {
  if (length == 0) return nullptr;
  for (const auto& [tokens, state] : layer.states)
    if (tokens == length) return state;
  fail(ErrorCode::argument, "Session::fork",
       "expected the end of what was computed ({} tokens) but got {}: this model's layers keep a state, not every "
       "token, and cannot go back; fork there before going on",
       layer.states.empty() ? 0 : layer.states.back().first, length);
}

void KvCache::remember(LayerCache& layer, std::int64_t length, RecurrentState state) {
  require_room(state_bytes_);
  auto kept = std::shared_ptr<const RecurrentState>(new RecurrentState(std::move(state)),
                                                    [live = live_states_](const RecurrentState* s) {
                                                      --*live;
                                                      delete s;
                                                    });
  ++*live_states_;
  layer.states.emplace_back(length, std::move(kept));
}

void KvCache::settle(LayerCache& layer) {
  if (layer.states.size() > 1) layer.states.erase(layer.states.begin(), layer.states.end() - 1);
}

std::shared_ptr<KvBlock> KvCache::make_block() {
  require_room(block_bytes_);
  auto block = std::shared_ptr<KvBlock>(new KvBlock, [live = live_blocks_](KvBlock* b) {
    --*live;
    delete b;
  });
  ++*live_blocks_;
  // Zeroed: masked slots are multiplied with 0. Padded: vector loads of values may run past the last row.
  const auto options = at::TensorOptions().dtype(type()).device(device_);
  const std::int64_t numel = kv_heads_ * d_head_ * kBlock;
  block->k = at::zeros({kv_heads_, d_head_, kBlock}, options);
  block->v = at::zeros({numel + 16}, options).narrow(0, 0, numel).view({kv_heads_, kBlock, d_head_});
  block->view = {block->k.data_ptr(), block->v.data_ptr()};
  return block;
}

void KvCache::reserve(LayerCache& layer, std::int64_t position, std::int64_t count) {
  const auto first = static_cast<std::size_t>(position / kBlock),
             last = static_cast<std::size_t>((position + count - 1) / kBlock);
  for (std::size_t i = first; i <= last; ++i) {
    if (i < layer.blocks.size()) {
      if (layer.blocks[i].use_count() == 1) continue;
      auto copy = make_block();
      copy->k.copy_(layer.blocks[i]->k);
      copy->v.copy_(layer.blocks[i]->v);
      layer.blocks[i] = std::move(copy);
      layer.views[i] = layer.blocks[i]->view;
    } else {
      layer.blocks.push_back(make_block());
      layer.views.push_back(layer.blocks.back()->view);
    }
  }
}

std::int64_t KvCache::bytes_for(const SequenceCache& sequence, std::int64_t tokens) const {
  std::int64_t blocks = 0, states = 0;
  for (std::size_t l = 0; l < sequence.layers.size(); ++l) {
    const LayerCache& layer = sequence.layers[l];
    if (recurrent_[l]) {
      states +=
          tokens > 0 ? 2 : 0;  // one for the prompt's tokens and one for generated ones; the older goes in the end
      continue;
    }
    const std::int64_t first = layer.filled / kBlock, last = (layer.filled + tokens - 1) / kBlock;
    for (std::int64_t i = first; tokens > 0 && i <= last; ++i)
      blocks += i >= std::ssize(layer.blocks) || layer.blocks[static_cast<std::size_t>(i)].use_count() > 1;
  }
  return blocks * block_bytes_ + states * state_bytes_;
}

void KvCache::truncate(LayerCache& layer, std::int64_t length) {
  layer.filled = std::min(layer.filled, length);
  std::erase_if(layer.states, [&](const auto& state) { return state.first > length; });
  const auto blocks = static_cast<std::size_t>((layer.filled + kBlock - 1) / kBlock);
  if (layer.blocks.size() > blocks) {
    layer.blocks.resize(blocks);
    layer.views.resize(blocks);
  }
}

void KvCache::store(LayerCache& layer, std::int64_t position, const at::Tensor& k, const at::Tensor& v) const {
  const std::int64_t rows = k.size(0);
  if (device_.is_cpu()) {
    const auto keys = k.detach().to(at::kFloat).contiguous(), values = v.detach().to(at::kFloat).contiguous();
    cpu::store_kv(layer.views, format_, keys.const_data_ptr<float>(), values.const_data_ptr<float>(), rows, position,
                  kv_heads_, d_head_);
    return;
  }
  const at::NoGradGuard no_grad;
  for (std::int64_t row = 0; row < rows;) {
    const std::int64_t slot = (position + row) % kBlock, count = std::min(rows - row, kBlock - slot);
    const auto& block = *layer.blocks[static_cast<std::size_t>((position + row) / kBlock)];
    const auto part = [&](const at::Tensor& t) {
      return rounded(t.narrow(0, row, count)).view({count, kv_heads_, d_head_});
    };
    block.k.narrow(2, slot, count).copy_(part(k).permute({1, 2, 0}));
    block.v.narrow(1, slot, count).copy_(part(v).permute({1, 0, 2}));
    row += count;
  }
}

at::Tensor KvCache::rounded(const at::Tensor& x) const {
  if (format_ == CacheFormat::f32) return x;
  return (format_ == CacheFormat::f16 ? x.clamp(-65504, 65504) : x).to(type()).to(at::kFloat);
}

std::pair<at::Tensor, at::Tensor> KvCache::gather(const LayerCache& layer, std::int64_t tokens) const {
  std::vector<at::Tensor> k, v;
  for (const auto& block : layer.blocks) {
    k.push_back(block->k);
    v.push_back(block->v);
  }
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device_);
  if (k.empty()) return {at::empty({kv_heads_, d_head_, 0}, options), at::empty({kv_heads_, 0, d_head_}, options)};
  return {at::cat(k, 2).narrow(2, 0, tokens).to(at::kFloat), at::cat(v, 1).narrow(1, 0, tokens).to(at::kFloat)};
}

}  // namespace steer::model::detail
