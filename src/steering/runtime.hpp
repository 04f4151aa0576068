#pragma once
// A compiled steering at work, and what it remembers of one sequence: conditions and tags by position, the audit's
// counters.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <steer/model/intervention.hpp>
#include <steer/steering/steering.hpp>
#include <steer/text/tokenizer.hpp>

#include "model/recorded_pass.hpp"
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

struct EditCounters {
  std::int64_t seen = 0, in_scope = 0, edited = 0;
  double sum = 0, max = 0;
};

/// Marks of a token's change list, besides the relative change itself.
inline constexpr float kOutOfScope = -1;
/// A condition's state at a token: it holds, and it held at the token before.
inline constexpr std::uint8_t kHolds = 1, kHeld = 2;

class SteeringMemory final : public InterventionMemory {
 public:
  SteeringMemory(const Program& program, const std::optional<Tokenizer>& tokenizer);

  std::unique_ptr<InterventionMemory> clone() const override { return std::make_unique<SteeringMemory>(*this); }
  void truncate(std::int64_t length) override;
  void see(std::int64_t position, std::span<const std::int64_t> ids) override;
  void observe(SequenceId sequence, std::int64_t position, const at::Tensor& logits) override;
  std::optional<std::string> abort_reason() const override;
  SteeringAudit audit() const override;

  const Program& program() const { return *program_; }
  /// Whether a condition held at a position. After `recall` only.
  bool holds(int node, std::int64_t position) const {
    const auto& history = on_[static_cast<std::size_t>(node)];
    return position >= 0 && position < static_cast<std::int64_t>(history.size()) &&
           history[static_cast<std::size_t>(position)] != 0;
  }
  bool inside(int tag, std::int64_t position) const {
    return inside_[static_cast<std::size_t>(tag)][static_cast<std::size_t>(position)] != 0;
  }
  /// NaN where unknown.
  double entropy_at(std::int64_t position) const {
    return position < static_cast<std::int64_t>(entropy_.size()) ? entropy_[static_cast<std::size_t>(position)]
                                                                 : std::numeric_limits<double>::quiet_NaN();
  }
  /// Decides a condition at a position. @param value  what a feature, a probe or the entropy reads there.
  void decide(int node, std::int64_t position, double value);
  /// What conditions were decided elsewhere, all of the program at a position: looked at by `recall`.
  /// @param decided  gives a byte a condition (`kHolds`), and may wait for it.
  void decided_later(std::int64_t position, std::function<const std::uint8_t*()> decided) {
    told_.emplace_back(position, std::move(decided));
  }
  /// Takes up what was decided elsewhere.
  void recall();
  /// Does what a watch asks for.
  void notify(SequenceId sequence, const CompiledWatch& watch, std::int64_t position);
  /// Counts a run's changes: [tokens, lines], kOutOfScope, 0, or |change| / |h on arrival|.
  void count(const PointProgram& point, std::int64_t tokens, const float* changes);
  /// The same, from a tensor that may be on a device: it is looked at when someone asks.
  void count_later(const PointProgram& point, at::Tensor changes);

 private:
  void settle();
  void remember(int node, std::int64_t position, bool now);

  const Program* program_;
  std::optional<Tokenizer> tokenizer_;         ///< where there are tags
  std::vector<std::vector<std::uint8_t>> on_;  ///< by node, by position: the condition held
  std::vector<TagTracker> tags_;
  std::vector<std::vector<std::uint8_t>> inside_;                ///< by tag, by position
  std::vector<std::int64_t> ids_;                                ///< where there are tags
  std::vector<double> entropy_;                                  ///< by position
  std::vector<std::uint8_t> entropy_watch_on_;                   ///< by entropy watch: as of the last observation
  std::optional<std::pair<std::int64_t, std::string>> aborted_;  ///< where and why
  struct Pending {
    at::Tensor changes;
    const PointProgram* point;
  };
  std::vector<EditCounters> counters_;  ///< by edit
  std::vector<Pending> pending_;
  std::vector<std::pair<std::int64_t, std::function<const std::uint8_t*()>>> told_;
};

/// One run of a step with what its sequence remembers.
struct Item {
  SteeringMemory* memory = nullptr;
  const TokenRun* run = nullptr;
};

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

/// Whether the scope selects the token `id` at `position`.
bool in_scope(const Selection& selection, const SteeringMemory& memory, const TokenRun& run, std::int64_t position,
              std::int64_t id);
