#include "steering/runtime.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/norm.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>

#include <steer/core/error.hpp>

#include "sae/each_token.hpp"
#include "steering/kernels.hpp"

namespace steer::steering::detail {

namespace {

/// What a scope says of a token, and its exceptions after it. `tag` walks over the selection's tags.
bool covers(const Scope& scope, const int*& tag, const SteeringMemory& memory, const TokenRun& run,
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
      inside = memory.inside(*tag, position) == (scope.where == Where::inside_tag);
      break;
  }
  if (!scope.tag.empty()) ++tag;
  if (!scope.tokens.empty())
    inside = inside && std::find(scope.tokens.begin(), scope.tokens.end(), id) != scope.tokens.end();
  for (const Scope& except : scope.except) {
    const bool excepted = covers(except, tag, memory, run, position, id);
    inside = inside && !excepted;
  }
  return inside;
}

}  // namespace

bool in_scope(const Selection& s, const SteeringMemory& memory, const TokenRun& run, std::int64_t position,
              std::int64_t id) {
  if (position == 0 && !s.scope.include_bos) return false;
  const int* tag = s.tags.data();
  return covers(s.scope, tag, memory, run, position, id);
}

bool selects(const Selection& s, const SteeringMemory& memory, const TokenRun& run, std::int64_t position,
             std::int64_t id) {
  return in_scope(s, memory, run, position, id) && (s.node < 0 || memory.holds(s.node, position));
}

CompiledSteering::CompiledSteering(const ModelConfig& config, const std::optional<Tokenizer>& tokenizer,
                                   const Steering& steering, const CompileOptions& options)
    : program_(compile_program(config, tokenizer.has_value(), steering)),
      batch_invariant_(options.batch_invariant),
      settled_(false),
      device_tables_(program_.places.size()),
      card_programs_(program_.places.size()) {
  if (!program_.tags.empty()) tokenizer_ = tokenizer;
  settled_ = std::ranges::none_of(program_.points,
                                  [](const PointProgram& point) {
                                    return !point.watches.empty() ||
                                           std::ranges::any_of(point.instructions, &Instruction::bulk);
                                  }) &&
             std::ranges::none_of(program_.nodes, [](const Node& n) { return n.read.reading == Reading::encode; });
}

bool CompiledSteering::edits(const HookPoint& place) const {
  const PointProgram* point = program_.at(place);
  return point && !point->instructions.empty();
}

CardRunner card_runner_for_testing = nullptr;
decltype(&card_pass_edits) pass_edits_for_testing = nullptr;

std::unique_ptr<model::detail::PassEdits> CompiledSteering::pass_edits(at::Device device) const {
  if (pass_edits_for_testing) return pass_edits_for_testing(device);
#ifdef STEER_CUDA
  if (device.is_cuda()) return card_pass_edits(device);
#endif
  return nullptr;
}

namespace {

bool is_plain_f32(const at::Tensor& value) {
  const bool records = at::GradMode::is_enabled() && value.requires_grad();
  return !records && value.scalar_type() == at::kFloat && value.stride(-1) == 1;
}

bool runs_by_token(const HookContext& at) { return at.value.is_cpu() && is_plain_f32(at.value); }

/// Null where no card's kernels are for these activations.
CardRunner card_runner(const HookContext& at) {
  CardRunner runner = card_runner_for_testing;
#ifdef STEER_CUDA
  if (!runner && at.value.is_cuda()) runner = run_card;
#endif
  return runner && is_plain_f32(at.value) ? runner : nullptr;
}

}  // namespace

bool CompiledSteering::take_up(std::span<const IntervenedRun> runs) {
  items_.clear();
  for (const IntervenedRun& own : runs)
    if (own.run->begin < own.run->end) items_.push_back({static_cast<SteeringMemory*>(own.memory), own.run});
  for (const Item& item : items_) item.memory->recall();
  return !items_.empty();
}

const PointProgram* CompiledSteering::begin(HookContext& at, std::span<const IntervenedRun> runs) {
  const PointProgram* const point = program_.at(at.point);
  if (!point) return nullptr;
  const std::int64_t width = point->table.width;
  if (at.value.dim() != 2 || at.value.size(0) != at.batch.size() || at.value.size(1) != width)
    fail(ErrorCode::shape, "Steering", "expected [{}, {}] at {} but got [{}]", at.batch.size(), width, at.point.name(),
         fmt::join(at.value.sizes(), ", "));
  if (!take_up(runs)) return nullptr;
  if (!point->nodes.empty()) resolve(at, *point, runs_by_token(at));
  return point->instructions.empty() ? nullptr : point;
}

void CompiledSteering::run(HookContext& at, std::span<const IntervenedRun> runs) {
  if (at.point.site == Site::attn_pattern) {
    const PointProgram* const point = program_.at(at.point);
    if (!point) return;
    items_.assign(1, {static_cast<SteeringMemory*>(runs.front().memory), runs.front().run});
    return run_pattern(at, *point);
  }
  if (card_runner(at)) {
    const IntervenedGroup own{this, runs};
    return run_all(at, {&own, 1});
  }
  if (const PointProgram* point = begin(at, runs)) runs_by_token(at) ? run_cpu(at, *point) : run_aten(at, *point);
}

