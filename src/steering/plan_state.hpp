#pragma once
// What changes while a plan's sequences run: per sequence, the memory of conditions and tags by position; per row, the
// counters of the audit.

#include <ATen/core/Tensor.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <steer/steering/plan.hpp>
#include <steer/text/tokenizer.hpp>

#include "steering/program.hpp"

namespace steer::steering::detail {

/// Follows one tag through a growing text.
class TagTracker {
 public:
  explicit TagTracker(const std::string& tag) : open_("<" + tag + ">"), close_("</" + tag + ">") {}
  void push(std::string_view text);
  bool inside() const { return inside_; }

 private:
  std::string open_, close_;
  std::string tail_;  ///< text that may still become part of a tag
  bool inside_ = false;
};

/// One sequence bound to a row.
struct SteeredSequence {
  std::int64_t row = 0;
  const Program* program = nullptr;
  std::int64_t next = 0;                      ///< position of the next token
  std::vector<std::vector<std::uint8_t>> on;  ///< by node, by position: the condition held
  std::vector<TagTracker> tags;
  std::vector<std::vector<std::uint8_t>> inside;  ///< by tag, by position
  std::optional<Tokenizer> tokenizer;             ///< where there are tags
  std::vector<double> entropy;                    ///< by position; NaN where unknown
  std::vector<std::uint8_t> entropy_watch_on;     ///< by entropy watch: as of the last observation
  std::optional<std::string> aborted;
  bool unbound = false;  ///< steered by `bind_others`
  int last_point = -1;   ///< of the last pass; a lower or equal one begins a new step

  bool holds(int node, std::int64_t position) const {
    const auto& history = on[node];
    return position >= 0 && position < static_cast<std::int64_t>(history.size()) && history[position];
  }
  double entropy_at(std::int64_t position) const {
    return position < static_cast<std::int64_t>(entropy.size()) ? entropy[position]
                                                                : std::numeric_limits<double>::quiet_NaN();
  }
  /// Notes ids that stand at `position` and after; positions known already are left alone.
  void see(std::int64_t position, std::span<const std::int64_t> ids);
  /// Decides a condition at a position. @param value  what a feature, a probe or the entropy reads there.
  void decide(int node, std::int64_t position, double value);
};

struct EditCounters {
  std::int64_t seen = 0, in_scope = 0, edited = 0;
  double sum = 0, max = 0;
};

/// Changes of one pass that are still on the device.
struct PendingCount {
  at::Tensor changes;  ///< [tokens, lines]
  const PointProgram* point = nullptr;
  std::vector<std::pair<std::int64_t, std::int64_t>> runs;  ///< row and number of tokens
};

/// One run of a step that its sequence's program has something to do with.
struct Item {
  SteeredSequence* state = nullptr;
  const PointProgram* point = nullptr;
  const TokenRun* run = nullptr;
};

/// Marks of a token's change list, besides the relative change itself.
inline constexpr float kOutOfScope = -1;

/// Whether the scope and condition select the token `id` at `position`.
bool selects(const Selection& selection, const SteeredSequence& state, const TokenRun& run, std::int64_t position,
             std::int64_t id);

/// One token on its way through the instructions of a hook point.
struct TokenWork {
  float* h = nullptr;
  std::int64_t position = 0, id = 0;
  const Item* item = nullptr;
  float* change = nullptr;  ///< by line: kOutOfScope, 0, or |change| / |h on arrival|
  float norm = -1;          ///< on arrival; -1: not measured yet
  bool changed = false;
  std::size_t next = 0;  ///< instruction
};

}  // namespace steer::steering::detail

namespace steer {

struct SteeringPlan::Impl {
  steering::detail::CompiledPlan plan;
  std::optional<Tokenizer> tokenizer;
  std::unordered_map<SequenceId, steering::detail::SteeredSequence> sequences;
  std::vector<std::vector<steering::detail::EditCounters>> counters;  ///< by row, by edit
  std::int64_t others = -1;                                           ///< row of sequences that are not bound
  std::vector<at::Tensor> device_tables;                              ///< by point: copies where the activations are

  // Kept between steps so that a step allocates nothing.
  std::vector<steering::detail::Item> items;
  std::vector<steering::detail::TokenWork> tokens;
  std::vector<float> changes;
  std::vector<steering::detail::PendingCount> pending;

  /// SteeringPlan::apply.
  void apply(HookContext& at);
  /// A sequence of that row, before its first token.
  steering::detail::SteeredSequence fresh(std::int64_t row) const;
  /// The state of a run's sequence, nullptr for one that is not steered.
  steering::detail::SteeredSequence* state_of(const TokenRun& run, int point);
  /// Decides the conditions read at this point, and what watches them.
  void resolve(HookContext& at, int point, bool fast);
  void notify(steering::detail::SteeredSequence& state, SequenceId sequence,
              const steering::detail::CompiledWatch& watch, std::int64_t position);
  void run_cpu(HookContext& at, int point);
  void run_aten(HookContext& at, int point);
  /// Counts a run's changes: [tokens * lines] as TokenWork::change.
  void count(std::int64_t row, const steering::detail::PointProgram& point, std::int64_t tokens, const float* changes);
  /// Counts what is pending.
  void settle();
  /// The point's constants [rows, width] on a device.
  const at::Tensor& table_on(int point, at::Device device);
};

}  // namespace steer
