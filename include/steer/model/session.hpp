#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <steer/model/hooks.hpp>
#include <steer/model/model.hpp>

namespace steer {

namespace model::detail {
class HookTable;
}

/// Activations by hook name, each [tokens, width].
class ActivationCache {
 public:
  /// @throws Error(argument) that lists what was recorded.
  const at::Tensor& operator[](std::string_view name) const;
  bool contains(std::string_view name) const;
  const std::map<std::string, at::Tensor, std::less<>>& all() const { return values_; }
  at::Tensor logits;  ///< [tokens, vocab]; undefined when the run stopped before the end

 private:
  friend class Session;
  std::map<std::string, at::Tensor, std::less<>> values_;
};

/// Keeps a hook registered; destroying or moving from it removes the hook. May outlive its session.
class [[nodiscard]] HookHandle {
 public:
  HookHandle() = default;
  HookHandle(HookHandle&&) noexcept;
  HookHandle& operator=(HookHandle&&) noexcept;
  ~HookHandle();
  /// Removes the hook now; a second call, or one after the session's end, does nothing.
  void remove();

  struct Registration;
  /// For `Session::hook`.
  explicit HookHandle(std::weak_ptr<Registration> registration);

 private:
  std::weak_ptr<Registration> registration_;
};

/// What computes a session's passes.
enum class BackendKind {
  automatic,  ///< the fastest for the model's device; libtorch's operators from a hook on that brings a gradient
  aten,       ///< libtorch's operators throughout: slow and plainly right, what others are compared with
};

template <>
struct EnumTable<BackendKind> {
  static constexpr std::string_view name = "backend";
  static constexpr EnumEntry<BackendKind> entries[] = {{BackendKind::automatic, "automatic"},
                                                       {BackendKind::aten, "aten"}};
};

/// How keys and values are kept. Attention widens them to f32 and computes in that.
enum class CacheFormat { f32, bf16, f16 };

template <>
struct EnumTable<CacheFormat> {
  static constexpr std::string_view name = "cache format";
  static constexpr EnumEntry<CacheFormat> entries[] = {
      {CacheFormat::f32, "f32"}, {CacheFormat::bf16, "bf16"}, {CacheFormat::f16, "f16"}};
};

struct SessionOptions {
  /// A row's bits depend neither on its batch mates nor on how its prompt is cut into steps; without this they agree up
  /// to rounding. On a CPU with AVX-512, 12 or more rows then take 1.1 to 1.7 times as long
  /// (docs/performance-model.md); other CPUs have no faster way anyway. On CUDA, and in passes with gradients, each
  /// sequence gets products of its own.
  bool batch_invariant = false;
  std::int64_t prompt_chunk = 512;       ///< prompt tokens computed at once, over all rows
  std::int64_t max_cache_bytes = 0;      ///< limit of the KV cache; 0: none
  CacheFormat cache = CacheFormat::f32;  ///< 16 bits halve it and round each key and value once, by up to 2^-9 (bf16)
                                         ///< or 2^-12 (f16; beyond +-65504 clamped) of its size
  BackendKind backend = BackendKind::automatic;
};

/// New tokens for one sequence.
struct StepInput {
  SequenceId sequence = 0;
  std::span<const std::int64_t> ids;
  Phase phase = Phase::prompt;
};

/// Which tokens' logits a step returns.
enum class Logits {
  none,
  last,  ///< of each input's last token
  all,
};

/// Runs only a part of the layers. Defaults run all of them.
struct LayerRange {
  std::int64_t first = 0;  ///< > 0: start from `residual` instead of the embedding
  std::int64_t last = -1;  ///< run layers [first, last); -1: all, and the unembedding
  at::Tensor residual{};   ///< [tokens, d_model], resid_pre of layer `first`
};

struct ForkOptions {
  std::int64_t length = -1;       ///< share this many tokens; -1: all
  std::int64_t below_layer = -1;  ///< share the cache of layers below this one only (-1: all); the layers above start
                                  ///< empty and are filled by a step over `LayerRange{.first = below_layer}`
};

/// Work on one model: hooks and KV caches. One thread at a time (a second one gets an Error); any number of sessions
/// share a model.
class Session {
 public:
  /// No sequence open, no hook registered. @throws Error(argument) for options out of range.
  explicit Session(Model model, const SessionOptions& options = {});
  ~Session();
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;

  /// The model it runs.
  const Model& model() const;

  /// Calls `function` whenever the point is computed, decode steps included.
  /// @param point  TransformerLens or Hugging Face name.
  /// @throws Error(argument) for a point this model does not have: a hook that cannot fire is refused.
  HookHandle hook(std::string_view point, HookFunction function, const HookOptions& options = {});
  HookHandle hook(const HookPoint& point, HookFunction function, const HookOptions& options = {});

  /// A new, empty sequence.
  SequenceId open();
  /// A copy of a sequence that shares its cache until either grows.
  SequenceId fork(SequenceId source, const ForkOptions& options = {});
  void close(SequenceId sequence);
  /// Tokens in the cache of a sequence.
  std::int64_t length(SequenceId sequence) const;
  /// Bytes the KV cache holds now.
  std::int64_t cache_bytes() const;
  /// Bytes it would hold in addition if a sequence grew by `tokens`: new blocks, and copies of those it shares.
  std::int64_t cache_bytes(SequenceId sequence, std::int64_t tokens) const;

  /// Appends tokens to sequences and computes them in one pass: all inputs together are one flat batch. Several inputs
  /// may name one sequence (say its prompt and its answer); they are appended in order.
  /// @return logits f32: [inputs, vocab] for `last`, [tokens, vocab] for `all`, undefined for `none` or a layer range
  ///         that ends early.
  /// @throws Error(argument) for no tokens, ids outside the vocabulary, a closed sequence, a generated-phase input
  ///         followed by a prompt-phase one; Error(shape) when a sequence would outgrow the context; nothing is
  ///         appended then.
  at::Tensor step(std::span<const StepInput> inputs, Logits logits = Logits::last, const LayerRange& layers = {});
  at::Tensor step(std::initializer_list<StepInput> inputs, Logits logits = Logits::last,
                  const LayerRange& layers = {}) {
    return step(std::span(inputs.begin(), inputs.size()), logits, layers);
  }

  /// Logits [tokens, vocab], f32, of a prompt on its own; leaves no sequence behind. Under `at::GradMode` enabled
  /// gradients flow to tensors that hooks put in (weights stay constants).
  at::Tensor forward(std::span<const std::int64_t> ids);
  /// The same, recording every point whose name matches a glob pattern ("blocks.*.hook_resid_post").
  /// @param stop_after_layer  run no layer after this one; -1: all.
  /// @throws Error(argument) for a pattern that matches no point of this model.
  ActivationCache run_with_cache(std::span<const std::int64_t> ids, std::initializer_list<std::string_view> patterns,
                                 std::int64_t stop_after_layer = -1);
  ActivationCache run_with_cache(std::span<const std::int64_t> ids, std::span<const std::string> patterns,
                                 std::int64_t stop_after_layer = -1);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace steer
