#include "core/available_cores.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "support.hpp"

namespace {

using steer::core::detail::available_cores;
using steer::core::detail::cpu_quota;
namespace fs = std::filesystem;

/// A file system as cgroups(7) and proc_pid_mountinfo(5) describe it.
class CpuQuota : public testing::Test {
 protected:
  void write(const fs::path& path, const std::string& text) {
    fs::create_directories((root_.path() / path).parent_path());
    std::ofstream(root_.path() / path) << text;
  }
  void version2(const std::string& group, const std::string& mounted = "/") {
    write("proc/self/cgroup", "0::" + group + "\n");
    write("proc/self/mountinfo",
          "22 28 0:20 / /proc rw shared:5 - proc proc rw\n"
          "30 24 0:26 " +
              mounted + " /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n");
  }
  void version1(const std::string& group, const std::string& mounted) {
    write("proc/self/cgroup", "5:memory:/other\n4:cpu,cpuacct:" + group + "\n0::/\n");
    write("proc/self/mountinfo",
          "40 35 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
          "41 35 0:32 " +
              mounted + " /sys/fs/cgroup/cpu,cpuacct rw shared:7 master:2 - cgroup cgroup rw,cpu,cpuacct\n");
  }
  std::optional<double> quota() const { return cpu_quota(root_.path()); }
  steer::test::TempDir root_;
};

TEST_F(CpuQuota, IsNothingWithoutGroups) {
  EXPECT_EQ(quota(), std::nullopt);
  version2("/");
  EXPECT_EQ(quota(), std::nullopt);
  write("sys/fs/cgroup/cpu.max", "max 100000\n");
  EXPECT_EQ(quota(), std::nullopt);
}

TEST_F(CpuQuota, OfVersion2IsTheLeastOnTheWayUp) {
  version2("/user.slice/job/worker");
  write("sys/fs/cgroup/user.slice/cpu.max", "250000 100000\n");
  EXPECT_EQ(quota(), 2.5);
  write("sys/fs/cgroup/user.slice/job/cpu.max", "40000 20000\n");
  EXPECT_EQ(quota(), 2);
  write("sys/fs/cgroup/user.slice/job/worker/cpu.max", "max 100000\n");
  EXPECT_EQ(quota(), 2);
  write("sys/fs/cgroup/user.slice/other/cpu.max", "1000 100000\n");
  EXPECT_EQ(quota(), 2);
  write("sys/fs/cgroup/user.slice/job/worker/cpu.max", "50000 100000\n");
  EXPECT_EQ(quota(), 0.5);
}

TEST_F(CpuQuota, OfAContainerIsAtTheMountItself) {
  version2("/");  // a namespace of its own
  write("sys/fs/cgroup/cpu.max", "300000 100000\n");
  EXPECT_EQ(quota(), 3);
  version2("/docker/abc", "/docker/abc");  // the host's name for what is mounted
  EXPECT_EQ(quota(), 3);
  version2("/../../elsewhere");
  EXPECT_EQ(quota(), 3);
}

TEST_F(CpuQuota, OfVersion1) {
  version1("/docker/abc", "/docker/abc");
  EXPECT_EQ(quota(), std::nullopt);
  write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(quota(), std::nullopt);
  write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "150000\n");
  EXPECT_EQ(quota(), 1.5);
  version1("/a/b", "/");
  write("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "10000\n");
  write("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(quota(), 0.1);
}

TEST_F(CpuQuota, IsNotReadFromNonsense) {
  version2("/");
  for (const char* text : {"", "100000", "-5 100000", "100000 0", "nan nan", "x y"}) {
    write("sys/fs/cgroup/cpu.max", text);
    EXPECT_EQ(quota(), std::nullopt) << text;
  }
  write("proc/self/mountinfo", "30 24\n- - -\n\n");
  EXPECT_EQ(quota(), std::nullopt);
}

TEST(AvailableCores, AreNoMoreThanTheMachineHas) {
  EXPECT_GE(available_cores(), 1);
  EXPECT_LE(available_cores(), static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace
