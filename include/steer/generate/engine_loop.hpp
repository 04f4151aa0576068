#pragma once

#include <memory>
#include <string>

#include <steer/generate/engine.hpp>

namespace steer {

/// An engine and the thread that drives it: for servers, and for callers whose own thread must not compute. Sleeps
/// while there is nothing to do. All functions may be called from any thread; a request's `on_event` and observers are
/// called on the loop's thread and hold up every row while they run, so hand over and return (results are shared
/// pointers: keep them).
///
///     EngineLoop loop(model);
///     std::promise<std::shared_ptr<const GenerateResult>> done;
///     loop.submit({.ids = prompt, .on_event = [&](const EngineEvent& e) { if (e.result) done.set_value(e.result); }});
///     fmt::print("{}\n", done.get_future().get()->text);
class EngineLoop {
 public:
  /// Starts the thread. @throws as Engine; Error(unsupported) for a model that several processes compute together.
  explicit EngineLoop(Model model, const EngineOptions& options = {});
  /// `stop`.
  ~EngineLoop();
  EngineLoop(const EngineLoop&) = delete;
  EngineLoop& operator=(const EngineLoop&) = delete;

  /// As Engine::submit. @throws as it; Error(cancelled) once the loop was told to end.
  RowId submit(EngineRequest request);
  /// As Engine::cancel: the last event follows soon.
  bool cancel(RowId row, std::string reason = "cancelled");
  /// As Engine::load.
  Engine::Load load() const;
  /// Takes no further rows, lets those it has end, and returns when the thread has ended. Not from a callback.
  void finish();
  /// The same, but cancels the rows it has. Every row has had its last event when this returns. Not from a callback.
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace steer
