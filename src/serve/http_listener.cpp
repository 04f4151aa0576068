#include "serve/http_listener.hpp"

#include <netdb.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <iterator>
#include <memory>
#include <system_error>
#include <utility>

#include <steer/core/error.hpp>

namespace steer::serve::detail {
namespace {

constexpr int kBacklog = 1024;
constexpr std::string_view kListener = "Server";

/// A listening socket. @throws Error(io).
int listen_on(const std::string& host, int port) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  require(error == 0, ErrorCode::io, kListener, "expected an address to listen on but got \"{}\": {}", host,
          ::gai_strerror(error));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  int problem = 0;
  for (const addrinfo* at = found; at; at = at->ai_next) {
    const int descriptor = ::socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, at->ai_protocol);
    const int on = 1;
    if (descriptor >= 0) ::setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (descriptor >= 0 && ::bind(descriptor, at->ai_addr, at->ai_addrlen) == 0 && ::listen(descriptor, kBacklog) == 0)
      return descriptor;
    problem = errno;
    if (descriptor >= 0) ::close(descriptor);
  }
  fail(ErrorCode::io, kListener, "expected to listen on {} port {} but got: {}", host, port, std::strerror(problem));
}

int port_of(int descriptor) {
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  ::getsockname(descriptor, reinterpret_cast<sockaddr*>(&bound), &size);
  return ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port
                                           : reinterpret_cast<sockaddr_in&>(bound).sin_port);
}

}  // namespace

Listener::Listener(const std::string& host, int port, std::int64_t most) : most_(most) {
  wake_ = ::eventfd(0, EFD_CLOEXEC);
  require(wake_ >= 0, ErrorCode::io, kListener, "expected an event descriptor but got: {}", std::strerror(errno));
  try {
    listener_ = listen_on(host, port);
  } catch (...) {
    ::close(wake_);
    throw;
  }
  port_ = port_of(listener_);
}

Listener::~Listener() {
  stop();
  ::close(wake_);
  ::close(listener_);
}

void Listener::start(std::function<void(Socket&)> serve) {
  serve_ = std::move(serve);
  acceptor_ = std::thread([this] { accept_all(); });
}

std::int64_t Listener::open() const {
  const std::lock_guard lock(mutex_);
  return std::ssize(open_);
}

void Listener::close() {
  const std::uint64_t one = 1;
  if (acceptor_.joinable() && ::write(wake_, &one, sizeof one) == sizeof one) acceptor_.join();
}

std::int64_t Listener::drain(double seconds) {
  close();
  std::unique_lock lock(mutex_);
  ended_.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return open_.empty(); });
  return std::ssize(open_);
}

void Listener::stop() {
  close();
  std::unique_lock lock(mutex_);
  for (const Socket* socket : open_) socket->abort();
  ended_.wait(lock, [&] { return open_.empty(); });
}

void Listener::accept_all() {
  while (true) {
    pollfd entries[] = {{wake_, POLLIN, 0}, {listener_, POLLIN, 0}};
    // Where all places are taken, connections wait in the kernel's queue.
    const bool full = open() >= most_;
    if (::poll(entries, full ? 1 : 2, full ? 20 : -1) < 0 && errno != EINTR) break;
    if (entries[0].revents) break;
    if (full || !entries[1].revents) continue;
    const int descriptor = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (descriptor >= 0)
      begin(descriptor);
    else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  ::shutdown(listener_, SHUT_RDWR);  // those that wait to be accepted are told
}

void Listener::begin(int descriptor) {
  auto owner = std::make_unique<Socket>(descriptor);
  const Socket* socket = owner.get();
  {
    const std::lock_guard lock(mutex_);
    open_.insert(socket);
  }
  try {
    std::thread([this, owner = std::move(owner)]() mutable {
      serve_(*owner);
      const std::lock_guard lock(mutex_);  // to the end: then nothing of this thread touches the listener
      open_.erase(owner.get());
      owner.reset();
      ended_.notify_all();
    }).detach();
  } catch (const std::system_error&) {  // no thread to be had: the connection was closed with its owner
    const std::lock_guard lock(mutex_);
    open_.erase(socket);
  }
}

}  // namespace steer::serve::detail