/// Whether the condition does too.
bool selects(const Selection& selection, const SteeringMemory& memory, const TokenRun& run, std::int64_t position,
             std::int64_t id);

struct CardProgram;

/// A steering's tokens at a hook point, for a card.
struct CardJob {
  const Program* whole = nullptr;
  const PointProgram* point = nullptr;
  std::span<const Item> items;
  const at::Tensor* table = nullptr;                ///< the point's constants on the card
  std::shared_ptr<CardProgram>* program = nullptr;  ///< where its lists on the card are kept; null at first
};

/// Runs the instructions of all jobs, none of which is `bulk`, in one launch.
using CardRunner = void (*)(HookContext& at, std::span<const CardJob> jobs);
/// cuda/run_card.cpp, in builds with a card's kernels.
void run_card(HookContext& at, std::span<const CardJob> jobs);
/// If set, runs whatever would run on a card, on activations of any device.
extern CardRunner card_runner_for_testing;
/// cuda/pass_edits.cpp, in builds with a card's kernels: the edits of recorded passes.
std::unique_ptr<model::detail::PassEdits> card_pass_edits(at::Device device);
/// If set, makes them for models on any device.
extern decltype(&card_pass_edits) pass_edits_for_testing;

class CompiledSteering final : public CompiledIntervention, public model::detail::Recordable {
 public:
  /// @throws Error(argument | shape | config | unsupported) that names the edit: a point the model does not have, a
  /// vector
  ///         or SAE of another width, a scope beyond the context, a tag without a tokenizer, a condition that reads
  ///         behind its edit.
  CompiledSteering(const ModelConfig& config, const std::optional<Tokenizer>& tokenizer, const Steering& steering,
                   const CompileOptions& options = {});

  const std::vector<HookPoint>& points() const override { return program_.places; }
  bool edits(const HookPoint& point) const override;
  bool needs_logits() const override { return program_.wants_entropy; }
  const std::vector<std::string>& warnings() const override { return program_.warnings; }
  std::unique_ptr<InterventionMemory> start() const override {
    return std::make_unique<SteeringMemory>(program_, tokenizer_);
  }
  void run(HookContext& at, std::span<const IntervenedRun> runs) override;
  void run_all(HookContext& at, std::span<const IntervenedGroup> groups) override;
  bool settled() const override { return settled_; }
  std::unique_ptr<model::detail::PassEdits> pass_edits(at::Device device) const override;

  const Program& program() const { return program_; }
  /// What there is to do at a point, if that is something, for the runs taken up last.
  CardJob job(const PointProgram& point, at::Device device) {
    return {&program_, &point, items_, &table_on(point, device), &card_programs_[index_of(point)]};
  }
  /// Takes up the runs that have tokens. @return whether there are some.
  bool take_up(std::span<const IntervenedRun> runs);

 private:
  /// Takes up the runs that have tokens and decides the conditions read here. @return what is to be done; null:
  /// nothing.
  const PointProgram* begin(HookContext& at, std::span<const IntervenedRun> runs);
  /// Decides the conditions read at this point, and what watches them.
  void resolve(HookContext& at, const PointProgram& point, bool fast);
  /// What a feature or a probe reads at a run's tokens.
  void read(HookContext& at, const PointProgram& point, const Node& node, const TokenRun& run, bool fast,
            std::vector<float>& values);
  /// Features by a full encode of h [tokens, width]: with `batch_invariant` a token's bits do not depend on the others.
  at::Tensor encode(const Sae& sae, const at::Tensor& h, std::span<const std::int64_t> features) const;
  /// Functions at attn_pattern: [heads, queries, keys] of one run.
  void run_pattern(HookContext& at, const PointProgram& point);
  void run_cpu(HookContext& at, const PointProgram& point);
  void run_aten(HookContext& at, const PointProgram& point);
  std::size_t index_of(const PointProgram& point) const {
    return static_cast<std::size_t>(&point - program_.points.data());
  }
  /// The point's constants [rows, width] on a device.
  const at::Tensor& table_on(const PointProgram& point, at::Device device);

  Program program_;
  std::optional<Tokenizer> tokenizer_;
  bool batch_invariant_, settled_;
  std::vector<at::Tensor> device_tables_;                    ///< by point: copies where the activations are
  std::vector<std::shared_ptr<CardProgram>> card_programs_;  ///< by point
  std::vector<Item> items_;                                  ///< kept between steps so that a step allocates nothing
};

}  // namespace steer::steering::detail
