#include <steer/core/signals.hpp>

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>

#include "support.hpp"

namespace steer {
namespace {

TEST(StopSignals, TheFirstAsksTheSecondEnds) {
  for (const int number : {SIGINT, SIGTERM}) {
    const pid_t pid = fork();
    if (pid == 0) {
      std::optional<StopSignals> signals(std::in_place);
      if (signals->received() != 0 || signals->exit_code() != 0) _exit(1);
      raise(number);
      if (signals->received() != number || signals->exit_code() != 128 + number) _exit(2);
      raise(number);
      _exit(3);  // not reached
    }
    int status = 0;
    waitpid(pid, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == number) << "exit " << WEXITSTATUS(status);
  }
}

TEST(StopSignals, OneAtATimeAndGoneWithItsOwner) {
  {
    const StopSignals one;
    EXPECT_STEER_ERROR(StopSignals{}, ErrorCode::argument, "one at a time");
  }
  const StopSignals again;
  EXPECT_EQ(again.received(), 0);
}

}  // namespace
}  // namespace steer
