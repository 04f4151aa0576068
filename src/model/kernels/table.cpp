#include "model/kernels/table.hpp"

#include "core/isa.hpp"

namespace steer::model::detail {

STEER_TABLES_IN_USE(KernelTable, kernels, kernels_with_vnni_avx2, kernels_with_tiles_avx512)

}  // namespace steer::model::detail
