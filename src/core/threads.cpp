#include <steer/core/threads.hpp>

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>

#include <steer/core/error.hpp>

#include "core/available_cores.hpp"

namespace steer {
namespace {
std::atomic<bool> chosen{false};  // somebody has called set_threads
}  // namespace

void set_threads(int count) {
  require(count >= 0, ErrorCode::argument, "set_threads", "expected a thread count of 0 (all) or more but got {}",
          count);
  at::set_num_threads(count == 0 ? core::detail::available_cores() : count);
  chosen.store(true);
}

int threads() noexcept {
  const int count = at::get_num_threads();
  if (chosen.load(std::memory_order_relaxed)) return count;
  // libtorch's own choice knows nothing of a container's quota.
  static const int cores = core::detail::available_cores();
  return std::min(count, cores);
}

}  // namespace steer
