#pragma once

namespace steer {

/// Turns the first Ctrl-C (SIGINT) or SIGTERM into a request to stop, for as long as this lives; a second one ends the
/// process at once, as it would without. One at a time in a process, made by the program, not by the library.
///
///   steer::StopSignals signals;
///   steer::run_experiment(model, study, {.stop = [&] { return signals.received() != 0; }});  // ends with
///   Error(cancelled)
class StopSignals {
 public:
  /// @throws Error(argument) when another one lives.
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// The signal's number; 0 before one came.
  int received() const;
  /// What a shell expects of a program that a signal ended: 130 for Ctrl-C, 143 for SIGTERM; 0 before one came.
  int exit_code() const;
};

}  // namespace steer
