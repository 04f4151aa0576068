#pragma once
// Threads for loops of microseconds. A pass over a model is some hundred short parallel loops with little between them;
// opening a region of OpenMP for each costs more than some of them last where its threads sleep in between
// (OMP_WAIT_POLICY=passive), and where they spin, it takes the cores from everybody else. The crew's threads look for
// work for some tens of microseconds after each loop, then sleep.

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <steer/core/threads.hpp>

namespace steer::core::detail {

/// Calls work(i) once for each i in [0, count), in any order, on the calling thread and on up to `threads() - 1`
/// others, as they come free: the caller waits for the pieces that another thread has begun, never for a thread to
/// begin one. So pieces must be independent of each other and of the thread.
///
/// There is one crew in a process, and any number of threads may have loops open at once. Its threads help where fewer
/// than `threads()` compute: where as many callers as that are at work, each does its own pieces, which wastes least.
/// A call from inside a piece or a parallel region of OpenMP does all pieces itself.
/// @throws what a piece throws, when all that have begun are done; pieces not yet begun are dropped.
void run_pieces(std::int64_t count, void (*work)(void* context, std::int64_t i), void* context);

template <class F>
void run_pieces(std::int64_t count, const F& work) {
  run_pieces(
      count, [](void* context, std::int64_t i) { (*static_cast<const F*>(context))(i); },
      const_cast<std::remove_const_t<F>*>(&work));
}

/// work(begin, end) over [0, count) in runs of at least `grain`, by run_pieces.
template <class F>
void run_ranges(std::int64_t count, std::int64_t grain, const F& work) {
  const std::int64_t step = grain > 1 ? grain : 1;
  if (count <= step) {
    if (count > 0) work(std::int64_t{0}, count);
    return;
  }
  run_pieces((count + step - 1) / step, [&](std::int64_t i) {
    const std::int64_t begin = i * step, end = begin + step;
    work(begin, end < count ? end : count);
  });
}

/// The same in at most eight ranges a thread: for work whose ranges cost something to begin.
template <class F>
void run_shares(std::int64_t count, std::int64_t grain, const F& work) {
  const std::int64_t most = std::int64_t{8} * threads();
  run_ranges(count, std::max(grain, (count + most - 1) / most), work);
}

}  // namespace steer::core::detail
