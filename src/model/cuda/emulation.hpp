#pragma once
// CUDA's execution model on one CPU thread, for tests: the threads of a block are fibers that hand over at barriers and
// shuffles; blocks run one after the other. Only what the kernels of this folder use. A barrier that not all threads of
// a block reach, or a shuffle that not all lanes of a warp reach, is an exception instead of the card's silence.

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __shared__ static

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace steer::model::detail::cuda::emulation {

class Block {
 public:
  static Block& now() {
    thread_local Block block;
    return block;
  }

  dim3 grid, size, index;
  dim3 thread;                ///< of the running fiber
  std::int64_t launches = 0;  ///< so far

  struct Launch {
    dim3 grid, size;
    std::function<void()> kernel;
  };
  std::vector<Launch>* kept = nullptr;  ///< not null: launches are kept there and not done

  void run(dim3 grid_size, dim3 block_size, const std::function<void()>& kernel) {
    if (kept) {
      kept->push_back({grid_size, block_size, kernel});
      return;
    }
    ++launches;
    grid = grid_size;
    size = block_size;
    kernel_ = &kernel;
    for (unsigned z = 0; z < grid.z; ++z)
      for (unsigned y = 0; y < grid.y; ++y)
        for (unsigned x = 0; x < grid.x; ++x) {
          index = dim3(x, y, z);
          run_threads();
        }
  }

  void barrier() { meet(whole_, static_cast<int>(fibers_in_use_)); }

  /// What lane `from` of the warp brings.
  float exchange(float x, std::size_t from) {
    const std::size_t warp = running_ / 32, lane = running_ % 32;
    Meeting& lanes = warps_[warp];
    // Two sets of slots in turn: a lane may be one shuffle ahead of another, never two.
    float* slots = slots_.data() + (warp * 2 + fibers_[running_].shuffles++ % 2) * 32;
    slots[lane] = x;
    meet(lanes, 32);
    return slots[from];
  }

 private:
  struct Meeting {
    int arrived = 0, held = 0;
  };
  struct Fiber {
    ucontext_t context{};
    std::unique_ptr<char[]> stack = std::make_unique<char[]>(kStack);
    bool done = false;
    Meeting* waits_for = nullptr;
    int until = 0;
    unsigned shuffles = 0;
  };
  static constexpr std::size_t kStack = 128 * 1024;

  void run_threads() {
    fibers_in_use_ = size.x;
    if (size.x % 32 != 0 || size.y != 1 || size.z != 1)
      throw std::logic_error("emulation: blocks are whole warps in x");
    while (fibers_.size() < fibers_in_use_) fibers_.emplace_back();
    warps_.assign(fibers_in_use_ / 32, {});
    slots_.assign(fibers_in_use_ * 2, 0);
    whole_ = {};
    for (std::size_t i = 0; i < fibers_in_use_; ++i) {
      Fiber& f = fibers_[i];
      f.done = false, f.waits_for = nullptr, f.shuffles = 0;
      getcontext(&f.context);
      f.context.uc_stack.ss_sp = f.stack.get();
      f.context.uc_stack.ss_size = kStack;
      f.context.uc_link = &scheduler_;
      makecontext(&f.context, &Block::enter, 0);
    }
    for (std::size_t left = fibers_in_use_; left > 0;) {
      bool moved = false;
      for (std::size_t i = 0; i < fibers_in_use_; ++i) {
        Fiber& f = fibers_[i];
        if (f.done || (f.waits_for && f.waits_for->held < f.until)) continue;
        moved = true;
        f.waits_for = nullptr;
        running_ = i;
        thread = dim3(static_cast<unsigned>(i), 0, 0);
        swapcontext(&scheduler_, &f.context);
        if (f.done) --left;
      }
      if (!moved) throw std::logic_error("emulation: some threads wait where others never come");
    }
  }

  static void enter() {
    Block& block = now();
    (*block.kernel_)();
    block.fibers_[block.running_].done = true;
  }

  void meet(Meeting& meeting, int expected) {
    Fiber& f = fibers_[running_];
    f.waits_for = &meeting;
    f.until = meeting.held + 1;
    if (++meeting.arrived == expected) meeting.arrived = 0, ++meeting.held;
    swapcontext(&f.context, &scheduler_);
  }

  const std::function<void()>* kernel_ = nullptr;
  ucontext_t scheduler_{};
  std::vector<Fiber> fibers_;
  std::vector<Meeting> warps_;
  std::vector<float> slots_;
  Meeting whole_;
  std::size_t running_ = 0, fibers_in_use_ = 0;
};

}  // namespace steer::model::detail::cuda::emulation

#define threadIdx (::steer::model::detail::cuda::emulation::Block::now().thread)
#define blockIdx (::steer::model::detail::cuda::emulation::Block::now().index)
#define blockDim (::steer::model::detail::cuda::emulation::Block::now().size)
#define gridDim (::steer::model::detail::cuda::emulation::Block::now().grid)

inline void __syncthreads() { ::steer::model::detail::cuda::emulation::Block::now().barrier(); }
inline float __shfl_xor_sync(unsigned, float x, int lanes) {
  const std::size_t lane = threadIdx.x % 32;
  return ::steer::model::detail::cuda::emulation::Block::now().exchange(x, lane ^ static_cast<std::size_t>(lanes));
}
inline float __shfl_sync(unsigned, float x, int lane) {
  return ::steer::model::detail::cuda::emulation::Block::now().exchange(x, static_cast<std::size_t>(lane));
}
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline float __fmul_rn(float a, float b) { return a * b; }

#define STEER_LAUNCH(kernel, grid, block, stream, ...) \
  (static_cast<void>(stream),                          \
   ::steer::model::detail::cuda::emulation::Block::now().run(grid, block, [=] { kernel(__VA_ARGS__); }))
