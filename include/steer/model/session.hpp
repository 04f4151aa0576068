#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <steer/core/enum.hpp>
#include <steer/model/audit.hpp>
#include <steer/model/hooks.hpp>
#include <steer/model/intervention.hpp>
#include <steer/model/model.hpp>

namespace steer {

namespace model::detail {
class HookTable;
}

/// Activations by hook point, each [tokens, width] ([heads, queries, keys] at attn_pattern), in order of computation.
class ActivationCache {
 public:
  /// By point, or by its TransformerLens or Hugging Face name. @throws Error(argument) that lists what was recorded.
  const at::Tensor& operator[](const HookPoint& point) const;
  bool contains(const HookPoint& point) const;
  /// All of them, in order of computation.
  const std::vector<std::pair<HookPoint, at::Tensor>>& all() const& { return values_; }
  std::vector<std::pair<HookPoint, at::Tensor>> all() && { return std::move(values_); }  ///< for loops over a result
  at::Tensor logits;  ///< as asked for; undefined when the run stopped before the end

 private:
  friend class Session;
  std::vector<std::pair<HookPoint, at::Tensor>> values_;
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

 private:
  friend class Session;
  explicit HookHandle(std::weak_ptr<Registration> registration);
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

/// What happens to a steering that a person should look at before trusting it: an SAE that was made for another model
/// or place.
enum class OnWarning {
  keep,    ///< `Session::warnings` and results have it; where there is no result to carry it, an error
  error,   ///< Error(config)
  ignore,  ///< as `keep`, and no error anywhere
};

template <>
struct EnumTable<OnWarning> {
  static constexpr std::string_view name = "on warning";
  static constexpr EnumEntry<OnWarning> entries[] = {
      {OnWarning::keep, "keep"}, {OnWarning::error, "error"}, {OnWarning::ignore, "ignore"}};
};

struct SessionOptions {
  /// A row's bits depend neither on its batch mates nor on how its prompt is cut into steps. On the CPU they never do;
  /// on CUDA, and in passes with gradients, where it is true each sequence gets products of its own, and where it is
  /// false rows agree up to rounding.
  bool batch_invariant = false;
  std::int64_t prompt_chunk = 512;       ///< prompt tokens computed at once, over all rows
  std::int64_t max_cache_bytes = 0;      ///< limit of the KV cache; 0: none
  CacheFormat cache = CacheFormat::f32;  ///< 16 bits halve it and round each key and value once, by up to 2^-9 (bf16)
                                         ///< or 2^-12 (f16; beyond +-65504 clamped) of its size
  BackendKind backend = BackendKind::automatic;
  /// On a card, steps of single tokens are recorded and done again (CUDA graphs), with their steerings, where nothing
  /// has to be looked at meanwhile: no hook or function of your own, no watch, no full encode. The bits are the same,
  /// but that the card decides conditions itself, from readings that agree up to rounding.
  bool graphs = true;
  OnWarning on_warning = OnWarning::keep;
};

/// New tokens for one sequence.
struct StepInput {
  SequenceId sequence = 0;
  std::span<const std::int64_t> ids{};
  Phase phase = Phase::prompt;
  std::int64_t prompt_left = 0;  ///< prompt tokens of this sequence that later steps bring: scopes that count from the
                                 ///< prompt's end need to know where it is
  std::int64_t logits = 1;       ///< with Logits::last: of how many of its last tokens the result has a row
};

/// Which tokens' logits are computed and returned. Each costs a row of [vocab] f32.
enum class Logits {
  none,
  last,       ///< of each input's last token, or last few (`StepInput::logits`)
  all,        ///< of every token: [tokens, vocab] is large
  positions,  ///< `Session::forward` only: of `ForwardOptions::positions`
};

/// Runs only a part of the layers, at least one. Defaults run all of them. (From behind the last one there is nothing
/// left to run and no cache to fill: `Model::unembed` gives the logits of that residual.)
struct LayerRange {
  std::int64_t first = 0;  ///< > 0: start from `residual` instead of the embedding
  std::int64_t last = -1;  ///< run layers [first, last); -1: all, and the unembedding
  at::Tensor residual{};   ///< [tokens, d_model], resid_pre of layer `first`
};

struct OpenOptions {
  InterventionPtr steering{};  ///< a `Steering`, from the first token on
};

struct ForkOptions {
  std::int64_t length = -1;       ///< share this many tokens; -1: all
  std::int64_t below_layer = -1;  ///< share the cache of layers below this one only (-1: all); the layers above start
                                  ///< empty and are filled by a step over `LayerRange{.first = below_layer}`
  bool next_turn = false;         ///< all that is shared counts as prompt: more prompt may follow generated tokens
  /// From the next token on; absent: the source's, with its memory and audit.
  std::optional<InterventionPtr> steering{};
};

struct ForwardOptions {
  InterventionPtr steering{};  ///< a `Steering`
  Logits logits = Logits::all;
  std::vector<std::int64_t> positions{};  ///< for Logits::positions, ascending; negative ones count from the end
};

struct CacheOptions {
  InterventionPtr steering{};  ///< a `Steering`; what is recorded is what it leaves
  Logits logits = Logits::all;
  std::int64_t stop_after_layer = -1;  ///< run no layer after this one; -1: all
};

struct LogProbabilityOptions {
  InterventionPtr steering{};  ///< a `Steering`
  std::int64_t begin = 1;      ///< the first token that is scored: at least 1, something must precede it
  std::int64_t end = -1;       ///< one past the last; -1: to the end
  std::int64_t top = 0;        ///< also the likeliest tokens of each position
};

/// Natural log-probabilities of the tokens [begin, end) of a text, each given all before it.
struct LogProbabilities {
  std::vector<double> tokens;
  std::vector<std::vector<std::pair<std::int64_t, double>>> top;  ///< by token: (id, log-probability), likeliest first
};

/// Work on one model: sequences, each with its KV cache and its steering, and hooks. One thread at a time (a second one
/// gets an Error); any number of sessions share a model.
///
/// A sequence's steering is compiled for the model when the session first sees it, and shared by all sequences whose
/// steering is equal; rows come, fork and go at any step.
class Session {
 public:
  /// No sequence open, no hook registered. @throws Error(argument) for options out of range.
  explicit Session(Model model, const SessionOptions& options = {});
  ~Session();
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;

