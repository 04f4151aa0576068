#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <steer/core/workers.hpp>

namespace steer::eval::detail {

/// The processes of one run: a c10d TCPStore at rank 0 and a heartbeat each, for as long as this lives.
class Team {
 public:
  /// Meets the other processes. @param identity  of the run (see Journal): all must have the same.
  /// @throws Error(io) when they do not come within `timeout_s`; Error(config) naming settings in which this process
  /// differs from rank 0.
  explicit Team(const Workers& workers, const std::string& identity = "{}");
  ~Team();
  const Workers& workers() const;
  /// Called by all at the end: rank 0, where the store lives, waits for those still alive. @throws Error(io).
  void leave();

  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

/// Who does which batch of a stage. Alone, simply the next one.
class Claims {
 public:
  virtual ~Claims() = default;
  /// The next batch to do, or nothing when all are done (by anyone).
  virtual std::optional<std::int64_t> next() = 0;
  virtual void done(std::int64_t batch) = 0;
};

/// Of a stage's batches [0, batches): shared with a team's other processes, or, without a team, all one's own.
std::unique_ptr<Claims> claims_on(Team* team, const std::string& stage, std::int64_t batches);

}  // namespace steer::eval::detail
