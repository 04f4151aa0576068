#pragma once
// A connection's bytes with deadlines, so that a client which sends or takes them slowly holds nothing for long.

#include <chrono>
#include <cstddef>
#include <string_view>
#include <vector>

namespace steer::serve::detail {

class Socket {
 public:
  enum class Fault { none, slow, large, closed };

  /// Owns the descriptor, which it makes non-blocking.
  explicit Socket(int descriptor);
  ~Socket();
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  /// From now on at most so many bytes may be read, until then.
  void allow(std::size_t bytes, double seconds);
  /// @return bytes read, 0 at the end of the stream; -1 with `fault()` set.
  std::ptrdiff_t read(char* to, std::size_t size);
  /// All of it. @return false with `fault()` set when the client took nothing for so long or is gone.
  bool write(std::string_view bytes, double stall_s);
  /// Whether the other side has closed or broken the connection.
  bool gone() const;
  /// Ends the answer so that the client gets all of it, though it may still be sending: closing at once would make the
  /// kernel throw away what it has not yet delivered.
  void finish();
  /// Breaks the connection, from any thread.
  void abort() const;
  Fault fault() const { return fault_; }

 private:
  using Clock = std::chrono::steady_clock;
  bool wait(short events, Clock::time_point until);

  int descriptor_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0, end_ = 0;  ///< of what is buffered
  std::size_t allowed_ = 0;
  Clock::time_point until_{};
  Fault fault_ = Fault::none;
};

}  // namespace steer::serve::detail
