#pragma once
// How many cores this process may use: what the scheduler lets it run on, and what its container's quota pays for.

#include <filesystem>
#include <optional>

namespace steer::core::detail {

/// The least of: cores in the machine, cores in the process's affinity mask, and the quota below, rounded up. At
/// least 1.
int available_cores();

/// Processors' worth of time that Linux control groups give the process: the least quota over period of its group and
/// of all groups around it (cpu.max of version 2, cpu.cfs_quota_us of version 1). Nothing where there is no limit, or
/// where the files cannot be read.
/// @param root  prefix of /proc and of the mount points, for tests.
std::optional<double> cpu_quota(const std::filesystem::path& root = "/");

}  // namespace steer::core::detail
