#include "core/crew.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
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

#include <steer/core/threads.hpp>

namespace steer::core::detail {
namespace {

using Clock = std::chrono::steady_clock;

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
  const auto start = Clock::now();
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      relax();
    }
  } while (Clock::now() - start < kLimit);
  return ready();
}

thread_local bool in_piece = false;

using Work = void (*)(void*, std::int64_t);

/// The loops of one calling thread, one after the other.
struct Bench {
  // The number of the loop that is open (0: none), and how many helpers are inside.
  static constexpr int kNumberShift = 16;
  static constexpr std::uint64_t kInside = (std::uint64_t{1} << kNumberShift) - 1,
                                 kMaxNumber = (std::uint64_t{1} << 48) - 2;
  alignas(64) std::atomic<std::uint64_t> gate{0};
  std::atomic<Clock::rep> last{0};  ///< when its last loop ended
  std::uint64_t number = 0;         ///< of that loop; the caller's own
  std::atomic<bool> taken{false};   ///< by a thread

  /// Pieces are in runs, one for each thread that may come: who is done with its own takes of the others'. So a thread
  /// meets the same part of the same data in one loop after another, and reads on where it was.
  struct alignas(64) Share {
    std::atomic<std::int64_t> next{0};
  };
  static constexpr int kShares = 16;
  std::array<Share, kShares> share;

  // The loop. Written while the gate is shut and nobody is inside, read inside.
  alignas(64) Work work = nullptr;
  void* context = nullptr;
  std::int64_t count = 0;
  int threads = 1, shares = 1;
  std::mutex error_mutex;
  std::exception_ptr error;

  std::uint64_t open_number() const { return gate.load() >> kNumberShift; }

  std::int64_t begin_of(int which) const {
    return count / shares * which + std::min<std::int64_t>(count % shares, which);
  }

  /// Does pieces, those of share `first` before others, until none is left, or until `leave()`.
  template <class Leave>
  void do_pieces(int first, const Leave& leave) {
    in_piece = true;
    try {
      for (int k = 0; k < shares; ++k) {
        const int which = (first + k) % shares;
        auto& next = share[static_cast<std::size_t>(which)].next;
        const std::int64_t end = begin_of(which + 1);
        for (std::int64_t i; !leave() && (i = next.fetch_add(1, std::memory_order_relaxed)) < end;) work(context, i);
      }
    } catch (...) {
      for (auto& each : share) each.next.store(count, std::memory_order_relaxed);
      const std::lock_guard lock(error_mutex);
      if (!error) error = std::current_exception();
    }
    in_piece = false;
  }

  bool enter(std::uint64_t expected) {
    std::uint64_t value = gate.load();
    while (value >> kNumberShift == expected) {
      if (gate.compare_exchange_weak(value, value + 1)) return true;
    }
    return false;
  }
};

class Crew {
 public:
  void run(std::int64_t count, Work work, void* context, int threads) {
    Bench* const bench = own_bench();
    if (!bench) return run_alone(count, work, context);
    bench->work = work;
    bench->context = context;
    bench->count = count;
    bench->threads = threads;
    limit_.store(threads, std::memory_order_relaxed);
    bench->error = nullptr;
    bench->shares = static_cast<int>(std::min<std::int64_t>({threads, count, Bench::kShares}));
    for (int i = 0; i < bench->shares; ++i)
      bench->share[static_cast<std::size_t>(i)].next.store(bench->begin_of(i), std::memory_order_relaxed);
    bench->number = bench->number % Bench::kMaxNumber + 1;
    open_.fetch_add(1);
    bench->gate.store(bench->number << Bench::kNumberShift);
    posted_.fetch_add(1);
    call_helpers(std::min<std::int64_t>(threads - callers(), count - 1));
    bench->do_pieces(0, [] { return false; });
    bench->gate.fetch_and(Bench::kInside);
    open_.fetch_sub(1);  // who waits does not compute
    const auto empty = [bench] { return bench->gate.load(std::memory_order_acquire) == 0; };
    // Whoever is inside for long was interrupted: let it have the core.
    while (!spin(empty)) std::this_thread::yield();
    bench->last.store(Clock::now().time_since_epoch().count(), std::memory_order_relaxed);
    if (bench->error) std::rethrow_exception(std::exchange(bench->error, nullptr));
  }

  static void run_alone(std::int64_t count, Work work, void* context) {
    for (std::int64_t i = 0; i < count; ++i) work(context, i);
  }

 private:
  static constexpr std::size_t kBenches = 64;  // threads that have loops open at once; further ones work alone
  static constexpr int kMostHelpers = 1 << 10;

