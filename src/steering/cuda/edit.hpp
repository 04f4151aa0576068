#pragma once
// The steering instruction on a card: all instructions of a hook point for all tokens of a step, whatever steering each
// has, in one launch. Raw pointers on the device and plain data, as in model/cuda/kernels.hpp.

#include <cstdint>

#include "steering/instruction.hpp"

namespace steer::steering::detail::card {

/// An SAE's input normalisation: none; to a norm of sqrt(width); to mean 0 and deviation 1.
enum class Normalization : std::uint8_t { none, constant_norm_rescale, layer_norm };

/// An edit of an instruction.
struct Member {
  int line = 0;        ///< of the token's changes
  int condition = -1;  ///< its number; -1: none
  float size = 0;      ///< of a constant instruction: the length of what it adds
  Change change;
};

/// A condition that is decided at this point: by what it reads, or by others, whose numbers stand in the program's
/// list.
struct Condition {
  enum class Kind : std::uint8_t { reads, all_of, any_of };
  Kind kind = Kind::reads;
  Normalization normalization = Normalization::none;
  int number = 0;  ///< of the token's states
  int first_part = 0, parts = 0;
  Register read;
  Band band;
};

/// An instruction: its registers and members stand in the program's lists.
struct Step {
  int first_register = 0, registers = 0, first_member = 0, members = 0;
  Normalization normalization = Normalization::none;
  bool constant = false;  ///< the first register's row is added, nothing is read
};

/// What a steering does at a hook point. Its lists lie on the device.
struct Program {
  const float* table = nullptr;  ///< rows of `width`
  const Step* steps = nullptr;
  const Register* registers = nullptr;
  const Member* members = nullptr;
  const Condition* conditions = nullptr;
  const int* parts = nullptr;
  std::int64_t width = 0;
  int step_count = 0, member_count = 0, condition_count = 0, lines = 0;
  int most_registers = 0;  ///< of a step
};

/// One token's work, and where its parts of a launch's arrays begin.
struct Work {
  Program program;
  std::int64_t row = 0;        ///< of the activations
  std::int64_t selected = 0;   ///< [member_count]
  std::int64_t changes = 0;    ///< [lines]
  std::int64_t registers = 0;  ///< [2, most_registers]
  std::int64_t states = 0;     ///< a byte a condition of the steering
};

/// Tokens and their arrays, on the device.
struct Launch {
  const Work* work = nullptr;
  std::int64_t tokens = 0;
  float* h = nullptr;                      ///< activations, changed in place
  std::int64_t stride = 0;                 ///< between their rows
  const std::uint8_t* selected = nullptr;  ///< whether a member's scope selects the token; without `states`, all
  std::uint8_t* states = nullptr;          ///< bits of runtime.hpp; null: conditions were decided elsewhere
  float* changes = nullptr;                ///< kOutOfScope, or |change| / |h on arrival|
  float* registers = nullptr;              ///< to work in
};

/// One block a token: its bits do not depend on the others.
void edit(void* stream, const Launch& launch);

}  // namespace steer::steering::detail::card
