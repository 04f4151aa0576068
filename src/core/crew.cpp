#include "core/crew.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace steer::core::detail {
namespace {

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Tests `ready` until it holds or some tens of microseconds have gone by. @return whether it holds.
template <class Ready>
bool spin(const Ready& ready) {
  constexpr auto kLimit = std::chrono::microseconds(60);
  const auto start = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() - start < kLimit);
  return ready();
}

thread_local bool in_piece = false;

class Crew {
 public:
  void run(std::int64_t count, void (*work)(void*, std::int64_t), void* context, int helpers) {
    const std::unique_lock owner(owner_, std::try_to_lock);
    if (!owner) return run_alone(count, work, context);
    for (; started_ < helpers; ++started_) std::thread([this, index = started_] { serve(index); }).detach();
    // No thread reads these: the gate is shut and nobody is inside.
    work_ = work;
    context_ = context;
    count_ = count;
    error_ = nullptr;
    next_.store(0, std::memory_order_relaxed);
    helpers_.store(helpers, std::memory_order_relaxed);
    number_ = number_ % kMaxNumber + 1;
    gate_.store(number_ << kNumberShift);
    if (sleepers_.load() > 0) {
      {
        const std::lock_guard lock(sleep_mutex_);
      }  // who has counted itself is asleep now, or has seen the gate
      sleep_.notify_all();
    }
    do_pieces();
    gate_.fetch_and(kInside);
    const auto empty = [this] { return gate_.load(std::memory_order_acquire) == 0; };
    // Whoever is inside for long was interrupted: let it have the core.
    while (!spin(empty)) std::this_thread::yield();
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

  static void run_alone(std::int64_t count, void (*work)(void*, std::int64_t), void* context) {
    for (std::int64_t i = 0; i < count; ++i) work(context, i);
  }

 private:
  // The gate: the number of the job that is open (0: none), and how many threads are inside.
  static constexpr int kNumberShift = 16;
  static constexpr std::uint64_t kInside = (std::uint64_t{1} << kNumberShift) - 1,
                                 kMaxNumber = (std::uint64_t{1} << 48) - 2;

  void do_pieces() {
    in_piece = true;
    try {
      for (std::int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) work_(context_, i);
    } catch (...) {
      next_.store(count_, std::memory_order_relaxed);
      const std::lock_guard lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
    }
    in_piece = false;
  }

  bool enter(std::uint64_t number, int index) {
    std::uint64_t gate = number << kNumberShift;
    while (gate >> kNumberShift == number && index < helpers_.load(std::memory_order_relaxed)) {
      if (gate_.compare_exchange_weak(gate, gate + 1)) return true;
    }
    return false;
  }

  [[noreturn]] void serve(int index) {
    std::uint64_t seen = 0;
    const auto fresh = [&] {
      const std::uint64_t number = gate_.load() >> kNumberShift;
      return number != 0 && number != seen;
    };
    for (;;) {
      if (!spin(fresh)) {
        std::unique_lock lock(sleep_mutex_);
        ++sleepers_;
        sleep_.wait(lock, fresh);
        --sleepers_;
      }
      const std::uint64_t number = gate_.load() >> kNumberShift;
      if (number == 0 || number == seen) continue;
      seen = number;
      if (!enter(number, index)) continue;
      do_pieces();
      gate_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::mutex owner_;  // of the thread whose job is in work; guards started_ and number_
  int started_ = 0;
  std::uint64_t number_ = 0;

  alignas(64) std::atomic<std::uint64_t> gate_{0};
  alignas(64) std::atomic<std::int64_t> next_{0};
  // The job. Written while nobody is inside, read inside.
  alignas(64) void (*work_)(void*, std::int64_t) = nullptr;
  void* context_ = nullptr;
  std::int64_t count_ = 0;
  std::atomic<int> helpers_{0};
  std::mutex error_mutex_;
  std::exception_ptr error_;

  std::mutex sleep_mutex_;
  std::condition_variable sleep_;
  std::atomic<int> sleepers_{0};
};

}  // namespace

void run_pieces(std::int64_t count, void (*work)(void* context, std::int64_t i), void* context) {
  const int threads = at::get_num_threads();
  if (count <= 1 || threads == 1 || in_piece || at::in_parallel_region()) return Crew::run_alone(count, work, context);
  static Crew& crew = *new Crew;  // for the life of the process: its threads end with it
  crew.run(count, work, context, static_cast<int>(std::min<std::int64_t>(threads, count)) - 1);
}

}  // namespace steer::core::detail
