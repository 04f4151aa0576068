#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace steer {

/// The processes that were started together, as torchrun, Slurm or MPI launchers describe them in the environment.
struct Workers {
  std::int64_t rank = 0;
  std::int64_t count = 1;
  std::string address{};  ///< of the host of rank 0
  std::uint16_t port = 0;
  double timeout_s = 60;  ///< for joining, and for taking a silent process for dead

  /// From RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; one process alone when WORLD_SIZE is absent or 1.
  /// @throws Error(config) naming the variable that is missing or not a number.
  static Workers from_environment();
};

}  // namespace steer
