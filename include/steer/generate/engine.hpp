#pragma once

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <steer/generate/generate.hpp>
#include <steer/generate/observe.hpp>

namespace steer {

struct EngineOptions {
  std::int64_t max_rows = 32;        ///< computed at once; further rows wait
  std::int64_t max_cache_bytes = 0;  ///< of keys and values; 0: no limit. When they are spent, prefixes kept for later
                                     ///< rows go first; then the rows that are last in order are set back, and computed
                                     ///< anew when there is room
  std::int64_t step_tokens = 256;    ///< in one step: every row that generates has one, prompts share the rest
  std::int64_t max_waiting = 65536;  ///< rows that wait; `submit` refuses more
  bool keep_prefixes = true;         ///< computed prompts are kept for rows that begin alike, at most max_rows of them
  bool keep_answers = true;          ///< and with them the answers of unsteered rows, for the chat's next turn
  bool batch_invariant = true;       ///< exact independence of batch mates (see SessionOptions)
  CacheFormat cache = CacheFormat::f32;
  OnWarning on_warning = OnWarning::keep;  ///< `error`: `submit` refuses a steering that warns
};

/// What a step did to one row.
struct EngineEvent {
  RowId row = 0;
  std::int64_t id = -1;                                    ///< the new token; -1: none, in a row's last event
  std::string_view text{};                                 ///< what became final; may be empty. Valid during the call
  double log_probability = 0;                              ///< of the token, under the unfiltered distribution
  std::span<const std::pair<std::int64_t, double>> top{};  ///< its `EngineRequest::top`. Valid during the call
  std::shared_ptr<const GenerateResult> result{};          ///< in a row's last event: all of it, for any thread to keep
  std::exception_ptr error{};                              ///< of a row that failed
};
using EngineEventFunction = std::function<void(const EngineEvent&)>;

/// One row, or several samples of one prompt.
struct EngineRequest {
  std::vector<std::int64_t> ids{};  ///< the prompt, BOS included
  Steering steering{};
  SamplingOptions sampling{};
  std::int64_t max_tokens = 256;         ///< 0: the prompt is read and nothing generated
  std::vector<std::string> stop{};       ///< the text ends before the first of these
  std::vector<std::int64_t> stop_ids{};  ///< besides the model's own end-of-sequence ids
  std::uint64_t seed = 0;        ///< of the first sample; sample i > 0 draws from derive_seed(seed, "sample", i)
  std::int64_t samples = 1;      ///< rows with ids that follow one another; they share the prompt's cache
  int priority = 0;              ///< higher ones first; equal ones in the order they came
  std::int64_t min_tokens = 0;   ///< before, no stop id is drawn
  bool ignore_eos = false;       ///< the model's own ends are tokens like others; `stop_ids` still end
  std::int64_t top = 0;          ///< also the likeliest alternatives of each generated token
  std::int64_t score_from = -1;  ///< log-probabilities of the prompt's tokens from this one on, at least 1: something
                                 ///< must precede it; -1: none. Logits are computed in blocks, never [tokens, vocab]
  std::int64_t prompt_top = 0;   ///< also the likeliest alternatives of those
  /// The first generated tokens, as if they had been drawn: they count as generated and for `max_tokens`, have events,
  /// text and log-probabilities (and end nothing but by a stop string). So a row that was cut off, submitted again with
  /// what it had, ends as it would have; and a text's tail can be scored under steering (`max_tokens` its length).
  std::vector<std::int64_t> given{};
  std::vector<Observer> observers{};  ///< told of its activations while it runs; its bits do not depend on them
  LogitsFunction on_logits{};         ///< told of the whole distribution each generated token comes from
  EngineEventFunction on_event{};     ///< told of its events, before the function that `step` has
  std::optional<SequenceId> after{};  ///< of `Engine::session()`: `ids` follow what this sequence holds, which stays as
                                      ///< it is and must stay open
  bool keep_sequence = false;         ///< of `Engine::session()`: stays open, with prompt and ids (GenerateResult)
};

/// Generates for rows that come and go at any time. Each step is one pass over one flat batch: the next token of every
/// row that generates, and as much of the waiting prompts as `step_tokens` leaves room for.
///
///     Engine engine(model);
///     const RowId id = engine.submit({.ids = prompt, .steering = funny});
///     while (engine.step([](const EngineEvent& e) { fmt::print("{}", e.text); })) {}
///
/// On the CPU a row's ids, text, log-probabilities and audit depend on its own request only, to the bit: not on other
/// rows, on when it joined, on who observes it, nor on whether it was set back meanwhile.
///
/// Every row has exactly one last event, which carries its result: also one that was cancelled or that failed. A row
/// fails alone: logits that are not finite, or a request's own `on_event` or observer that throws, end that row
/// (FinishReason::failed) and no other; after a pass that throws, its rows are computed anew from their beginnings,
/// each by itself, to find the one. Tokens that were reported stay as they are.
///
/// Threads: one drives (`step`, `session`), and all callbacks run on it. `submit`, `cancel`, `load`, `close` and `wait`
/// may be called from any thread at any time, callbacks included; they never wait for a pass. `submit` checks a request
/// and compiles its steering on the caller's thread. `EngineLoop` brings the thread that drives.
///
/// Kept prefixes: a prompt that begins like an earlier one takes its keys and values from it, as far as the same
/// steering (or none) touched those tokens; the next turn of an unsteered chat takes the answer before it too. Hooks of
/// one's own on `session()` see what is computed, so not what was taken; while one of them may edit (it is not
/// read_only), prefixes are neither taken nor kept.
class Engine {
 public:
  /// @throws Error(argument) for options out of range.
  explicit Engine(Model model, const EngineOptions& options = {});
  /// On a session of the caller's, which must outlive it and is its alone meanwhile. The session's options hold instead
  /// of `batch_invariant`, `cache` and `on_warning`.
  explicit Engine(Session& session, const EngineOptions& options = {});
  ~Engine();  ///< rows that are left end without an event
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;

