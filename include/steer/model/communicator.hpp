#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include <steer/core/workers.hpp>

namespace steer {

/// How processes that compute one model together (`LoadOptions::parallel`) exchange what each has. All of them call the
/// same functions in the same order. Implement it over any transport; one thread uses it at a time.
class Communicator {
 public:
  virtual ~Communicator() = default;
  /// Which of the processes this is, in [0, size()).
  virtual std::int64_t rank() const = 0;
  /// How many there are.
  virtual std::int64_t size() const = 0;
  /// Everyone's tensor, in the order of ranks. @param mine  any shape, the same in all processes; f32 or int64,
  /// contiguous, on any device. @return [size, ...] on that device. @throws Error(io) when another process does not
  /// answer; nothing more can be exchanged then.
  virtual at::Tensor all_gather(const at::Tensor& mine) = 0;
};

/// Over c10d's TCPStore, through the memory of the host: for processors and for tests. Every value passes rank 0.
/// A silent process is waited for `workers.timeout_s`. Rank 0 waits as long for the others when it is destroyed, since
/// they read from it. @throws Error(io) when the processes do not meet.
std::shared_ptr<Communicator> connect(const Workers& workers);

}  // namespace steer
