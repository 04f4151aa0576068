#include "model/kernels/table.hpp"

#include "core/isa.hpp"

namespace steer::model::detail {

STEER_TABLE_IN_USE(KernelTable, kernels)

}  // namespace steer::model::detail