  /// Adds a row, or `samples` of them.
  /// @return the first one's id; the others' follow.
  /// @throws Error(argument) for an empty prompt, ids outside the vocabulary, options out of range, an observer of a
  ///         point this model does not compute, more than `max_waiting` rows, or a row that would not fit into
  ///         `max_cache_bytes` alone; Error(shape) for a prompt as long as the context or longer; Error(config) for
  ///         stop strings without a tokenizer; Error(cancelled) after `close`; what the steering's compilation throws.
  ///         Nothing is added then.
  RowId submit(EngineRequest request);

  /// One pass. Calls `on_event` for every token, and once more for each row that ends.
  /// @return whether rows are left.
  /// @throws what `on_event` throws. The engine goes on from the last token that was reported.
  bool step(const EngineEventFunction& on_event = {});

  /// Ends a row: it is not computed again, and its last event, `aborted` for this reason, comes with the current step
  /// or the next one. @return false for a row that has ended or is unknown.
  bool cancel(RowId row, std::string reason = "cancelled");
  /// The same for every row there is.
  void cancel_all(std::string reason = "cancelled");

  /// From now on `submit` throws Error(cancelled).
  void close();
  bool closed() const;

  /// Waits until there are rows for `step`, until `close`, or until the time is up. @return whether there are rows.
  bool wait(std::chrono::milliseconds time) const;

  struct Load {
    std::int64_t running = 0, waiting = 0;
    std::int64_t cache_bytes = 0;    ///< kept prefixes included
    std::int64_t prompt_tokens = 0;  ///< computed so far, those of rows that were set back included
    std::int64_t shared_tokens = 0;  ///< taken from a kept prefix instead
    std::int64_t tokens = 0;         ///< generated so far
    std::int64_t steps = 0;          ///< passes so far
    std::int64_t set_back = 0;       ///< times that a row lost its cache
  };
  /// What it holds, and has done, as of the last step's end; `waiting` counts rows submitted since.
  Load load() const;

  /// For hooks of one's own, between steps. Do not step, close or fork the engine's sequences.
  Session& session();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace steer
