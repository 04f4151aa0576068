#include <steer/core/threads.hpp>

#include <ATen/Parallel.h>
#include <sched.h>

#include <thread>

#include <steer/core/error.hpp>

namespace steer {
namespace {
int available_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}
}  // namespace

void set_threads(int count) {
  require(count >= 0, ErrorCode::argument, "set_threads", "expected a thread count of 0 (all) or more but got {}",
          count);
  at::set_num_threads(count == 0 ? available_cores() : count);
}

int threads() noexcept { return at::get_num_threads(); }

}  // namespace steer
