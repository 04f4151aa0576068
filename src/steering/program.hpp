#pragma once
// What a steering becomes when it is compiled: for each hook point a list of stages over rows of one table of
// constants. Programs are immutable; what changes while sequences run lies in plan_state.hpp.

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <steer/model/config.hpp>
#include <steer/sae/sae.hpp>
#include <steer/steering/plan.hpp>

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
  at::Tensor rows;  ///< [n, width], f32, CPU
  const float* row(int index) const { return rows.const_data_ptr<float>() + index * width; }
};

/// What is needed to read one feature from a token by one dot product, and to write it. With y = x~.e + offset (x~ the
/// normalised token, e the encoder row): f = max(gain y + bias, 0) where y + gate_bias > threshold, else 0.
struct FeatureRow {
  std::int64_t index = 0;  ///< in the SAE
  bool read = false;       ///< its activation is needed
  int encoder = -1;        ///< row of the table; -1: not read, or read by a full encode
  int decoder = -1;
  float offset = 0, gain = 1, bias = 0, gate_bias = 0, threshold = 0;
  float encoder_sum = 0;  ///< layer_norm: takes the mean off a dot product with the raw token
  float decoder_norm = 0;

  /// From the dot product with the encoder row, of a token whose normalisation is done.
  float activation(float dot) const {
    const float y = dot + offset;
    return y + gate_bias > threshold ? std::max(gain * y + bias, 0.f) : 0.f;
  }
};

/// A compiled condition; its value at a token is kept by position.
struct Node {
  ConditionSource source = ConditionSource::feature;
  double above = 0, at_most = 0, release = 0;
  bool sticky = false;
  std::vector<int> parts;
  // feature and probe
  FeatureRow feature;
  std::optional<Sae> sae;  ///< set when a full encode is needed, and for its normalisation
  bool full = false;
  SaeNormalization normalization = SaeNormalization::none;
  int probe = -1;
  float bias = 0;
  bool entropy_only = false;  ///< known before the token's forward pass
};

struct CompiledWatch {
  int node = -1;
  std::string reason;
  bool abort = false;
  std::shared_ptr<const SteeringHandler> handler;
};

enum class StageKind { constant, features, project, rotate, gated, cap_norm, keep_norm, splice, custom };

/// One edit of a stage.
struct Member {
  int line = 0;  ///< of the point's `slots`
  Scope scope;
  int tag = -1;   ///< of the program
  int node = -1;  ///< condition; -1: none
  float strength = 1;
  bool by_norm = false;  ///< measured by |h|
  FeatureAction action = FeatureAction::nudge;
  float value = 0, low = 0, high = 0;
  int feature = -1;    ///< of the stage
  float row_norm = 0;  ///< constant: length of what the member adds
};

/// Edits done together, in order.
struct Stage {
  StageKind kind = StageKind::constant;
  std::vector<Member> members;  ///< one, but for constant (all of one scope, condition and unit) and features
  int combined = -1;            ///< constant: the row that is the members' sum
  // features, splice
  std::optional<Sae> sae;
  SaeNormalization normalization = SaeNormalization::none;
  std::vector<FeatureRow> features;
  bool full = false;  ///< needs a full encode
  bool with_error = false;
  // project: h.a moves to factor * h.a, or to target; rotate: orthonormal a, b; gated: gate a, vector b
  int a = -1, b = -1;
  float b_norm = 0;
  bool to_target = false;
  Side side = Side::both;
  float factor = 0, target = 0;
  float cosine = 1, sine = 0;
  float gate_bias = 0, gain = 0;
  std::shared_ptr<const CustomFunction> function;
  /// Whether the stage runs on tensors of many tokens rather than token by token.
  bool bulk() const { return full || kind == StageKind::splice || kind == StageKind::custom; }
};

/// What a program does at one hook point.
struct PointProgram {
  std::vector<int> nodes;              ///< resolved here, parts before wholes
  std::vector<CompiledWatch> watches;  ///< checked here
  std::vector<int> slots;              ///< edits that act here, in order: their numbers in the steering
  std::vector<Stage> stages;
  std::int64_t dots = 0;
};

/// A steering, compiled.
struct Program {
  std::vector<EditAudit> audit;  ///< one empty line an edit
  std::vector<Node> nodes;
  std::vector<CompiledWatch> entropy_watches;  ///< checked as soon as the entropy is known
  std::vector<int> entropy_nodes;              ///< of those watches
  std::vector<std::string> tags;
  std::vector<std::optional<PointProgram>> points;  ///< by number of the plan's points
  bool wants_entropy = false;
};

/// Everything `SteeringPlan::compile` makes.
struct CompiledPlan {
  std::vector<HookPoint> points;      ///< in order of computation
  std::vector<ConstantTable> tables;  ///< by point
  std::vector<std::unique_ptr<Program>> programs;
  std::vector<int> program_of_row;
  std::vector<std::string> warnings;
};

CompiledPlan compile_plan(const ModelConfig& config, bool has_tokenizer, std::span<const Steering> rows,
                          const PlanOptions& options);

}  // namespace steer::steering::detail
