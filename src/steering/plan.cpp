#include <steer/steering/plan.hpp>

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include <steer/core/error.hpp>

#include "steering/kernels.hpp"
#include "steering/plan_state.hpp"

namespace steer {

using steering::detail::Item;
using steering::detail::Node;
using steering::detail::PointProgram;
using steering::detail::Program;
using steering::detail::Reading;
using steering::detail::SteeredSequence;

namespace steering::detail {

void TagTracker::push(std::string_view text) {
  tail_ += text;
  for (;;) {
    const std::string& wanted = inside_ ? close_ : open_;
    const auto at = tail_.find(wanted);
    if (at == std::string::npos) break;
    inside_ = !inside_;
    tail_.erase(0, at + wanted.size());
  }
  const std::size_t keep = close_.size() - 1;
  if (tail_.size() > keep) tail_.erase(0, tail_.size() - keep);
}

void SteeredSequence::see(std::int64_t position, std::span<const std::int64_t> ids) {
  const auto end = position + static_cast<std::int64_t>(ids.size());
  if (!tags.empty()) {
    auto known = static_cast<std::int64_t>(inside.front().size());
    for (std::int64_t p = known; p < end; ++p) {
      if (p >= position) {
        // One token at a time: a tag is ASCII, so bytes of a character that is cut in two do not matter.
        const std::string text = tokenizer->decode(ids.subspan(p - position, 1));
        for (TagTracker& tag : tags) tag.push(text);
      }
      for (std::size_t t = 0; t < tags.size(); ++t) inside[t].push_back(tags[t].inside());
    }
  }
  next = std::max(next, end);
}

void SteeredSequence::decide(int node, std::int64_t position, double value) {
  const Node& n = program->nodes[node];
  const bool before = holds(node, position - 1);
  bool now = false;
  if (n.source == ConditionSource::all_of || n.source == ConditionSource::any_of) {
    const auto part = [&](int p) { return holds(p, position); };
    now = n.source == ConditionSource::all_of ? std::all_of(n.parts.begin(), n.parts.end(), part)
                                              : std::any_of(n.parts.begin(), n.parts.end(), part);
  } else {
    now = value > n.above && value <= n.at_most;
    if (before) now |= value > n.above - n.release && value <= n.at_most + n.release;
  }
  if (n.sticky) now |= before;
  auto& history = on[node];
  if (static_cast<std::int64_t>(history.size()) <= position) history.resize(position + 1, 0);
  history[position] = now;
}

namespace {

/// What a scope says of a token, and its exceptions after it. `tag` walks over the selection's tags.
bool covers(const Scope& scope, const int*& tag, const SteeredSequence& state, const TokenRun& run,
            std::int64_t position, std::int64_t id) {
  const bool generated = run.phase == Phase::generated;
  bool inside = true;
  switch (scope.where) {
    case Where::all:
      break;
    case Where::prompt:
      inside = !generated;
      break;
    case Where::generated:
      inside = generated;
      break;
    case Where::onset:
      inside = generated && position - run.prompt_length < scope.count;
      break;
    case Where::last:
      inside = !generated && position == run.prompt_length - 1;
      break;
    case Where::from_last:
      inside = generated || position == run.prompt_length - 1;
      break;
    case Where::span: {
      const std::int64_t from = scope.begin < 0 ? run.prompt_length : 0;
      inside = position >= from + scope.begin && position < from + scope.end;
      break;
    }
    case Where::inside_tag:
    case Where::outside_tag:
      inside = (state.inside[static_cast<std::size_t>(*tag)][static_cast<std::size_t>(position)] != 0) ==
               (scope.where == Where::inside_tag);
      break;
  }
  if (!scope.tag.empty()) ++tag;
  if (!scope.tokens.empty())
    inside = inside && std::find(scope.tokens.begin(), scope.tokens.end(), id) != scope.tokens.end();
  for (const Scope& except : scope.except) {
    const bool excepted = covers(except, tag, state, run, position, id);
    inside = inside && !excepted;
  }
  return inside;
}

}  // namespace

bool selects(const Selection& s, const SteeredSequence& state, const TokenRun& run, std::int64_t position,
             std::int64_t id) {
  if (position == 0 && !s.scope.include_bos) return false;
  const int* tag = s.tags.data();
  return covers(s.scope, tag, state, run, position, id) && (s.node < 0 || state.holds(s.node, position));
}

}  // namespace steering::detail

SteeringPlan SteeringPlan::compile(const ModelConfig& config, const std::optional<Tokenizer>& tokenizer,
                                   std::span<const Steering> rows, const PlanOptions& options) {
  auto impl = std::make_shared<Impl>();
  impl->plan = steering::detail::compile_plan(config, tokenizer.has_value(), rows, options);
  impl->tokenizer = tokenizer;
  impl->device_tables.resize(impl->plan.points.size());
  for (int program : impl->plan.program_of_row) impl->counters.emplace_back(impl->plan.programs[program]->audit.size());
  return SteeringPlan(std::move(impl));
}

SteeringPlan SteeringPlan::compile(const Model& model, std::span<const Steering> rows, const PlanOptions& options) {
  std::optional<Tokenizer> tokenizer;
  if (model.has_tokenizer()) tokenizer = model.tokenizer();
  return compile(model.config(), tokenizer, rows, options);
}

SteeringPlan SteeringPlan::compile(const Model& model, const Steering& row, const PlanOptions& options) {
  return compile(model, std::span(&row, 1), options);
}

SteeringPlan::SteeringPlan(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
SteeringPlan::SteeringPlan(SteeringPlan&&) noexcept = default;
SteeringPlan& SteeringPlan::operator=(SteeringPlan&&) noexcept = default;
SteeringPlan::~SteeringPlan() = default;

std::int64_t SteeringPlan::rows() const { return static_cast<std::int64_t>(impl_->plan.program_of_row.size()); }
std::int64_t SteeringPlan::distinct() const { return static_cast<std::int64_t>(impl_->plan.programs.size()); }
const std::vector<HookPoint>& SteeringPlan::points() const { return impl_->plan.points; }
const std::vector<std::string>& SteeringPlan::warnings() const { return impl_->plan.warnings; }

namespace {
void require_row(std::int64_t row, std::int64_t rows, std::string_view where) {
  require(row >= 0 && row < rows, ErrorCode::argument, where, "expected a row in [0, {}) but got {}", rows, row);
}
}  // namespace

std::int64_t SteeringPlan::dots(std::int64_t row, const HookPoint& point) const {
  require_row(row, rows(), "SteeringPlan::dots");
  const auto& plan = impl_->plan;
  const auto it = std::find(plan.points.begin(), plan.points.end(), point);
  if (it == plan.points.end()) return 0;
  const auto& at = plan.programs[plan.program_of_row[row]]->points[it - plan.points.begin()];
  return at ? at->dots : 0;
}

std::vector<HookHandle> SteeringPlan::attach(Session& session) {
  std::vector<HookHandle> handles;
  for (std::size_t i = 0; i < impl_->plan.points.size(); ++i) {
    const bool edits = std::any_of(impl_->plan.programs.begin(), impl_->plan.programs.end(), [&](const auto& program) {
      return program->points[i] && !program->points[i]->instructions.empty();
    });
    const auto call = [plan = std::weak_ptr<Impl>(impl_)](HookContext& at) {
      if (const auto alive = plan.lock()) alive->apply(at);
    };
    handles.push_back(session.hook(impl_->plan.points[i], call, {.read_only = !edits}));
  }
  return handles;
}

void SteeringPlan::bind(SequenceId sequence, std::int64_t row, std::span<const std::int64_t> history) {
  require_row(row, rows(), "SteeringPlan::bind");
  SteeredSequence state = impl_->fresh(row);
  state.see(0, history);
  impl_->sequences.insert_or_assign(sequence, std::move(state));
}

void SteeringPlan::bind_others(std::int64_t row) {
  if (row != -1) require_row(row, rows(), "SteeringPlan::bind_others");
  impl_->others = row;
}

void SteeringPlan::unbind(SequenceId sequence) { impl_->sequences.erase(sequence); }

void SteeringPlan::fork(SequenceId source, SequenceId copy) {
  const auto it = impl_->sequences.find(source);
  if (it == impl_->sequences.end()) return;
  SteeredSequence state = it->second;
  impl_->sequences.insert_or_assign(copy, std::move(state));
}

bool SteeringPlan::needs_logits(SequenceId sequence) const {
  const auto it = impl_->sequences.find(sequence);
  return it != impl_->sequences.end() && it->second.program->wants_entropy;
}

void SteeringPlan::observe(SequenceId sequence, const at::Tensor& logits) {
  if (!needs_logits(sequence)) return;
  const at::NoGradGuard no_grad;
  SteeredSequence& state = impl_->sequences.at(sequence);
  const at::Tensor log_p = at::log_softmax(logits.reshape(-1).to(at::kFloat), 0);
  // Tokens of probability 0 add nothing; 0 * -inf would.
  const double entropy = -at::where(at::isfinite(log_p), log_p.exp() * log_p, 0.0).sum().item<double>();
  // Where no hook fires, observations are the only clock.
  const auto position = impl_->plan.points.empty() ? static_cast<std::int64_t>(state.entropy.size()) : state.next;
  state.entropy.resize(position + 1, std::numeric_limits<double>::quiet_NaN());
  state.entropy[position] = entropy;
  for (int node : state.program->entropy_nodes) state.decide(node, position, entropy);
  for (std::size_t i = 0; i < state.program->entropy_watches.size(); ++i) {
    const bool now = state.holds(state.program->entropy_watches[i].node, position);
    if (now && !state.entropy_watch_on[i]) impl_->notify(state, sequence, state.program->entropy_watches[i], position);
    state.entropy_watch_on[i] = now;
  }
}

std::optional<std::string> SteeringPlan::abort_reason(SequenceId sequence) const {
  const auto it = impl_->sequences.find(sequence);
  return it == impl_->sequences.end() ? std::nullopt : it->second.aborted;
}

SteeringAudit SteeringPlan::audit(std::int64_t row) const {
  require_row(row, rows(), "SteeringPlan::audit");
  impl_->settle();
  SteeringAudit audit{impl_->plan.programs[impl_->plan.program_of_row[row]]->audit};
  for (std::size_t i = 0; i < audit.edits.size(); ++i) {
    const auto& c = impl_->counters[row][i];
    EditAudit& line = audit.edits[i];
    line.seen = c.seen;
    line.in_scope = c.in_scope;
    line.edited = c.edited;
    line.mean_change = c.edited ? c.sum / static_cast<double>(c.edited) : 0;
    line.max_change = c.max;
  }
  return audit;
}

void SteeringPlan::reset_audit() {
  impl_->pending.clear();
  for (auto& row : impl_->counters) std::fill(row.begin(), row.end(), steering::detail::EditCounters{});
}

void SteeringPlan::apply(HookContext& at) { impl_->apply(at); }

SteeredSequence SteeringPlan::Impl::fresh(std::int64_t row) const {
  SteeredSequence state;
  state.row = row;
  state.program = plan.programs[plan.program_of_row[row]].get();
  state.on.resize(state.program->nodes.size());
  state.entropy_watch_on.resize(state.program->entropy_watches.size());
  for (const std::string& tag : state.program->tags) state.tags.emplace_back(tag);
  state.inside.resize(state.tags.size());
  if (!state.tags.empty()) state.tokenizer = tokenizer;
  return state;
}

SteeredSequence* SteeringPlan::Impl::state_of(const TokenRun& run, int point) {
  auto it = sequences.find(run.sequence);
  if (it == sequences.end() && others < 0) return nullptr;
  // A session may use the number of a closed sequence again: an unbound one that starts over is a new one.
  const bool over = it != sequences.end() && it->second.unbound && run.position == 0 && point <= it->second.last_point;
  if (it == sequences.end() || over) {
    it = sequences.insert_or_assign(run.sequence, fresh(others)).first;
    it->second.unbound = true;
  }
  it->second.last_point = point;
  return &it->second;
}

void SteeringPlan::Impl::apply(HookContext& at) {
  const auto found = std::find(plan.points.begin(), plan.points.end(), at.point);
  if (found == plan.points.end() || (sequences.empty() && others < 0)) return;
  const int point = static_cast<int>(found - plan.points.begin());
  require(at.value.dim() == 2 && at.value.size(0) == at.batch.size() && at.value.size(1) == plan.tables[point].width,
          ErrorCode::shape, "SteeringPlan::apply", "expected [{}, {}] at {} but got {} dimensions and {} elements",
          at.batch.size(), plan.tables[point].width, at.point.name(), at.value.dim(), at.value.numel());
  items.clear();
  bool reads = false, edits = false;
  for (const TokenRun& run : at.batch.runs) {
    if (run.begin == run.end) continue;
    SteeredSequence* const found_state = state_of(run, point);
    if (!found_state) continue;
    SteeredSequence& state = *found_state;
    state.see(run.position, at.batch.ids.subspan(run.begin, run.end - run.begin));
    const auto& program = state.program->points[point];
    if (!program) continue;
    items.push_back({&state, &*program, &run});
    reads |= !program->nodes.empty();
    edits |= !program->instructions.empty();
  }
  const bool records = at::GradMode::is_enabled() && at.value.requires_grad();
  const bool fast = !records && at.value.is_cpu() && at.value.scalar_type() == at::kFloat && at.value.stride(1) == 1;
  if (reads) resolve(at, point, fast);
  if (edits) fast ? run_cpu(at, point) : run_aten(at, point);
}

void SteeringPlan::Impl::notify(SteeredSequence& state, SequenceId sequence,
                                const steering::detail::CompiledWatch& watch, std::int64_t position) {
  if (watch.abort && !state.aborted) state.aborted = watch.reason;
  if (watch.handler)
    (*watch.handler)({.row = state.row, .sequence = sequence, .position = position, .reason = watch.reason});
}

void SteeringPlan::Impl::resolve(HookContext& at, int point, bool fast) {
  const at::NoGradGuard no_grad;
  const steering::detail::ConstantTable& table = plan.tables[point];
  std::vector<float> values;
  for (const Item& item : items) {
    const TokenRun& run = *item.run;
    const std::int64_t count = run.end - run.begin;
    for (int index : item.point->nodes) {
      const Node& node = item.state->program->nodes[index];
      values.assign(count, 0);
      const bool reads = node.source == ConditionSource::feature || node.source == ConditionSource::probe;
      const bool by_dot = node.read.reading != Reading::encode && node.normalization == SaeNormalization::none;
      if (reads && fast && by_dot) {
        const float* row = table.row(node.read.read);
        for (std::int64_t t = 0; t < count; ++t) {
          float dot = 0;
          steering::detail::dots(at.value.const_data_ptr<float>() + (run.begin + t) * at.value.stride(0), &row, 1,
                                 table.width, &dot);
          values[t] = value_of(node.read, dot, 0.f, 1.f);
        }
      } else if (reads) {
        const at::Tensor h = at.value.slice(0, run.begin, run.end).to(at::kFloat);
        const at::Tensor read =
            node.source == ConditionSource::probe
                ? at::mv(h, table_on(point, h.device())[node.read.read]) + node.read.offset
                : node.sae->encode_subset(h.to(node.sae->device()), std::span(&node.read.feature, 1)).reshape(-1);
        const at::Tensor host = read.to(at::kCPU).contiguous();
        std::copy_n(host.const_data_ptr<float>(), count, values.begin());
      }
      for (std::int64_t t = 0; t < count; ++t) {
        const std::int64_t position = run.position + t;
        const bool entropy = node.source == ConditionSource::entropy;
        item.state->decide(index, position, entropy ? item.state->entropy_at(position) : values[t]);
      }
    }
    for (const steering::detail::CompiledWatch& watch : item.point->watches)
      for (std::int64_t p = run.position; p < run.position + count; ++p)
        if (item.state->holds(watch.node, p) && !item.state->holds(watch.node, p - 1))
          notify(*item.state, run.sequence, watch, p);
  }
}

void SteeringPlan::Impl::count(std::int64_t row, const PointProgram& point, std::int64_t tokens, const float* change) {
  const auto lines = point.slots.size();
  for (std::size_t line = 0; line < lines; ++line) {
    steering::detail::EditCounters& c = counters[row][point.slots[line]];
    c.seen += tokens;
    for (std::int64_t t = 0; t < tokens; ++t) {
      const float relative = change[t * lines + line];
      if (relative == steering::detail::kOutOfScope) continue;
      ++c.in_scope;
      if (relative == 0) continue;
      ++c.edited;
      c.sum += relative;
      c.max = std::max(c.max, static_cast<double>(relative));
    }
  }
}

const at::Tensor& SteeringPlan::Impl::table_on(int point, at::Device device) {
  if (device.is_cpu()) return plan.tables[point].rows;
  at::Tensor& copy = device_tables[point];
  if (!copy.defined() || copy.device() != device) copy = plan.tables[point].rows.to(device);
  return copy;
}

}  // namespace steer
