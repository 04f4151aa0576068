#pragma once

namespace steer {

/// Sets how many threads the library's own kernels and libtorch's operators use in this process.
/// @param count  at least 1; 0 asks for one for each core the process may use: by its affinity, and by the CPU quota of
///               its control group (a container's `--cpus`), rounded up.
/// @throws Error(argument) for a negative count. Not to be called while another thread computes.
void set_threads(int count);

/// How many threads the library's kernels use now, all sessions together. Where `set_threads` was never called: as many
/// as libtorch, but no more than the cores the process may use.
int threads() noexcept;

}  // namespace steer
