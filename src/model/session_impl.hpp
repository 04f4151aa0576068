#pragma once
// What a session is made of. Its functions are in session.cpp (the public ones), session_step.cpp (steps),
// session_steering.cpp (interventions) and session_record.cpp (whole prompts).

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include <steer/core/error.hpp>
#include <steer/model/session.hpp>

#include "model/forward.hpp"
#include "model/hook_table.hpp"
#include "model/kv_cache.hpp"
#include "model/recorded_pass.hpp"

namespace steer {

struct Session::Impl {
  Impl(Model m, const SessionOptions& o)
      : model(std::move(m)),
        options(o),
        hooks(std::make_shared<model::detail::HookTable>(model.config())),
        cache(model.impl_->part, model.device(), options.cache, options.max_cache_bytes),
        forward(*model.impl_, *hooks, cache, options) {}

  Model model;
  SessionOptions options;
  std::shared_ptr<model::detail::HookTable> hooks;
  model::detail::KvCache cache;
  model::detail::Forward forward;
  std::atomic_flag busy = ATOMIC_FLAG_INIT;

  /// Held by every call that reads or changes the session.
  class Use {
   public:
    Use(Impl& impl, const char* where) : impl_(impl) {
      require(
          !impl_.busy.test_and_set(std::memory_order_acquire), ErrorCode::argument, where,
          "expected one thread at a time but got a second call while one runs (from another thread or from one of the "
          "session's own hooks); give each thread a Session of its own, they share the model");
    }
    ~Use() { impl_.busy.clear(std::memory_order_release); }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    Impl& impl_;
  };

  /// A sequence for one call.
  class Scratch {
   public:
    Scratch(Impl& impl, const InterventionPtr& steering) : impl_(impl), sequence_(impl.open(steering)) {}
    ~Scratch() { impl_.close(sequence_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    SequenceId sequence() const { return sequence_; }

   private:
    Impl& impl_;
    SequenceId sequence_;
  };

  /// What a step changes of a sequence, for taking it back.
  struct Before {
    model::detail::SequenceCache* state;
    std::int64_t length, prompt_length;
    bool generated;
    std::vector<std::int64_t> filled;
  };

  /// A token whose logits are computed.
  struct Wanted {
    std::int64_t token;                                ///< of the step
    bool returned;                                     ///< to the caller
    model::detail::SequenceCache* observer = nullptr;  ///< whose intervention is told of them
    SequenceId sequence = 0;
  };

  struct Plan {
    std::vector<std::int64_t> ids;
    std::vector<TokenRun> runs;
    std::vector<model::detail::SequenceCache*> states;  // of each run
    std::vector<Before> before;                         // of each sequence
    std::vector<std::int64_t> asked;                    // of each run: StepInput::logits
    std::vector<bool> complete;                         // of each run: no more of the prompt is to come
    std::int64_t first, last;
    std::vector<Wanted> wanted;  // in order
  };

  /// Equal interventions share a program. Those no open sequence has are kept for a while.
  struct Compiled {
    InterventionPtr source;
    std::shared_ptr<CompiledIntervention> program;
  };
  /// A program, and this pass's runs of sequences that have it.
  struct Group {
    CompiledIntervention* program;
    std::vector<IntervenedRun> runs;
  };

  std::mutex compiling;                                     ///< guards `compiled`
  std::unordered_multimap<std::string, Compiled> compiled;  ///< by name
  std::vector<std::string> warnings;
  std::map<CompiledIntervention*, std::int64_t> users;  ///< open sequences of each program
  std::map<HookPoint, std::pair<bool, std::shared_ptr<HookHandle::Registration>>> wired;  ///< edits?, the hook
  std::vector<Group> groups;                                                              ///< of the pass that runs
  std::vector<IntervenedGroup> together;                     ///< those at the hook point that runs
  std::unique_ptr<model::detail::PassEdits> recorded_edits;  ///< made when a recorded pass first has interventions

  std::shared_ptr<CompiledIntervention> program_of(const InterventionPtr& intervention);  ///< any thread
  std::shared_ptr<CompiledIntervention> known_program(const std::string& name, const Intervention& intervention);
  void begin(model::detail::SequenceCache& state, const InterventionPtr& intervention);
  void count_user(CompiledIntervention* program, int by);
  void intervene(HookContext& at);
  void group(std::span<const TokenRun> runs, std::span<model::detail::SequenceCache* const> states);
  model::detail::Replay replay(const BatchView& batch);
  void warn(std::string warning);
  void close(SequenceId sequence);
  SequenceId open(const InterventionPtr& intervention);
  Plan plan(std::span<const StepInput> inputs, const LayerRange& layers);
  /// Notes which tokens' logits are needed.
  void want(Plan& plan, Logits logits, std::span<const std::int64_t> positions) const;
  /// @param positions  tokens of the step, for Logits::positions.
  at::Tensor step(std::span<const StepInput> inputs, Logits logits, const LayerRange& layers, std::int64_t chunk,
                  std::span<const std::int64_t> positions = {});
  at::Tensor run_chunks(const Plan& plan, const LayerRange& layers, std::int64_t chunk);
};

}  // namespace steer