  /// The model it runs.
  const Model& model() const;
  /// What it was made with.
  const SessionOptions& options() const;

  /// Calls `function` whenever the point is computed, decode steps included.
  /// @param point  also by its TransformerLens or Hugging Face name.
  /// @throws Error(argument) for a point this model does not have: a hook that cannot fire is refused.
  HookHandle hook(const HookPoint& point, HookFunction function, const HookOptions& options = {});
  /// Whether a hook is registered that may edit: one without `read_only`.
  bool has_editing_hook() const;

  /// Compiles an intervention now instead of when a sequence first has it. Any thread may call this, also while another
  /// uses the session.
  /// @return what a person should know of it. @throws as `open`.
  std::vector<std::string> prepare(const InterventionPtr& intervention);
  /// A new, empty sequence. @throws Error for a steering that does not fit the model, naming the edit; Error(config)
  /// for one that warns, with OnWarning::error.
  SequenceId open(const OpenOptions& options = {});
  /// A copy of a sequence that shares its cache until either grows, with the same steering. @throws as `open`.
  SequenceId fork(SequenceId source, const ForkOptions& options = {});
  /// Forgets a sequence, its steering and its audit.
  void close(SequenceId sequence);
  /// What the sequence's steering has done to its tokens, those it shares with the source of a fork included.
  SteeringAudit audit(SequenceId sequence) const;
  /// Why the sequence's steering wants it to end, if it does (`Steering::abort_when`).
  std::optional<std::string> abort_reason(SequenceId sequence) const;
  /// Whether the sequence's steering looks at distributions of next tokens: then every step computes its last logits.
  bool needs_logits(SequenceId sequence) const;
  /// What a person should know of the steerings that sequences had so far, each said once.
  const std::vector<std::string>& warnings() const;
  /// What a person should know of a sequence's steering.
  std::vector<std::string> warnings(SequenceId sequence) const;
  /// Tokens in the cache of a sequence.
  std::int64_t length(SequenceId sequence) const;
  /// Bytes the KV cache holds now.
  std::int64_t cache_bytes() const;
  /// Bytes it would hold in addition if a sequence grew by `tokens`: new blocks, and copies of those it shares.
  std::int64_t cache_bytes(SequenceId sequence, std::int64_t tokens) const;

