#pragma once
// How much memory a piece of code takes at most, beyond what the process had.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>

#include "sanitized.hpp"

#if defined(STEER_ADDRESS_SANITIZER)
#include <atomic>

// Of sanitizer/allocator_interface.h, which gcc 12 does not install; its libasan has them.
extern "C" {
std::size_t __sanitizer_get_allocated_size(const volatile void* block);
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void*, std::size_t),
                                              void (*on_free)(const volatile void*));
}
#endif

namespace steer::test {

#if defined(STEER_ADDRESS_SANITIZER)
// Resident memory would show the sanitizer's own; so count the live bytes of the heap.
struct HeapCount {
  static inline std::atomic<std::int64_t> live{0}, peak{0};
  static void on_malloc(const volatile void* block, std::size_t) {
    const auto now = live += static_cast<std::int64_t>(__sanitizer_get_allocated_size(block));
    for (auto top = peak.load(); now > top && !peak.compare_exchange_weak(top, now);) {
    }
  }
  static void on_free(const volatile void* block) {
    if (block) live -= static_cast<std::int64_t>(__sanitizer_get_allocated_size(block));
  }
};

class PeakMemory {
 public:
  PeakMemory() {
    static const int installed = __sanitizer_install_malloc_and_free_hooks(HeapCount::on_malloc, HeapCount::on_free);
    (void)installed;
    begin_ = HeapCount::live;
    HeapCount::peak = begin_;
  }
  std::int64_t bytes() const { return HeapCount::peak - begin_; }

 private:
  std::int64_t begin_;
};
#else
class PeakMemory {
 public:
  PeakMemory() {
    std::ofstream("/proc/self/clear_refs") << 5;  // sets the peak to the present size
    begin_ = status("VmHWM:");
  }
  std::int64_t bytes() const { return status("VmHWM:") - begin_; }

 private:
  static std::int64_t status(const std::string& field) {
    std::ifstream file("/proc/self/status");
    for (std::string word; file >> word;)
      if (word == field) {
        std::int64_t kilobytes = 0;
        file >> kilobytes;
        return kilobytes * 1024;
      }
    return 0;
  }
  std::int64_t begin_;
};
#endif

}  // namespace steer::test
