#pragma once
// The engine on a thread of its own, and what its rows send to those who wait for them.

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
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include <steer/generate/engine.hpp>

namespace steer::serve::detail {

/// What happened to one row of a request.
struct RowEvent {
  std::int64_t choice = 0;
  std::int64_t id = -1;  ///< the new token; -1: none
  std::string text{};    ///< what became final
  double log_probability = 0;
  std::optional<GenerateResult> result{};  ///< the row is done
};

/// Where the rows of one request leave their events. Filled by the engine's thread, emptied by the connection's.
class Mailbox {
 public:
  /// @param live  whether tokens are wanted as they come; else results alone.
  explicit Mailbox(bool live) : live(live) {}
  void put(RowEvent event);
  void fail(std::exception_ptr why);
  /// The next event, waiting for it until then at most. @throws what the engine failed with.
  std::optional<RowEvent> take(std::chrono::steady_clock::time_point until);
  const bool live;

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<RowEvent> events_;
  std::exception_ptr failure_;
};

class EngineLoop {
 public:
  EngineLoop(Model model, const EngineOptions& options, std::int64_t max_waiting);
  /// `end()`.
  ~EngineLoop();
  EngineLoop(const EngineLoop&) = delete;
  EngineLoop& operator=(const EngineLoop&) = delete;

  /// Adds rows; their events go to `mailbox` under the numbers `choice`, `choice + 1`, ...
  /// @throws what Engine::submit throws; ApiError(429) when too many rows wait; ApiError(503) after `close`.
  std::vector<RowId> submit(EngineRequest request, const std::shared_ptr<Mailbox>& mailbox, std::int64_t choice);
  /// Ends rows at once; unknown ones are none.
  void cancel(const std::vector<RowId>& rows);
  /// Accepts nothing more; rows go on.
  void close();
  /// Closes, and fails rows that are left: ApiError(503).
  void end();
  /// As of the last step.
  Engine::Load load() const;
  std::int64_t generated_tokens() const;
  /// Of the last step that drew tokens, in seconds.
  double step_seconds() const;

 private:
  struct Owner {
    std::shared_ptr<Mailbox> mailbox;
    std::int64_t choice = 0;
  };
  void run();
  void step();
  void on_event(const EngineEvent& event);
  /// Calls `work` on the engine's thread, between two steps, and waits for it.
  void between_steps(std::function<void()> work);
  void fail_all(const std::exception_ptr& why);

  Engine engine_;
  std::int64_t max_waiting_;
  std::unordered_map<RowId, Owner> owners_;  ///< of the engine's thread

  mutable std::mutex mutex_;
  std::condition_variable wanted_;
  std::deque<std::function<void()>> work_;
  bool closed_ = false, ended_ = false;
  Engine::Load load_;
  std::int64_t generated_ = 0;
  double step_seconds_ = 0;
  std::thread thread_;
};

/// The rows of one request while it is answered. Gone, they are cancelled.
class Generation {
 public:
  Generation(EngineLoop& loop, bool live, double limit_s);
  ~Generation();
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;
  /// @throws as EngineLoop::submit.
  void submit(EngineRequest request);
  std::int64_t choices() const { return choices_; }
  /// The next event; nothing when every row is done.
  /// @param gone  asked some ten times a second whether anybody still wants the answer.
  /// @throws ApiError(499) when not; ApiError(504) when the time is over; what the engine failed with.
  std::optional<RowEvent> next(const std::function<bool()>& gone);

 private:
  EngineLoop& loop_;
  std::shared_ptr<Mailbox> mailbox_;
  std::chrono::steady_clock::time_point until_;
  std::vector<RowId> rows_;
  std::int64_t choices_ = 0, done_ = 0;
};

}  // namespace steer::serve::detail