  /// Appends tokens to sequences and computes them in one pass: all inputs together are one flat batch. Several inputs
  /// may name one sequence (say its prompt and its answer); they are appended in order.
  /// @return logits f32: [inputs, vocab] for `last` (as many an input as it asks for, in order), [tokens, vocab] for
  ///         `all`, undefined for `none` or a layer range that ends early.
  /// @throws Error(argument) for no tokens, ids outside the vocabulary, a closed sequence, a generated-phase input
  ///         followed by a prompt-phase one; Error(shape) when a sequence would outgrow the context; nothing is
  ///         appended then.
  at::Tensor step(std::span<const StepInput> inputs, Logits logits = Logits::last, const LayerRange& layers = {});
  at::Tensor step(std::initializer_list<StepInput> inputs, Logits logits = Logits::last,
                  const LayerRange& layers = {}) {
    return step(std::span(inputs.begin(), inputs.size()), logits, layers);
  }

  /// Logits, f32, of a prompt on its own; leaves no sequence behind: [tokens, vocab], [1, vocab] for `last`,
  /// [positions, vocab], or undefined for `none`. Under `at::GradMode` enabled gradients flow to tensors that hooks put
  /// in (weights stay constants).
  /// @throws as `step` and `open`; Error(argument) for positions outside the prompt or without Logits::positions.
  at::Tensor forward(std::span<const std::int64_t> ids, const ForwardOptions& options = {});
  /// How likely each token of a text is, without [tokens, vocab] logits: computed in blocks.
  /// @throws as `forward`; Error(argument) for a range outside the text; Error(argument) for logits that are not
  /// finite.
  LogProbabilities log_probabilities(std::span<const std::int64_t> ids, const LogProbabilityOptions& options = {});
  /// `forward`, recording every point whose TransformerLens name matches a glob pattern ("blocks.*.hook_resid_post"),
  /// or that a pattern names ("model.layers.1").
  /// @throws Error(argument) for a pattern that matches no point of this model.
  ActivationCache run_with_cache(std::span<const std::int64_t> ids, std::initializer_list<std::string_view> patterns,
                                 const CacheOptions& options = {});
  ActivationCache run_with_cache(std::span<const std::int64_t> ids, std::span<const std::string> patterns,
                                 const CacheOptions& options = {});
  /// The same with one option alone.
  ActivationCache run_with_cache(std::span<const std::int64_t> ids, std::initializer_list<std::string_view> patterns,
                                 std::int64_t stop_after_layer) {
    return run_with_cache(ids, patterns, CacheOptions{.stop_after_layer = stop_after_layer});
  }
  /// The same for several prompts in one pass, one cache each.
  std::vector<ActivationCache> run_with_cache(std::span<const std::vector<std::int64_t>> prompts,
                                              std::initializer_list<std::string_view> patterns,
                                              const CacheOptions& options = {});
  std::vector<ActivationCache> run_with_cache(std::span<const std::vector<std::int64_t>> prompts,
                                              std::span<const std::string> patterns, const CacheOptions& options = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace steer
