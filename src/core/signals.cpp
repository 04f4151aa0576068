#include <steer/core/signals.hpp>

#include <signal.h>
#include <unistd.h>

#include <atomic>

#include <steer/core/error.hpp>

namespace steer {
namespace {

volatile sig_atomic_t signal_received = 0;
std::atomic<bool> installed{false};
struct sigaction old_interrupt, old_terminate;

extern "C" void steer_on_stop_signal(int number) {
  if (signal_received != 0) {  // told twice
    signal(number, SIG_DFL);
    raise(number);
    return;
  }
  signal_received = number;
  constexpr char kText[] = "\nstopping after this step; once more to stop at once\n";
  if (write(STDERR_FILENO, kText, sizeof kText - 1) < 0) return;  // nobody to tell
}

}  // namespace

StopSignals::StopSignals() {
  require(!installed.exchange(true), ErrorCode::argument, "StopSignals",
          "expected one at a time but another one lives");
  signal_received = 0;
  struct sigaction action {};
  action.sa_handler = steer_on_stop_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_NODEFER | SA_RESTART;  // the second may come while the first is handled; no call fails for it
  sigaction(SIGINT, &action, &old_interrupt);
  sigaction(SIGTERM, &action, &old_terminate);
}

StopSignals::~StopSignals() {
  sigaction(SIGINT, &old_interrupt, nullptr);
  sigaction(SIGTERM, &old_terminate, nullptr);
  installed = false;
}

int StopSignals::received() const { return signal_received; }
int StopSignals::exit_code() const { return signal_received == 0 ? 0 : 128 + signal_received; }

}  // namespace steer
