#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <memory>
#include <string>

#include "support.hpp"

namespace steer::test {

/// Whether simulations print what they found: STEER_STATS_TABLE=1.
inline bool verbose() {
  const char* value = std::getenv("STEER_STATS_TABLE");
  return value && *value == '1';
}

/// A suite whose every comparison is a case of one summary line.
template <class Suite>
class CountedSuite : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { counter = std::make_unique<CaseCounter>(Suite::label); }
  static void TearDownTestSuite() { counter.reset(); }

  void near(double got, double right, double tolerance, const std::string& what) {
    expect(std::abs(got - right) <= tolerance,
           what + ": got " + std::to_string(got) + ", right is " + std::to_string(right));
  }
  void expect(bool ok, const std::string& what) {
    counter->count(ok);
    EXPECT_TRUE(ok) << what;
  }

 private:
  inline static std::unique_ptr<CaseCounter> counter;
};

/// References and coverage.
class StatsSuite : public CountedSuite<StatsSuite> {
 public:
  static constexpr const char* label = "stats";
};

}  // namespace steer::test
