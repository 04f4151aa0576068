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

// A loop that another thread keeps open takes nobody's helpers away: two pieces that wait for each other still meet.
TEST_F(Crew, HelpsACallerBesideAnotherOne) {
  steer::set_threads(5);  // two callers and three helpers: two of those may do the first loop's pieces, its caller none
  for (int repeat = 0; repeat < 20; ++repeat) {
    std::atomic<bool> inside{false}, done{false};
    std::thread other([&] {
      run_pieces(2, [&](std::int64_t) {
        inside = true;
        while (!done) std::this_thread::yield();
      });
    });
    while (!inside) std::this_thread::yield();
    std::atomic<int> arrived{0};
    run_pieces(2, [&](std::int64_t) {
      ++arrived;
      const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
      while (arrived < 2 && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
      EXPECT_EQ(arrived, 2) << "nobody came";
    });
    done = true;
    other.join();
  }
}

// As many callers as there are threads need no helpers: no further thread may take part for longer than a piece.
TEST_F(Crew, StaysOutWhereCallersSuffice) {
  steer::set_threads(2);
  std::atomic<int> callers{0}, strangers{0};
  const auto loop = [&] {
    steer::set_threads(2);
    const auto self = std::this_thread::get_id();
    ++callers;
    for (int repeat = 0; repeat < 200; ++repeat) {
      run_pieces(8, [&](std::int64_t) {
        while (callers < 2) std::this_thread::yield();
        if (std::this_thread::get_id() != self) ++strangers;
        const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(20);
        while (std::chrono::steady_clock::now() < end) continue;
      });
    }
  };
  std::thread other(loop);
  loop();
  other.join();
  // Of 3,200 pieces: those begun before both callers were there, and where one was kept from its core for long.
  EXPECT_LT(strangers, 800);
}

TEST_F(Crew, TakesMoreCallersThanItKeepsPlacesFor) {
  std::vector<std::thread> callers;
  std::atomic<std::int64_t> sum{0};
  for (int caller = 0; caller < 80; ++caller)
    callers.emplace_back([&] {
      for (int repeat = 0; repeat < 10; ++repeat) run_pieces(5, [&](std::int64_t i) { sum += i; });
      std::this_thread::sleep_for(std::chrono::milliseconds(5));  // so that many are there at once
    });
  for (auto& caller : callers) caller.join();
  EXPECT_EQ(sum, 80 * 10 * 10);
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
