#include "io/atomic_file.hpp"
#include "core/format_text.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>

#include "support.hpp"

namespace steer {
namespace {

namespace fs = std::filesystem;

void write(const fs::path& path) {
  io::detail::AtomicFile file(path, "test");
  file.commit();
}

void age(const fs::path& path) { fs::last_write_time(path, fs::file_time_type::clock::now() - std::chrono::hours(2)); }

/// The id of a process that has ended.
pid_t dead() {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  ::waitpid(child, nullptr, 0);
  return child;
}

TEST(AtomicFile, RemovesWhatKilledWritersOfTheSameFileLeft) {
  test::TempDir dir;
  const auto beside = [&](const std::string& name) {
    std::ofstream(dir / name) << "half";
    age(dir / name);
    return dir / name;
  };
  const pid_t ended = dead();
  const auto left = beside(format_text("report.html.tmp-{}-0", ended));
  const auto alive = beside(format_text("report.html.tmp-{}-7", ::getpid()));
  const auto others = beside(format_text("report.md.tmp-{}-0", ended));
  const auto no_writer = beside("report.html.tmp-old");
  const auto fresh = dir / format_text("report.html.tmp-{}-1", ended);
  std::ofstream(fresh) << "half";
  write(dir / "report.html");
  EXPECT_FALSE(fs::exists(left));
  EXPECT_TRUE(fs::exists(alive)) << "its writer lives";
  EXPECT_TRUE(fs::exists(others)) << "of another file";
  EXPECT_TRUE(fs::exists(no_writer)) << "not ours";
  EXPECT_TRUE(fs::exists(fresh)) << "its writer may live on another machine";
  EXPECT_TRUE(fs::exists(dir / "report.html"));
}

}  // namespace
}  // namespace steer
