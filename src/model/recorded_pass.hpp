#pragma once
// Passes that are done again from a recording (on a card, CUDA graphs): a step of single tokens is the same launches
// each time, at the same addresses, and only what lies there differs. What the host has to say about a step's tokens is
// therefore staged before the pass, at places that stay.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <steer/model/intervention.hpp>

namespace steer::model::detail {

namespace cuda {
class Tables;
}

/// What the interventions of recorded passes do. One a session.
class PassEdits {
 public:
  virtual ~PassEdits() = default;
  /// Takes up a step. @param groups  all of them `Recordable` of one kind and settled.
  /// @return false: it cannot be recorded, nothing was done.
  virtual bool begin(const BatchView& batch, std::span<const IntervenedGroup> groups) = 0;
  /// What of the step is fixed in a recording: steps of equal shape can share one.
  virtual const std::vector<std::int64_t>& shape() const = 0;
  /// Adds what the step's tokens need, as many bytes for each step of a shape. @param places  rows of the pass, of
  /// which the last may be nobody's.
  virtual void stage(std::int64_t places, cuda::Tables& tables) = 0;
  /// What is done at a point, `value` [places, width] in place, from what was staged and sent.
  virtual void launch(const HookPoint& point, const at::Tensor& value) = 0;
  /// After the pass: what it did and decided is noted, to be looked at when someone asks.
  virtual void note() = 0;
};

/// A CompiledIntervention that can be part of recorded passes derives from this too.
class Recordable {
 public:
  virtual ~Recordable() = default;
  /// Whether a pass can be done without looking at it: no function is called and no feature needs a full encode.
  virtual bool settled() const = 0;
  /// Null where there are no kernels for it. @param device  of the model.
  virtual std::unique_ptr<PassEdits> pass_edits(at::Device device) const = 0;
};

/// Whether a pass may be recorded, and with which interventions.
struct Replay {
  bool allowed = false;        ///< single tokens, a backend that records, and nobody but interventions looks
  PassEdits* edits = nullptr;  ///< of `groups`; null: there are none
  std::span<const IntervenedGroup> groups = {};
};

}  // namespace steer::model::detail
