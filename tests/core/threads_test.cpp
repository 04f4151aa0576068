#include <gtest/gtest.h>

#include <steer/core/error.hpp>
#include <steer/core/threads.hpp>

#include "support.hpp"

namespace steer {
namespace {

TEST(Threads, CanBeSetAndReadBack) {
  const int before = threads();
  set_threads(1);
  EXPECT_EQ(threads(), 1);
  set_threads(0);
  EXPECT_GE(threads(), 1);
  set_threads(before);
  EXPECT_STEER_ERROR(set_threads(-1), ErrorCode::argument, "-1");
}

}  // namespace
}  // namespace steer
