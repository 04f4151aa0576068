#pragma once
// What a steering becomes when it is compiled: for each hook point a list of instructions over rows of one table of
// constants. Programs are immutable; what changes while sequences run lies in runtime.hpp.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <steer/model/audit.hpp>
#include <steer/model/config.hpp>
#include <steer/sae/sae.hpp>
#include <steer/steering/steering.hpp>

#include "steering/instruction.hpp"

namespace steer::steering::detail {

/// A hook point's place in the order of computation.
struct PointOrder {
  std::int64_t layer = 0;
  Site site = Site::embed;
  friend auto operator<=>(const PointOrder&, const PointOrder&) = default;
};
PointOrder order_of(const HookPoint& point);
/// Width of a point's activations. @throws Error(argument) for a point the model does not have, Error(unsupported) for
/// one that cannot be steered.
std::int64_t point_width(const ModelConfig& config, const HookPoint& point, std::string_view where);

/// All constants of one hook point, gathered once: encoder rows, decoder rows, vectors. Row i starts at i * width.
struct ConstantTable {
  std::int64_t width = 0;
  at::Tensor rows;               ///< [n, width], f32, CPU
  const float* first = nullptr;  ///< of `rows`: a pass asks libtorch for nothing
  const float* row(int index) const { return first + index * width; }
};

/// A compiled condition; its value at a token is kept by position.
struct Node {
  ConditionSource source = ConditionSource::feature;
  Band band;  ///< of the value; of parts only whether it is sticky
  std::vector<int> parts;
  Register read;           ///< feature, probe
  std::optional<Sae> sae;  ///< feature
  SaeNormalization normalization = SaeNormalization::none;
  bool entropy_only = false;  ///< known before the token's forward pass
};

struct CompiledWatch {
  int node = -1;
  std::string reason;
  bool abort = false;
  std::shared_ptr<const SteeringHandler> handler;
};

/// Which tokens an edit touches.
struct Selection {
  Scope scope;
  std::vector<int> tags;  ///< of the program: the scope's own and its exceptions', in the order they are named
  int node = -1;          ///< condition; -1: none
  friend bool operator==(const Selection&, const Selection&) = default;
};

/// One edit of an instruction.
struct Member {
  int line = 0;  ///< of the point's `slots`
  Selection selection;
  Change change;
};

/// Edits done together, in order: all registers are read, each member changes its own, the changes are written.
struct Instruction {
  std::vector<Register> registers;
  std::vector<Member> members;
  std::optional<Sae> sae;  ///< of registers that are features
  SaeNormalization normalization = SaeNormalization::none;
  /// Every token gets the same: nothing is read, all members have one selection and one unit, and there is one register
  /// whose row is the sum of what they add. `sizes` are the lengths of their parts.
  bool constant = false;
  std::vector<float> sizes;
  bool full = false;                               ///< some register needs a full encode
  std::shared_ptr<const CustomFunction> function;  ///< instead of registers: h <- h + s (f(h) - h)
  /// Whether it runs on tensors of many tokens rather than token by token.
  bool bulk() const { return full || function; }
};

/// What a program does at one hook point.
struct PointProgram {
  ConstantTable table;
  std::vector<int> nodes;              ///< resolved here, parts before wholes
  std::vector<CompiledWatch> watches;  ///< checked here
  std::vector<int> slots;              ///< edits that act here, in order: their numbers in the steering
  std::vector<Instruction> instructions;
  std::int64_t dots = 0;
};

/// A steering, compiled.
struct Program {
  std::vector<HookPoint> places;     ///< in order of computation
  std::vector<PointProgram> points;  ///< at those places
  std::vector<EditAudit> audit;      ///< one empty line an edit
  std::vector<Node> nodes;
  std::vector<CompiledWatch> entropy_watches;  ///< checked as soon as the entropy is known
  std::vector<int> entropy_nodes;              ///< of those watches
  std::vector<std::string> tags;
  std::vector<std::string> warnings;
  bool wants_entropy = false;
  /// What it does at a place; null: nothing.
  const PointProgram* at(const HookPoint& place) const;
};

/// Checks a steering against a model. @return what a person should know before trusting it.
/// @throws Error as CompiledSteering says.
std::vector<std::string> check_fit(const ModelConfig& config, bool has_tokenizer, const Steering& steering);
/// @throws the same.
Program compile_program(const ModelConfig& config, bool has_tokenizer, const Steering& steering);

}  // namespace steer::steering::detail
