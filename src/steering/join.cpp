#include "steering/join.hpp"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <map>

namespace steer::steering::detail {
namespace {

bool same_sae(const Lowered& a, const Lowered& b) {
  return a.feature && b.feature && a.feature->sae.hash() == b.feature->sae.hash();
}

/// Whether it adds the same vector to every token, but for the unit.
bool adds_constant(const Lowered& e) {
  if (e.feature) return !e.feature->read && e.feature->sae.config().normalization == SaeNormalization::none;
  return e.channels.size() == 1 && e.channels[0].reading == Reading::nothing;
}

/// Sums the vectors that the same tokens get. Constants between two other edits commute, so their order is free.
void add_constant(std::vector<Instruction>& done, std::size_t from, const Lowered& e, Member m, TableBuilder& table) {
  at::Tensor vector = e.feature
                          ? table.row(table.place(e.feature->sae, e.feature->index, TableBuilder::TargetSide::decoder))
                          : e.channels[0].write;
  vector = vector.to(at::kDouble);
  if (m.change.by_norm) vector = vector / std::max(norm_of(vector), 1e-30);
  vector = vector * (static_cast<double>(m.change.strength) * static_cast<double>(m.change.constant));
  const auto size = static_cast<float>(norm_of(vector));
  for (std::size_t i = from; i < done.size(); ++i) {
    Instruction& other = done[i];
    const Member& first = other.members.front();
    if (first.selection != m.selection || first.change.by_norm != m.change.by_norm) continue;
    int& row = other.registers.front().write;
    row = table.add(table.row(row).to(at::kDouble) + vector);
    other.members.push_back(std::move(m));
    other.sizes.push_back(size);
    return;
  }
  Instruction fresh;
  fresh.constant = true;
  fresh.registers.emplace_back().write = table.add(vector);
  fresh.members.push_back(std::move(m));
  fresh.sizes.push_back(size);
  done.push_back(std::move(fresh));
}

Instruction feature_instruction(std::span<const Lowered> edits, std::span<Member> members, TableBuilder& table) {
  Instruction result;
  const Sae& sae = edits.front().feature->sae;
  result.sae = sae;
  result.normalization = sae.config().normalization;
  std::map<std::int64_t, bool> reads;
  for (const Lowered& e : edits) reads[e.feature->index] |= e.feature->read;
  std::map<std::int64_t, int> number;  // feature -> register
  for (std::size_t i = 0; i < edits.size(); ++i) {
    const std::int64_t feature = edits[i].feature->index;
    const auto [it, fresh] = number.emplace(feature, static_cast<int>(result.registers.size()));
    if (fresh) {
      Register r = reads[feature] ? feature_register(sae, feature, table) : Register{.feature = feature};
      r.write = table.place(sae, feature, TableBuilder::TargetSide::decoder);
      r.write_norm = static_cast<float>(norm_of(table.row(r.write)));
      result.full |= r.reading == Reading::encode;
      result.registers.push_back(r);
    }
    members[i].change.first = it->second;
    result.members.push_back(std::move(members[i]));
  }
  return result;
}

Instruction instruction(const Lowered& e, Member m, TableBuilder& table) {
  Instruction result;
  result.function = e.function;
  for (const Lowered::Channel& channel : e.channels) {
    Register& r = result.registers.emplace_back();
    r.reading = channel.reading;
    r.write_norm = 1;
    if (channel.read.defined()) r.read = table.add(channel.read);
    if (channel.write.defined()) {
      r.write = table.add(channel.write);
      r.write_norm = static_cast<float>(norm_of(channel.write));
    }
    r.offset = static_cast<float>(channel.offset);
  }
  result.sae = e.sae;
  result.members.push_back(std::move(m));
  return result;
}

}  // namespace

std::vector<Instruction> join(std::span<const Lowered> lowered, std::vector<Member> members, TableBuilder& table) {
  std::vector<Instruction> result;
  std::size_t constants_from = 0;  // instructions from here on may take more constants
  for (std::size_t i = 0; i < lowered.size();) {
    // A run of edits on one SAE reads all its features first and writes once.
    std::size_t end = i + 1;
    bool constant = adds_constant(lowered[i]);
    while (end < lowered.size() && same_sae(lowered[i], lowered[end])) constant &= adds_constant(lowered[end++]);
    if (constant) {
      for (; i < end; ++i) add_constant(result, constants_from, lowered[i], std::move(members[i]), table);
      continue;
    }
    if (lowered[i].feature)
      result.push_back(feature_instruction(lowered.subspan(i, end - i), std::span(members).subspan(i), table));
    else
      result.push_back(instruction(lowered[i], std::move(members[i]), table));
    constants_from = result.size();
    i = end;
  }
  return result;
}

}  // namespace steer::steering::detail
