// One hook point's pass on a card: the instructions as plain lists, sent once a steering, and a step's tokens, sent
// each time; then one launch for all of them. Scopes and conditions are decided here, counting waits on the card until
// someone asks.

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "model/cuda/runtime.hpp"
#include "steering/cuda/card_work.hpp"

namespace steer::steering::detail {

namespace {

static_assert(kOutOfScope == -1 && kHolds == 1 && kHeld == 2, "edit.cu says so too");

card::Normalization normalization(SaeNormalization kind) {
  switch (kind) {
    case SaeNormalization::constant_norm_rescale:
      return card::Normalization::constant_norm_rescale;
    case SaeNormalization::layer_norm:
      return card::Normalization::layer_norm;
    default:
      return card::Normalization::none;
  }
}

card::Condition condition(const Node& node, int number, std::vector<int>& parts) {
  using Kind = card::Condition::Kind;
  card::Condition out{.kind = node.source == ConditionSource::all_of   ? Kind::all_of
                              : node.source == ConditionSource::any_of ? Kind::any_of
                                                                       : Kind::reads,
                      .normalization = normalization(node.normalization),
                      .number = number,
                      .first_part = static_cast<int>(parts.size()),
                      .parts = static_cast<int>(node.parts.size()),
                      .read = node.read,
                      .band = node.band};
  parts.insert(parts.end(), node.parts.begin(), node.parts.end());
  return out;
}

std::shared_ptr<CardProgram> send(const CardJob& job) {
  const PointProgram& point = *job.point;
  std::vector<card::Step> steps;
  std::vector<Register> registers;
  std::vector<card::Member> members;
  std::vector<card::Condition> conditions;
  std::vector<int> parts;
  auto sent = std::make_shared<CardProgram>();
  card::Program& p = sent->program;
  for (const Instruction& i : point.instructions) {
    steps.push_back({.first_register = static_cast<int>(registers.size()),
                     .registers = static_cast<int>(i.registers.size()),
                     .first_member = static_cast<int>(members.size()),
                     .members = static_cast<int>(i.members.size()),
                     .normalization = normalization(i.normalization),
                     .constant = i.constant});
    registers.insert(registers.end(), i.registers.begin(), i.registers.end());
    for (std::size_t k = 0; k < i.members.size(); ++k)
      members.push_back(
          {i.members[k].line, i.members[k].selection.node, i.constant ? i.sizes[k] : 0, i.members[k].change});
    p.most_registers = std::max(p.most_registers, steps.back().registers);
  }
  for (const int number : point.nodes)
    if (const Node& node = job.whole->nodes[static_cast<std::size_t>(number)]; !node.entropy_only)
      conditions.push_back(condition(node, number, parts));
  const std::size_t at_steps = sent->lists.add(std::span<const card::Step>(steps)),
                    at_registers = sent->lists.add(std::span<const Register>(registers)),
                    at_members = sent->lists.add(std::span<const card::Member>(members)),
                    at_conditions = sent->lists.add(std::span<const card::Condition>(conditions)),
                    at_parts = sent->lists.add(std::span<const int>(parts));
  sent->lists.send(job.table->device());
  p.table = job.table->const_data_ptr<float>();
  p.steps = sent->lists.at<card::Step>(at_steps);
  p.registers = sent->lists.at<Register>(at_registers);
  p.members = sent->lists.at<card::Member>(at_members);
  p.conditions = sent->lists.at<card::Condition>(at_conditions);
  p.parts = sent->lists.at<int>(at_parts);
  p.width = point.table.width;
  p.step_count = static_cast<int>(steps.size());
  p.member_count = static_cast<int>(members.size());
  p.condition_count = static_cast<int>(conditions.size());
  p.lines = static_cast<int>(point.slots.size());
  return sent;
}

}  // namespace

void CardWork::add(const CardJob& job, const BatchView& batch) {
  auto& kept = *job.program;
  if (!kept || kept->program.table != job.table->const_data_ptr<float>()) kept = send(job);
  const card::Program& program = kept->program;
  for (const Item& item : job.items) {
    const auto own = undecided.find(item.memory);
    const bool decided = own == undecided.end();
    if (program.lines > 0) counted.push_back({item.memory, job.point, item.run->end - item.run->begin, changes});
    const auto acts = decided ? selects : in_scope;
    for (std::int64_t t = item.run->begin; t < item.run->end; ++t) {
      work.push_back({.program = program,
                      .row = t,
                      .selected = std::ssize(selected),
                      .changes = changes,
                      .registers = registers,
                      .states = decided ? 0 : own->second.first});
      for (const Instruction& i : job.point->instructions)
        for (const Member& m : i.members)
          selected.push_back(acts(m.selection, *item.memory, *item.run, item.run->position + t - item.run->begin,
                                  batch.ids[static_cast<std::size_t>(t)]));
      changes += program.lines;
      registers += 2 * program.most_registers;
    }
  }
}

void CardWork::count(const at::Tensor& made) const {
  for (const Counted& c : counted) {
    const std::int64_t lines = std::ssize(c.point->slots);
    c.memory->count_later(*c.point, made.narrow(0, c.first, c.tokens * lines).view({c.tokens, lines}));
  }
}

void run_card(HookContext& at, std::span<const CardJob> jobs) {
  const at::Device device = at.value.device();
  CardWork all;
  for (const CardJob& job : jobs) all.add(job, at.batch);
  Tables tables;
  const std::size_t at_work = tables.add(std::span<const card::Work>(all.work)),
                    at_selected = tables.add(std::span<const std::uint8_t>(all.selected));
  tables.send(device);
  const auto floats = at::TensorOptions().device(device).dtype(at::kFloat);
  at::Tensor changes = at::empty({all.changes}, floats), registers = at::empty({all.registers}, floats);
  card::edit(model::detail::cuda::current_stream(), {.work = tables.at<card::Work>(at_work),
                                                     .tokens = std::ssize(all.work),
                                                     .h = at.value.data_ptr<float>(),
                                                     .stride = at.value.stride(0),
                                                     .selected = tables.at<std::uint8_t>(at_selected),
                                                     .changes = changes.data_ptr<float>(),
                                                     .registers = registers.data_ptr<float>()});
  all.count(changes);
}

}  // namespace steer::steering::detail
