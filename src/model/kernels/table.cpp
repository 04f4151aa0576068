#include "model/kernels/table.hpp"

#include "core/isa.hpp"

namespace steer::model::detail {

STEER_TABLE_IN_USE_WITH_AMX(KernelTable, kernels, kernels_with_tiles_avx512)

}  // namespace steer::model::detail
