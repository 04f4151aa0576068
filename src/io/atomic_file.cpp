#include "io/atomic_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstring>

#include "core/format_text.hpp"

namespace steer::io::detail {
namespace {

constexpr std::string_view kMark = ".tmp-";

/// Removes what writers of `path` that were killed left beside it. A writer may live on another machine that shares the
/// folder, so the file must have been left alone for an hour, too.
void remove_left_overs(const std::filesystem::path& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const auto folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const std::string prefix = path.filename().string() + std::string(kMark);
  const auto old = fs::file_time_type::clock::now() - std::chrono::hours(1);
  std::vector<fs::path> left;
  for (fs::directory_iterator entry(folder, ignored), end; !ignored && entry != end; entry.increment(ignored)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with(prefix)) continue;
    pid_t process = 0;
    const char* text = name.c_str() + prefix.size();
    if (std::from_chars(text, name.c_str() + name.size(), process).ec != std::errc() || process <= 0) continue;
    const auto written = fs::last_write_time(entry->path(), ignored);
    if (!ignored && written < old && ::kill(process, 0) != 0 && errno == ESRCH) left.push_back(entry->path());
    ignored.clear();
  }
  for (const auto& file : left) fs::remove(file, ignored);
}

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path, std::string_view where) : path_(std::move(path)), where_(where) {
  namespace fs = std::filesystem;
  static std::atomic<unsigned> count{0};
  // What a link points to is replaced, not the link; what is no file (/dev/stdout) cannot be replaced.
  std::error_code ignored;
  if (fs::is_symlink(path_, ignored))
    if (auto target = fs::weakly_canonical(path_, ignored); !ignored) path_ = std::move(target);
  require(!fs::exists(path_, ignored) || fs::is_regular_file(path_, ignored), ErrorCode::io, where_,
          "expected a file to write but got a folder, pipe or device ({}); name another", path_.string());
  // mkstemp would give a file that only its owner may read; this one gets the rights the user's umask asks for.
  do {
    temporary_ = path_;
    temporary_ += format_text("{}{}-{}", kMark, ::getpid(), count++);
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (fd_ < 0 && errno == EEXIST);
  if (fd_ < 0) fail_with_errno("create a file beside");
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::fail_with_errno(std::string_view doing) const {
  fail(
      ErrorCode::io, where_,
      "expected to {} {} but got \"{}\" from the system; check that the folder can be written and the disk is not full",
      doing, path_.string(), std::strerror(errno));
}

void AtomicFile::reserve(std::int64_t bytes) {
  if (bytes == 0) return;
  const int error = ::posix_fallocate(fd_, 0, bytes);
  // Some file systems cannot reserve; writing will then tell.
  if (error == 0 || error == EOPNOTSUPP || error == EINVAL) return;
  errno = error;
  fail_with_errno(format_text("reserve {} bytes for", bytes));
}

void AtomicFile::write_at(std::int64_t offset, Bytes bytes) {
  while (!bytes.empty()) {
    const auto written = ::pwrite(fd_, bytes.data(), std::min<std::size_t>(bytes.size(), std::size_t{1} << 30), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_with_errno("write");
    offset += written;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void AtomicFile::commit() {
  if (::fsync(fd_) != 0) fail_with_errno("sync");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_with_errno("rename the finished file to");
  ::close(std::exchange(fd_, -1));
  remove_left_overs(path_);
  // Makes the new name survive a power cut. A folder that cannot be opened or synced does not undo the rename.
  const auto folder = path_.has_parent_path() ? path_.parent_path() : std::filesystem::path(".");
  if (const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); fd >= 0) {
    ::fsync(fd);
    ::close(fd);
  }
}

}  // namespace steer::io::detail
