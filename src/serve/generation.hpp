#pragma once
// The rows of one request, and what the engine's thread sends to the connection that waits for them.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <steer/generate/engine.hpp>

namespace steer::serve::detail {

/// What happened to one row.
struct RowEvent {
  std::int64_t choice = 0;  ///< of the request, prompt by prompt
  std::int64_t id = -1;     ///< the new token; -1: none
  std::string text{};       ///< what became final
  double log_probability = 0;
  TopTokens top{};
  std::shared_ptr<const GenerateResult> result{};  ///< the row is done
};

struct Service;

/// Gone, it cancels the rows that are left.
class Generation {
 public:
  /// @param live  whether tokens are wanted as they come; else results alone.
  Generation(Service& service, bool live);
  ~Generation();
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  /// @throws as EngineLoop::submit.
  void submit(EngineRequest request);
  std::int64_t choices() const { return choices_; }
  /// The next event; nothing when every row is done.
  /// @param gone  asked some ten times a second whether anybody still wants the answer.
  /// @throws ApiError(499) when not; ApiError(504) when the time is over; ApiError(503) when the server stops; what a
  ///         row failed with.
  std::optional<RowEvent> next(const std::function<bool()>& gone);

 private:
  /// Filled by the engine's thread, emptied by the connection's; lives as long as either needs it.
  struct Mailbox;
  struct Order {
    RowId first = 0;
    std::int64_t count = 0, choice = 0;
  };
  Service& service_;
  std::shared_ptr<Mailbox> mailbox_;
  std::chrono::steady_clock::time_point until_,
      asked_{};  ///< when the answer must be there; when `gone` was asked last
  bool live_;
  std::vector<Order> orders_;
  std::int64_t choices_ = 0, done_ = 0;
};

}  // namespace steer::serve::detail
