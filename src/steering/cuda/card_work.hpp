#pragma once
// What a card is told of a step's tokens at hook points.

#include <cstdint>
#include <map>
#include <vector>

#include "model/cuda/tables.hpp"
#include "steering/cuda/edit.hpp"
#include "steering/runtime.hpp"

namespace steer::steering::detail {

using model::detail::cuda::Tables;

/// A point's program where the card reads it.
struct CardProgram {
  Tables lists;
  card::Program program;
};

/// Tokens' work, and how much memory it writes to.
struct CardWork {
  std::vector<card::Work> work;
  std::vector<std::uint8_t> selected;
  std::int64_t changes = 0, registers = 0;
  struct Counted {
    SteeringMemory* memory;
    const PointProgram* point;
    std::int64_t tokens, first;  ///< of the changes
  };
  std::vector<Counted> counted;
  /// Sequences, of one token each, whose conditions the card decides: their states before it does.
  std::vector<std::uint8_t> states;
  struct Undecided {
    std::int64_t position, first;  ///< of the states
  };
  std::map<SteeringMemory*, Undecided> undecided;

  /// Decides what acts on each token of a job, as far as that is not the card's to do; sends its program where that is
  /// new.
  void add(const CardJob& job, const BatchView& batch);
  /// Has the changes counted. @param made  what the launches left there.
  void count(const at::Tensor& made) const;
};

}  // namespace steer::steering::detail
