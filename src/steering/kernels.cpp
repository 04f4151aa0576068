#include "steering/kernels.hpp"

#include "core/isa.hpp"

namespace steer::steering::detail {

STEER_TABLE_IN_USE(Kernels, kernels)

}  // namespace steer::steering::detail
