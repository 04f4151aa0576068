#pragma once

#include <steer/core/workers.hpp>

#include <c10/util/intrusive_ptr.h>

namespace c10d {
class TCPStore;
}

namespace steer::core::detail {

/// The store of keys and values at which the processes of a run meet: c10d's TCPStore, kept by rank 0, or by torchrun
/// where that says so. @throws Error(io), on behalf of `where`, when rank 0 does not answer within `timeout_s`.
c10::intrusive_ptr<c10d::TCPStore> meet(const Workers& workers, const char* where);

}  // namespace steer::core::detail
