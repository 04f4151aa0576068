#pragma once
// Listens, gives every connection a thread, and ends them.

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "serve/http_socket.hpp"

namespace steer::serve::detail {

class Listener {
 public:
  /// Listens; connections wait to be accepted until `start`. @param most  open at once; further ones wait.
  /// @throws Error(io) when the address cannot be had.
  Listener(const std::string& host, int port, std::int64_t most);
  ~Listener();  ///< `stop`
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  /// @param serve  called for each connection on its thread; the connection ends with it. Not to throw.
  void start(std::function<void(Socket&)> serve);
  int port() const { return port_; }
  /// Connections that are open.
  std::int64_t open() const;
  /// Accepts nothing more.
  void close();
  /// Closes, and waits so long for connections to end. @return how many are left.
  std::int64_t drain(double seconds);
  /// Closes, breaks connections that are left and waits for their threads.
  void stop();

 private:
  void accept_all();
  void begin(int descriptor);

  std::int64_t most_;
  int listener_ = -1, wake_ = -1, port_ = 0;
  std::function<void(Socket&)> serve_;
  mutable std::mutex mutex_;
  std::condition_variable ended_;
  std::set<const Socket*> open_;
  std::thread acceptor_;
};

}  // namespace steer::serve::detail
