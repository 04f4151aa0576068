#include "serve/http_socket.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace steer::serve::detail {
namespace {

constexpr std::size_t kBuffer = 16 << 10;
constexpr std::size_t kDrained = 256 << 20;  ///< read and thrown away after an answer, at most
constexpr double kDrainSeconds = 2;

std::chrono::steady_clock::duration duration(double seconds) {
  return std::chrono::duration_cast<std::chrono::steady_clock::duration>(std::chrono::duration<double>(seconds));
}

}  // namespace

Socket::Socket(int descriptor) : descriptor_(descriptor), buffer_(kBuffer) {
  ::fcntl(descriptor, F_SETFL, ::fcntl(descriptor, F_GETFL) | O_NONBLOCK);
  const int on = 1;
  ::setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

Socket::~Socket() { ::close(descriptor_); }

void Socket::allow(std::size_t bytes, double seconds) {
  allowed_ = bytes;
  until_ = Clock::now() + duration(seconds);
}

bool Socket::wait(short events, Clock::time_point until) {
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
    if (left <= 0) return false;
    pollfd entry{descriptor_, events, 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(std::min<long long>(left, 60'000)));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

std::ptrdiff_t Socket::read(char* to, std::size_t size) {
  if (fault_ != Fault::none) return -1;
  if (begin_ == end_) {
    while (true) {
      // What has arrived counts, however late this thread comes to look: a busy server's clients are not slow.
      const auto got = ::recv(descriptor_, buffer_.data(), buffer_.size(), 0);
      if (got >= 0) {
        begin_ = 0;
        end_ = static_cast<std::size_t>(got);
        break;
      }
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) return fault_ = Fault::closed, -1;
      if (!wait(POLLIN, until_)) return fault_ = Fault::slow, -1;
    }
    if (end_ == 0) return 0;
  }
  if (allowed_ == 0) return fault_ = Fault::large, -1;
  const std::size_t count = std::min({size, end_ - begin_, allowed_});
  std::memcpy(to, buffer_.data() + begin_, count);
  begin_ += count;
  allowed_ -= count;
  return static_cast<std::ptrdiff_t>(count);
}

bool Socket::write(std::string_view bytes, double stall_s) {
  auto until = Clock::now() + duration(stall_s);
  while (!bytes.empty()) {
    const auto sent = ::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      bytes.remove_prefix(static_cast<std::size_t>(sent));
      until = Clock::now() + duration(stall_s);
      continue;
    }
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return fault_ = Fault::closed, false;
    if (!wait(POLLOUT, until)) return fault_ = Fault::slow, false;
  }
  return true;
}

bool Socket::gone() const {
  pollfd entry{descriptor_, POLLRDHUP, 0};
  return ::poll(&entry, 1, 0) > 0;
}

void Socket::finish() {
  ::shutdown(descriptor_, SHUT_WR);
  const auto until = Clock::now() + duration(kDrainSeconds);
  std::size_t drained = 0;
  while (drained < kDrained && wait(POLLIN, until)) {
    const auto got = ::recv(descriptor_, buffer_.data(), buffer_.size(), 0);
    if (got > 0)
      drained += static_cast<std::size_t>(got);
    else if (got == 0 || (errno != EINTR && errno != EAGAIN))
      return;
  }
}

void Socket::abort() const { ::shutdown(descriptor_, SHUT_RDWR); }

}  // namespace steer::serve::detail
