#include "model/cpu_loops.hpp"

#include "core/isa.hpp"

namespace steer::model::detail::cpu {

STEER_TABLE_IN_USE(Loops, loops)

}  // namespace steer::model::detail::cpu
