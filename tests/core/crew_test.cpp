#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include <steer/core/threads.hpp>

#include "core/crew.hpp"

namespace {

using steer::core::detail::run_pieces;
using steer::core::detail::run_ranges;

class Crew : public testing::Test {
 protected:
  void SetUp() override { steer::set_threads(4); }
  void TearDown() override { steer::set_threads(before_); }
  int before_ = steer::threads();
};

TEST_F(Crew, DoesEachPieceOnce) {
  for (std::int64_t count : {0, 1, 2, 3, 7, 100}) {
    for (int repeat = 0; repeat < 300; ++repeat) {
      std::vector<int> done(static_cast<std::size_t>(count));  // not atomic: a thread checker sees two on one piece
      run_pieces(count, [&](std::int64_t i) { ++done[static_cast<std::size_t>(i)]; });
      ASSERT_EQ(done, std::vector<int>(static_cast<std::size_t>(count), 1)) << count;
    }
  }
}

TEST_F(Crew, DoesItAfterSleepAndWithAnyNumberOfThreads) {
  for (int threads : {1, 3, 2, 4, 1, 4}) {
    steer::set_threads(threads);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::vector<int> done(50);
    run_pieces(50, [&](std::int64_t i) { ++done[static_cast<std::size_t>(i)]; });
    EXPECT_EQ(done, std::vector<int>(50, 1)) << threads;
  }
}

TEST_F(Crew, RangesCoverEveryIndexOnce) {
  for (std::int64_t count : {0, 1, 9, 10, 11, 95}) {
    std::vector<int> done(static_cast<std::size_t>(count));
    run_ranges(count, 10, [&](std::int64_t begin, std::int64_t end) {
      ASSERT_LT(begin, end);
      for (std::int64_t i = begin; i < end; ++i) ++done[static_cast<std::size_t>(i)];
    });
    EXPECT_EQ(done, std::vector<int>(static_cast<std::size_t>(count), 1)) << count;
  }
}

TEST_F(Crew, ServesSeveralCallersAndCallsFromPieces) {
  std::vector<std::thread> callers;
  std::vector<std::int64_t> sums(4);
  for (std::size_t caller = 0; caller < sums.size(); ++caller)
    callers.emplace_back([&sum = sums[caller]] {
      for (int repeat = 0; repeat < 200; ++repeat) {
        std::vector<std::int64_t> parts(16);
        run_pieces(16, [&](std::int64_t i) {
          std::vector<std::int64_t> inner(4);
          run_pieces(4, [&](std::int64_t j) { inner[static_cast<std::size_t>(j)] = i * j; });
          parts[static_cast<std::size_t>(i)] = std::accumulate(inner.begin(), inner.end(), std::int64_t{0});
        });
        sum += std::accumulate(parts.begin(), parts.end(), std::int64_t{0});
      }
    });
  for (auto& caller : callers) caller.join();
  for (auto sum : sums) EXPECT_EQ(sum, 200 * 120 * 6);
}

TEST_F(Crew, PassesOnWhatAPieceThrows) {
  for (int repeat = 0; repeat < 100; ++repeat) {
    std::atomic<int> done{0};
    EXPECT_THROW(run_pieces(40,
                            [&](std::int64_t i) {
                              if (i == 5) throw std::runtime_error("piece");
                              ++done;
                            }),
                 std::runtime_error);
    EXPECT_LT(done, 40);
    std::vector<int> next(8);
    run_pieces(8, [&](std::int64_t i) { ++next[static_cast<std::size_t>(i)]; });
    EXPECT_EQ(next, std::vector<int>(8, 1));
  }
}

}  // namespace
