#pragma once
// Makes instructions of the edits at one point: constants that the same tokens get become one sum, a run of edits on
// one SAE becomes one instruction, every other edit its own.

#include <span>
#include <vector>

#include "steering/edits/operation.hpp"
#include "steering/program.hpp"
#include "steering/table.hpp"

namespace steer::steering::detail {

/// @param lowered, members  of each edit, in order.
std::vector<Instruction> join(std::span<const Lowered> lowered, std::vector<Member> members, TableBuilder& table);

}  // namespace steer::steering::detail
