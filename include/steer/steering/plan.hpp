#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <steer/model/hooks.hpp>
#include <steer/model/model.hpp>
#include <steer/model/session.hpp>
#include <steer/steering/steering.hpp>

namespace steer {

/// What one edit did in one row.
struct EditAudit {
  std::string edit;  ///< its name or description
  HookPoint point;
  std::int64_t seen = 0;      ///< tokens that passed the hook point
  std::int64_t in_scope = 0;  ///< of those, tokens its scope and condition selected
  std::int64_t edited = 0;    ///< of those, tokens whose activation it changed
  double mean_change = 0;     ///< |change| / |h on arrival|, mean over edited tokens
  double max_change = 0;      ///< the largest
};

/// What a row's steering did. Silent no-op steering, the commonest fault in this field, shows here.
struct SteeringAudit {
  std::vector<EditAudit> edits;  ///< in the order of the steering
  std::int64_t edited() const;   ///< over all edits
  bool fired() const { return edited() > 0; }
  /// @throws Error(config) that lists the counts when there are edits and none changed a token.
  void require_fired(std::string_view where) const;
  /// A table, one line an edit.
  std::string describe() const;
};

/// What to do about an SAE whose file names another model than the one it is used on.
enum class ModelMismatch { ignore, warn, error };

template <>
struct EnumTable<ModelMismatch> {
  static constexpr std::string_view name = "model mismatch";
  static constexpr EnumEntry<ModelMismatch> entries[] = {
      {ModelMismatch::ignore, "ignore"}, {ModelMismatch::warn, "warn"}, {ModelMismatch::error, "error"}};
};

struct PlanOptions {
  ModelMismatch model_mismatch = ModelMismatch::warn;  ///< `warn` adds a line to `warnings()`
};

/// The steerings of any number of rows, compiled for one model: at each hook point one pass over the step's tokens,
/// with just the encoder rows, decoder rows and vectors the edits need, gathered once. Rows with equal steerings share
/// one program; rows are bound to sequences while they run and may come and go between steps at no cost.
///
/// Order within a hook point is the order of the row's steering. Arithmetic is f32, cast once to the activation's
/// dtype. A token no edit selects keeps every bit. One thread at a time, as a Session.
class SteeringPlan {
 public:
  /// Compiles; all that can be wrong is found here, not at token 500.
  /// @throws Error(argument | shape | config | unsupported) that names the row and the edit: a point the model does
  ///         not have, a vector or SAE of another width, a scope beyond the context, a tag without a tokenizer, a
  ///         condition that reads behind its edit, an SAE of another model (by option).
  static SteeringPlan compile(const Model& model, std::span<const Steering> rows, const PlanOptions& options = {});
  /// The same for a model known by its configuration alone.
  static SteeringPlan compile(const ModelConfig& config, const std::optional<Tokenizer>& tokenizer,
                              std::span<const Steering> rows, const PlanOptions& options = {});
  /// One row.
  static SteeringPlan compile(const Model& model, const Steering& row, const PlanOptions& options = {});

  SteeringPlan(SteeringPlan&&) noexcept;
  SteeringPlan& operator=(SteeringPlan&&) noexcept;
  ~SteeringPlan();

  /// Number of steerings it was compiled from.
  std::int64_t rows() const;
  /// Distinct programs among the rows.
  std::int64_t distinct() const;
  /// Where hooks are needed, in order of computation; none when no row has an edit of strength other than 0 nor a
  /// watch.
  const std::vector<HookPoint>& points() const;
  const std::vector<std::string>& warnings() const;
  /// Dot products of encoder rows, probes and directions that one token of a row costs at a point.
  std::int64_t dots(std::int64_t row, const HookPoint& point) const;

  /// Registers the plan's hooks; they go when the result dies. The plan may be moved, and must outlive its last use
  /// in a step (a dead plan edits nothing).
  [[nodiscard]] std::vector<HookHandle> attach(Session& session);

  /// Steers a sequence as `row` from its next token on. Tokens already in its cache, a shared prefix for instance,
  /// were not seen: tag scopes are told of them through `history`.
  /// @throws Error(argument) for a row outside the plan.
  void bind(SequenceId sequence, std::int64_t row, std::span<const std::int64_t> history = {});
  /// Steers every sequence that is not bound as `row`, among them those that `Session::forward` opens; -1: none (the
  /// default). @throws Error(argument) for a row outside the plan.
  void bind_others(std::int64_t row);
  /// Forgets a sequence; unknown ones are ignored. The row's audit stays.
  void unbind(SequenceId sequence);
  /// A sequence that goes on as a fork of another one: same row, same memory of conditions and tags.
  void fork(SequenceId source, SequenceId copy);

  /// Whether the sequence's conditions want `observe`.
  bool needs_logits(SequenceId sequence) const;
  /// Tells the distribution the sequence's next token will be drawn from: logits [vocab] after temperature 1, no
  /// filter. Does nothing unless `needs_logits`.
  void observe(SequenceId sequence, const at::Tensor& logits);
  /// The reason of the first `abort_when` that became true, if one did.
  std::optional<std::string> abort_reason(SequenceId sequence) const;

  /// What has been done for a row so far, over all sequences bound to it.
  SteeringAudit audit(std::int64_t row) const;
  void reset_audit();

  /// One hook point's pass over one step: what `attach` registers. Public for tests and for engines of one's own.
  void apply(HookContext& at);

  struct Impl;

 private:
  explicit SteeringPlan(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace steer
