#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <steer/model/audit.hpp>
#include <steer/model/hooks.hpp>

namespace steer {

class Model;

/// What an intervention remembers of one sequence. Belongs to the session, which calls it from one thread at a time.
class InterventionMemory {
 public:
  virtual ~InterventionMemory() = default;
  /// For a fork of the sequence.
  virtual std::unique_ptr<InterventionMemory> clone() const = 0;
  /// Forgets tokens from `length` on: a fork that shares only the first ones, or a step that failed.
  virtual void truncate(std::int64_t length) = 0;
  /// Told of tokens before they are computed; they stand at `position` and after.
  virtual void see(std::int64_t position, std::span<const std::int64_t> ids) = 0;
  /// Told of the distribution the token at `position` will be drawn from: logits [vocab], f32. Only where
  /// `CompiledIntervention::needs_logits`.
  virtual void observe(SequenceId sequence, std::int64_t position, const at::Tensor& logits) = 0;
  /// Why the sequence should end, if it should.
  virtual std::optional<std::string> abort_reason() const = 0;
  /// What has been done so far.
  virtual SteeringAudit audit() const = 0;
};

/// A run of a step and what its intervention remembers.
struct IntervenedRun {
  const TokenRun* run = nullptr;
  InterventionMemory* memory = nullptr;  ///< made by the same CompiledIntervention
};

class CompiledIntervention;

/// An intervention and its runs of a pass.
struct IntervenedGroup {
  CompiledIntervention* program = nullptr;
  std::span<const IntervenedRun> runs;
};

/// An intervention made ready for one model. One of them serves all sequences of a session that have equal ones.
class CompiledIntervention {
 public:
  virtual ~CompiledIntervention() = default;
  /// The hook points it wants, in order of computation.
  virtual const std::vector<HookPoint>& points() const = 0;
  /// Whether it may change what it gets there; otherwise it promises to only read.
  virtual bool edits(const HookPoint& point) const = 0;
  /// Whether it wants to know the distributions of next tokens.
  virtual bool needs_logits() const = 0;
  /// What a person should know before trusting it, in words.
  virtual const std::vector<std::string>& warnings() const = 0;
  /// A sequence's memory before its first token.
  virtual std::unique_ptr<InterventionMemory> start() const = 0;
  /// One pass at one of the points, over those of the step's runs that have this intervention. Hooks of order 0 and
  /// above come after it.
  virtual void run(HookContext& at, std::span<const IntervenedRun> runs) = 0;
  /// The same of all interventions that want the point, the first of which is asked; no two share a token. To be
  /// overridden where several cost less together; by default each runs on its own.
  virtual void run_all(HookContext& at, std::span<const IntervenedGroup> groups) {
    for (const IntervenedGroup& group : groups) group.program->run(at, group.runs);
  }
};

/// How a session compiles.
struct CompileOptions {
  bool batch_invariant = false;  ///< SessionOptions::batch_invariant: keep its promise
};

/// Something that reads and changes the activations of sequences while a session runs them: a value that says what, not
/// how. `Steering` is one; derive from this to bring another.
class Intervention {
 public:
  virtual ~Intervention() = default;
  /// Equal interventions have equal names; unequal ones may.
  virtual std::string name() const = 0;
  virtual bool equals(const Intervention& other) const = 0;
  /// @throws Error for what the model cannot do, before any token is computed.
  virtual std::shared_ptr<CompiledIntervention> compile(const Model& model, const CompileOptions& options) const = 0;
};

/// How sessions take one: a `Steering` converts to it. Null: none.
using InterventionPtr = std::shared_ptr<const Intervention>;

}  // namespace steer