  /// The calling thread's, for as long as it lives; null where all are taken.
  Bench* own_bench() {
    struct Lease {
      Bench* bench = nullptr;
      ~Lease() {
        if (!bench) return;
        bench->last.store(0, std::memory_order_relaxed);  // gone, not busy elsewhere
        bench->taken.store(false);
      }
    };
    thread_local Lease lease;
    for (std::size_t i = 0; !lease.bench && i < kBenches; ++i) {
      bool expected = false;
      if (!benches_[i].taken.compare_exchange_strong(expected, true)) continue;
      lease.bench = &benches_[i];
      std::size_t used = used_.load();
      while (used < i + 1 && !used_.compare_exchange_weak(used, i + 1)) continue;
    }
    return lease.bench;
  }

  /// Threads that have a loop open, or had one a moment ago and so are computing something else in between.
  int callers() const {
    constexpr auto kMoment = std::chrono::duration_cast<Clock::duration>(std::chrono::microseconds(500)).count();
    const auto now = Clock::now().time_since_epoch().count();
    int count = 0;
    for (std::size_t i = 0, used = used_.load(std::memory_order_relaxed); i < used; ++i) {
      const Bench& b = benches_[i];
      count += b.open_number() != 0 || now - b.last.load(std::memory_order_relaxed) < kMoment;
    }
    return count;
  }

  /// Sees to it that so many helpers are awake beside those that are in loops already.
  void call_helpers(std::int64_t wanted) {
    if (wanted <= 0) return;
    wanted += inside_.load();
    if (started_.load(std::memory_order_relaxed) < wanted) {
      const std::lock_guard lock(sleep_mutex_);
      for (; started_ < std::min<std::int64_t>(wanted, kMostHelpers); ++started_)
        std::thread([this, index = started_.load()] { serve(index); }).detach();
    }
    std::int64_t missing = wanted - (started_.load(std::memory_order_relaxed) - sleepers_.load());
    if (missing <= 0 || sleepers_.load() == 0) return;
    { const std::lock_guard lock(sleep_mutex_); }  // who has counted itself is asleep now, or has seen the post
    for (; missing > 0; --missing) sleep_.notify_one();
  }

  /// Counts the calling helper in where fewer than `threads` compute. One that is refused must leave no trace: who is
  /// counted looks again before it sleeps, who is refused does not, so two that refused each other would both sleep.
  bool take_place(int threads) {
    int inside = inside_.load();
    while (inside + callers() < threads) {
      if (inside_.compare_exchange_weak(inside, inside + 1)) return true;
    }
    return false;
  }

  /// Helps with each open loop it has not seen yet. @return whether there was one.
  bool help(int index, std::array<std::uint64_t, kBenches>& seen) {
    bool helped = false;
    const std::size_t used = used_.load();
    for (std::size_t i = 0; i < used; ++i) {
      const std::size_t at = (i + static_cast<std::size_t>(index)) % used;  // not all to the same one
      Bench& bench = benches_[at];
      const std::uint64_t number = bench.open_number();
      if (number == 0 || number == seen[at] || !bench.enter(number)) continue;
      if (take_place(bench.threads)) {
        helped = true;
        seen[at] = number;
        // Another loop may have counted on this thread: it was awake, and is taken now.
        if (open_.load() > 1) call_helpers(1);
        bench.do_pieces(bench.shares > 1 ? 1 + index % (bench.shares - 1) : 0, [&] {
          return open_.load(std::memory_order_relaxed) + inside_.load(std::memory_order_relaxed) > bench.threads;
        });
        inside_.fetch_sub(1);
      }
      bench.gate.fetch_sub(1, std::memory_order_release);
    }
    return helped;
  }

  [[noreturn]] void serve(int index) {
    std::array<std::uint64_t, kBenches> seen{};
    for (;;) {
      const std::uint64_t posted = posted_.load();  // before looking: what is posted later is noticed
      if (help(index, seen)) continue;
      const auto fresh = [&] { return posted_.load() != posted; };
      // Where callers are many, there will be no room: the core is theirs.
      if (callers() < limit_.load(std::memory_order_relaxed) && spin(fresh)) continue;
      std::unique_lock lock(sleep_mutex_);
      ++sleepers_;
      sleep_.wait(lock, fresh);
      --sleepers_;
    }
  }

  std::array<Bench, kBenches> benches_;
  std::atomic<std::size_t> used_{0};  ///< benches [0, used_) have been taken some time

  alignas(64) std::atomic<std::uint64_t> posted_{0};  ///< loops ever opened
  alignas(64) std::atomic<int> open_{0};              ///< callers that do pieces of their loops
  std::atomic<int> inside_{0};                        ///< helpers in loops
  std::atomic<int> limit_{1};                         ///< threads that the last loop was to have

  alignas(64) std::mutex sleep_mutex_;
  std::condition_variable sleep_;
  std::atomic<int> started_{0}, sleepers_{0};
};

}  // namespace

void run_pieces(std::int64_t count, void (*work)(void* context, std::int64_t i), void* context) {
  const int wanted = threads();
  if (count <= 1 || wanted == 1 || in_piece || at::in_parallel_region()) return Crew::run_alone(count, work, context);
  static Crew& crew = *new Crew;  // for the life of the process: its threads end with it
  crew.run(count, work, context, wanted);
}

}  // namespace steer::core::detail
