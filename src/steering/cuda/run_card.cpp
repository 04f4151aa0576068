// One hook point's pass on a card: the instructions as plain lists, sent once a steering, and a step's tokens, sent
// each time; then one launch for all of them. Scopes and conditions are decided here, counting waits on the card until
// someone asks.

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "model/cuda/runtime.hpp"
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

namespace {

static_assert(kOutOfScope == -1, "edit.cu says so too");

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

std::shared_ptr<CardProgram> send(const PointProgram& point, const at::Tensor& table) {
  std::vector<card::Step> steps;
  std::vector<Register> registers;
  std::vector<card::Member> members;
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
      members.push_back({i.members[k].line, i.constant ? i.sizes[k] : 0, i.members[k].change});
    p.most_registers = std::max(p.most_registers, steps.back().registers);
  }
  const std::size_t at_steps = sent->lists.add(std::span<const card::Step>(steps)),
                    at_registers = sent->lists.add(std::span<const Register>(registers)),
                    at_members = sent->lists.add(std::span<const card::Member>(members));
  sent->lists.send(table.device());
  p.table = table.const_data_ptr<float>();
  p.steps = sent->lists.at<card::Step>(at_steps);
  p.registers = sent->lists.at<Register>(at_registers);
  p.members = sent->lists.at<card::Member>(at_members);
  p.width = point.table.width;
  p.step_count = static_cast<int>(steps.size());
  p.member_count = static_cast<int>(members.size());
  p.lines = static_cast<int>(point.slots.size());
  return sent;
}

}  // namespace

void run_card(HookContext& at, std::span<const CardJob> jobs) {
  const at::Device device = at.value.device();
  std::int64_t changes_wanted = 0, registers_wanted = 0;
  std::vector<card::Work> work;
  std::vector<std::uint8_t> selected;
  for (const CardJob& job : jobs) {
    auto& kept = *job.program;
    if (!kept || kept->program.table != job.table->const_data_ptr<float>()) kept = send(*job.point, *job.table);
    const card::Program& program = kept->program;
    for (const Item& item : job.items)
      for (std::int64_t t = item.run->begin; t < item.run->end; ++t) {
        work.push_back({.program = program,
                        .h = at.value.data_ptr<float>() + t * at.value.stride(0),
                        .selected = std::ssize(selected),
                        .changes = changes_wanted,
                        .registers = registers_wanted});
        for (const Instruction& i : job.point->instructions)
          for (const Member& m : i.members)
            selected.push_back(selects(m.selection, *item.memory, *item.run, item.run->position + t - item.run->begin,
                                       at.batch.ids[static_cast<std::size_t>(t)]));
        changes_wanted += program.lines;
        registers_wanted += 2 * program.most_registers;
      }
  }
  Tables tables;
  const std::size_t at_work = tables.add(std::span<const card::Work>(work)),
                    at_selected = tables.add(std::span<const std::uint8_t>(selected));
  tables.send(device);
  const auto floats = at::TensorOptions().device(device).dtype(at::kFloat);
  at::Tensor changes = at::empty({changes_wanted}, floats), registers = at::empty({registers_wanted}, floats);
  card::edit(model::detail::cuda::current_stream(), {.work = tables.at<card::Work>(at_work),
                                                     .tokens = std::ssize(work),
                                                     .selected = tables.at<std::uint8_t>(at_selected),
                                                     .changes = changes.data_ptr<float>(),
                                                     .registers = registers.data_ptr<float>()});
  std::int64_t begin = 0;
  for (const CardJob& job : jobs)
    for (const Item& item : job.items) {
      const std::int64_t count = item.run->end - item.run->begin, lines = std::ssize(job.point->slots);
      item.memory->count_later(*job.point, changes.narrow(0, begin, count * lines).view({count, lines}));
      begin += count * lines;
    }
}

}  // namespace steer::steering::detail
