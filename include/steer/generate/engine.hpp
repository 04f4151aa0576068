#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <steer/generate/generate.hpp>

namespace steer {

/// Names one row of an engine; never used twice.
using RowId = std::int64_t;

struct EngineOptions {
  std::int64_t max_rows = 32;        ///< computed at once; further rows wait
  std::int64_t max_cache_bytes = 0;  ///< of keys and values; 0: no limit. When they are spent, prefixes kept for later
                                     ///< rows go first; then the rows that are last in order are set back, and computed
                                     ///< anew when there is room
  std::int64_t step_tokens = 256;    ///< in one step: every row that generates has one, prompts share the rest
  bool keep_prefixes = true;         ///< computed prompts are kept for rows that begin alike
  bool batch_invariant = true;       ///< exact independence of batch mates (see SessionOptions)
};

/// One row, or several samples of one prompt.
struct EngineRequest {
  std::vector<std::int64_t> ids{};  ///< the prompt, BOS included
  Steering steering{};
  SamplingOptions sampling{};
  std::int64_t max_tokens = 256;
  std::vector<std::string> stop{};       ///< the text ends before the first of these
  std::vector<std::int64_t> stop_ids{};  ///< besides the model's own end-of-sequence ids
  std::uint64_t seed = 0;    ///< of the first sample; sample i > 0 draws from derive_seed(seed, "sample", i)
  std::int64_t samples = 1;  ///< rows with ids that follow one another; they share the prompt's cache
  int priority = 0;          ///< higher ones first; equal ones in the order they came
};

/// What a step did to one row.
struct EngineEvent {
  RowId row = 0;
  std::int64_t id = -1;                    ///< the new token; -1: none, in a row's last event
  std::string_view text;                   ///< what became final; may be empty. Valid during the call
  double log_probability = 0;              ///< of the token, under the unfiltered distribution
  const GenerateResult* result = nullptr;  ///< the row is done: all of it. Valid during the call
};

/// Generates for rows that come and go at any time. Each step is one pass over one flat batch: the next token of every
/// row that generates, and as much of the waiting prompts as `step_tokens` leaves room for.
///
///     Engine engine(model);
///     const RowId id = engine.submit({.ids = prompt, .steering = funny});
///     while (engine.step([](const EngineEvent& e) { fmt::print("{}", e.text); })) {}
///
/// On the CPU a row's ids, text, log-probabilities and audit depend on its own request only, to the bit: not on other
/// rows, on when it joined, nor on whether it was set back meanwhile. One thread; the model may be in use by others.
class Engine {
 public:
  /// @throws Error(argument) for options out of range.
  explicit Engine(Model model, const EngineOptions& options = {});
  ~Engine();
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;

  /// Adds a row, or `samples` of them; also from within a callback.
  /// @return the first one's id; the others' follow.
  /// @throws Error(argument | shape | config) as `generate` does; Error(argument) for a row that would not fit into
  ///         `max_cache_bytes` alone; what the steering's compilation throws.
  RowId submit(EngineRequest request);

  /// One pass. Calls `on_event` for every token drawn, and once more for each row that ends.
  /// @return whether rows are left.
  /// @throws what a callback throws, or a pass: NaN in logits, a broken hook. The engine goes on from the last token
  ///         that was reported.
  bool step(const std::function<void(const EngineEvent&)>& on_event = {});

  /// Ends a row now; also from within a callback. It gets no further event.
  /// @return what it had so far, `finish` being `aborted`; empty for a row that is done or unknown.
  std::optional<GenerateResult> cancel(RowId row);

  struct Load {
    std::int64_t running = 0, waiting = 0;
    std::int64_t cache_bytes = 0;    ///< kept prefixes included
    std::int64_t prompt_tokens = 0;  ///< computed so far, those of rows that were set back included
    std::int64_t shared_tokens = 0;  ///< taken from a kept prefix instead
    std::int64_t set_back = 0;       ///< times that a row lost its cache
  };
  /// What it holds now, and has done so far.
  Load load() const;

  /// For hooks of one's own. Its sequences are the engine's: do not step, close or fork them.
  Session& session();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace steer