void CompiledSteering::run_all(HookContext& at, std::span<const IntervenedGroup> groups) {
  const CardRunner runner = card_runner(at);
  if (!runner) return CompiledIntervention::run_all(at, groups);
  std::vector<CardJob> jobs;
  for (const IntervenedGroup& group : groups) {
    auto* const own = dynamic_cast<CompiledSteering*>(group.program);
    if (!own) {
      group.program->run(at, group.runs);
      continue;
    }
    const PointProgram* const point = own->begin(at, group.runs);
    if (!point) continue;
    if (std::ranges::any_of(point->instructions, &Instruction::bulk))
      own->run_aten(at, *point);
    else
      jobs.push_back(own->job(*point, at.value.device()));
  }
  if (!jobs.empty()) runner(at, jobs);
}

void CompiledSteering::run_pattern(HookContext& at, const PointProgram& point) {
  const TokenRun& run = *items_.front().run;
  SteeringMemory& memory = *items_.front().memory;
  const std::int64_t queries = at.value.size(1), lines = static_cast<std::int64_t>(point.slots.size());
  const at::Tensor arrived = at::norm(at.value.detach().to(at::kFloat), 2, at::IntArrayRef({0, 2}));
  at::Tensor changes = at::full({queries, lines}, kOutOfScope, arrived.options());
  at::Tensor h = at.value.to(at::kFloat);
  for (const Instruction& i : point.instructions) {
    const Member& m = i.members.front();
    at::Tensor mask = at::empty({queries}, at::kBool);
    for (std::int64_t q = 0; q < queries; ++q)
      mask.data_ptr<bool>()[q] =
          selects(m.selection, memory, run, run.position + q, at.batch.ids[static_cast<std::size_t>(q)]);
    if (!mask.any().item<bool>()) continue;
    mask = mask.to(h.device());
    const at::Tensor f = (*i.function)({.point = at.point,
                                        .h = h.clone(),
                                        .position = at::arange(run.position, run.position + queries),
                                        .sequence = run.sequence});
    require(f.defined() && f.sizes() == h.sizes(), ErrorCode::shape, "Steering::custom",
            "expected a custom edit of an attention pattern to return [{}] but got {} dimensions",
            fmt::join(h.sizes(), ", "), f.defined() ? f.dim() : 0);
    const at::Tensor changed = h + m.change.strength * (f.to(h.options()) - h);
    const at::Tensor next = at::where(mask.view({1, queries, 1}), changed, h);
    const at::Tensor moved = at::norm(next.detach() - h.detach(), 2, at::IntArrayRef({0, 2}));
    changes.select(1, m.line).copy_(at::where(mask, moved / arrived, static_cast<double>(kOutOfScope)));
    h = next;
  }
  at.value = h.to(at.value.scalar_type());
  memory.count_later(point, changes);
}

void CompiledSteering::resolve(HookContext& at, const PointProgram& point, bool fast) {
  const at::NoGradGuard no_grad;
  std::vector<float> values;
  for (const Item& item : items_) {
    const TokenRun& run = *item.run;
    const std::int64_t count = run.end - run.begin;
    for (int index : point.nodes) {
      const Node& node = program_.nodes[static_cast<std::size_t>(index)];
      values.assign(static_cast<std::size_t>(count), 0);
      if (node.read.reading != Reading::nothing) read(at, point, node, run, fast, values);
      for (std::int64_t t = 0; t < count; ++t) {
        const std::int64_t position = run.position + t;
        const bool entropy = node.source == ConditionSource::entropy;
        item.memory->decide(
            index, position,
            entropy ? item.memory->entropy_at(position) : static_cast<double>(values[static_cast<std::size_t>(t)]));
      }
    }
    for (const CompiledWatch& watch : point.watches)
      for (std::int64_t p = run.position; p < run.position + count; ++p)
        if (item.memory->holds(watch.node, p) && !item.memory->holds(watch.node, p - 1))
          item.memory->notify(run.sequence, watch, p);
  }
}

void CompiledSteering::read(HookContext& at, const PointProgram& point, const Node& node, const TokenRun& run,
                            bool fast, std::vector<float>& values) {
  if (fast && node.read.reading != Reading::encode && node.normalization == SaeNormalization::none) {
    const float* row = point.table.row(node.read.read);
    for (std::int64_t t = run.begin; t < run.end; ++t) {
      float dot = 0;
      kernels().dots(at.value.const_data_ptr<float>() + t * at.value.stride(0), &row, 1, point.table.width, &dot);
      values[static_cast<std::size_t>(t - run.begin)] = value_of(node.read, dot, 0.f, 1.f);
    }
    return;
  }
  const at::Tensor h = at.value.slice(0, run.begin, run.end).to(at::kFloat);
  const at::Tensor read = node.read.reading == Reading::dot
                              ? at::mv(h, table_on(point, h.device())[node.read.read]) + node.read.offset
                              : encode(*node.sae, h, std::span(&node.read.feature, 1)).reshape(-1);
  const at::Tensor host = read.to(at::kCPU).contiguous();
  std::copy_n(host.const_data_ptr<float>(), values.size(), values.begin());
}

at::Tensor CompiledSteering::encode(const Sae& sae, const at::Tensor& h, std::span<const std::int64_t> features) const {
  const sae::detail::EachTokenAlone alone(batch_invariant_);
  return sae.encode_subset(h.to(sae.device()), features).to(h.device());
}

const at::Tensor& CompiledSteering::table_on(const PointProgram& point, at::Device device) {
  if (device.is_cpu()) return point.table.rows;
  at::Tensor& copy = device_tables_[index_of(point)];
  if (!copy.defined() || copy.device() != device) copy = point.table.rows.to(device);
  return copy;
}

}  // namespace steer::steering::detail
