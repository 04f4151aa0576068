// Linux: sched_getaffinity(2), proc_pid_mountinfo(5) and cgroups(7). Elsewhere only the number of cores is known.

#include "core/available_cores.hpp"

#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace steer::core::detail {
namespace fs = std::filesystem;
namespace {

int scheduler_cores() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  return static_cast<int>(std::thread::hardware_concurrency());
}

/// Whether `name` is one of the words between commas.
bool lists(std::string_view words, std::string_view name) {
  for (std::size_t at = 0; at <= words.size();) {
    const std::size_t end = std::min(words.find(',', at), words.size());
    if (words.substr(at, end - at) == name) return true;
    at = end + 1;
  }
  return false;
}

/// Where a hierarchy of groups is mounted, and which group that place is.
struct Mount {
  bool version2;
  fs::path group, place;
};

std::vector<Mount> cgroup_mounts(const fs::path& root) {
  std::vector<Mount> mounts;
  std::ifstream file(root / "proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    // id parent device root place options [tags ...] - type source options
    std::istringstream words(line);
    std::string skip, group, place, type, options;
    words >> skip >> skip >> skip >> group >> place;
    while (words >> skip && skip != "-") continue;
    words >> type >> skip >> options;
    if (type == "cgroup2" || (type == "cgroup" && lists(options, "cpu")))
      mounts.push_back({type == "cgroup2", group, root / fs::path(place).relative_path()});
  }
  return mounts;
}

/// The group that the process is in; empty where the hierarchy does not name one.
fs::path group_of_process(const fs::path& root, bool version2) {
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // number:controllers:group
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string_view controllers = std::string_view(line).substr(first + 1, second - first - 1);
    if (version2 ? controllers.empty() : lists(controllers, "cpu")) return line.substr(second + 1);
  }
  return {};
}

std::optional<double> quota_of(const fs::path& folder, bool version2) {
  double quota = 0, period = 0;
  if (version2) {
    std::ifstream(folder / "cpu.max") >> quota >> period;  // "max" is no number
  } else {
    std::ifstream(folder / "cpu.cfs_quota_us") >> quota;  // -1: none
    std::ifstream(folder / "cpu.cfs_period_us") >> period;
  }
  if (quota > 0 && period > 0) return quota / period;
  return std::nullopt;
}

}  // namespace

std::optional<double> cpu_quota(const fs::path& root) {
  std::optional<double> least;
  for (const Mount& mount : cgroup_mounts(root)) {
    const fs::path group = group_of_process(root, mount.version2);
    if (group.empty()) continue;
    // Relative to the mounted group; a group outside it (another namespace's name) has no folder here, but the mounted
    // one still counts.
    fs::path inside = group.lexically_relative(mount.group);
    if (inside.empty() || *inside.begin() == "..") inside = ".";
    for (;; inside = inside.parent_path()) {
      const auto quota = quota_of(mount.place / inside, mount.version2);
      if (quota && (!least || *quota < *least)) least = quota;
      if (inside.empty() || inside == ".") break;
    }
  }
  return least;
}

int available_cores() {
  int cores = std::max(scheduler_cores(), 1);
  if (const auto quota = cpu_quota()) cores = std::min(cores, std::max(1, static_cast<int>(std::ceil(*quota))));
  return cores;
}

}  // namespace steer::core::detail
