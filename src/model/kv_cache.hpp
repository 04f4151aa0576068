#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include <steer/model/hooks.hpp>
#include <steer/model/session.hpp>

#include "model/cpu_attention.hpp"

namespace steer::model::detail {

/// `cpu::kBlock` tokens of keys and values of one layer. Shared by sequences until one of them writes to it.
struct KvBlock {
  at::Tensor k;           ///< [kv_heads, d_head, kBlock], rotated
  at::Tensor v;           ///< [kv_heads, kBlock, d_head]
  cpu::BlockView view{};  ///< the same memory
};

/// What a layer without keys and values keeps of a sequence. Never changed once made: forks share it.
struct RecurrentState {
  at::Tensor memory;   ///< [value_heads, d_key, d_value] f32
  at::Tensor columns;  ///< [kernel - 1, channels] f32: the last inputs of the convolution
};

/// Keys and values of one sequence and layer, or its recurrent states.
struct LayerCache {
  std::vector<std::shared_ptr<KvBlock>> blocks;
  std::vector<cpu::BlockView> views;                                                   ///< of `blocks`
  std::vector<std::pair<std::int64_t, std::shared_ptr<const RecurrentState>>> states;  ///< after so many tokens
  std::int64_t filled = 0;                                                             ///< tokens
};

/// What a session keeps of one sequence.
struct SequenceCache {
  std::vector<LayerCache> layers;
  std::int64_t length = 0;         ///< tokens
  std::int64_t prompt_length = 0;  ///< of them in the prompt; fixed once one was generated
  bool generated = false;
  std::vector<std::int64_t> ids;                    ///< the tokens
  std::shared_ptr<CompiledIntervention> program{};  ///< its steering; null: none
  std::unique_ptr<InterventionMemory> memory{};     ///< what that remembers
};

/// The caches of a session's sequences. Blocks are shared copy-on-write, so forking costs no memory.
class KvCache {
 public:
  KvCache(const ModelConfig& config, at::Device device, CacheFormat format, std::int64_t max_bytes);

  CacheFormat format() const { return format_; }
  /// Keys or values as they come back from the cache, f32: rounded to its format. Gradients pass.
  at::Tensor rounded(const at::Tensor& x) const;

  SequenceId open();
  SequenceId fork(SequenceId source, const ForkOptions& options);
  void close(SequenceId sequence);
  /// @throws Error(argument) for an unknown or closed sequence, on behalf of `where`.
  SequenceCache& at(SequenceId sequence, const char* where);
  const SequenceCache& at(SequenceId sequence, const char* where) const;

  /// Makes room for tokens [position, position + count) of one layer: blocks for them that nobody else reads.
  void reserve(LayerCache& layer, std::int64_t position, std::int64_t count);
  /// The recurrent state after `length` tokens; null at the start. @throws Error(argument) where none was kept.
  static std::shared_ptr<const RecurrentState> state(const LayerCache& layer, std::int64_t length);
  /// Adds the state after `length` tokens.
  void remember(LayerCache& layer, std::int64_t length, RecurrentState state);
  /// A step has ended: of a layer's states only the last is kept. While it runs all are, so that it can be taken back.
  static void settle(LayerCache& layer);
  /// Drops what lies beyond the first `length` tokens of a layer.
  static void truncate(LayerCache& layer, std::int64_t length);
  /// Bytes of all blocks that some sequence holds, each counted once.
  std::int64_t bytes() const { return *live_blocks_ * block_bytes_ + *live_states_ * state_bytes_; }
  /// What a step over so many more tokens adds to them; at most, where layers keep a state.
  std::int64_t bytes_for(const SequenceCache& sequence, std::int64_t tokens) const;

  /// Stores rows [count, kv_heads * d_head] at `position` and following, which must have been reserved.
  void store(LayerCache& layer, std::int64_t position, const at::Tensor& k, const at::Tensor& v) const;
  /// Keys [kv_heads, d_head, tokens] and values [kv_heads, tokens, d_head] of the first `tokens` tokens, f32.
  std::pair<at::Tensor, at::Tensor> gather(const LayerCache& layer, std::int64_t tokens) const;

 private:
  std::shared_ptr<KvBlock> make_block();
  at::ScalarType type() const;
  void require_room(std::int64_t bytes) const;

  std::int64_t n_layers_, kv_heads_, d_head_;
  std::vector<bool> recurrent_;  ///< by layer: keeps a state
  at::Device device_;
  CacheFormat format_;
  std::int64_t max_bytes_, block_bytes_, state_bytes_;
  std::shared_ptr<std::int64_t> live_blocks_ = std::make_shared<std::int64_t>(0);
  std::shared_ptr<std::int64_t> live_states_ = std::make_shared<std::int64_t>(0);
  std::map<SequenceId, SequenceCache> sequences_;
  SequenceId next_ = 0;
};

}  // namespace steer::model::detail
