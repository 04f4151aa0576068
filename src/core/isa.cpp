#include "core/isa.hpp"

#include <atomic>
#include <cstdlib>
#include <string_view>

#include <steer/core/error.hpp>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace steer::core::detail {
namespace {

Isa best() {
  const char* value = std::getenv("STEER_ISA");
  if (value && *value) {
    const std::string_view name(value);
    const Isa isa = name == "avx512" ? Isa::avx512 : name == "avx2" ? Isa::avx2 : Isa::portable;
    require((isa != Isa::portable || name == "portable") && isa_available(isa), ErrorCode::argument, "STEER_ISA",
            "expected portable, avx2 or avx512, and this machine to have it, but got \"{}\"", name);
    return isa;
  }
  return isa_available(Isa::avx512) ? Isa::avx512 : isa_available(Isa::avx2) ? Isa::avx2 : Isa::portable;
}

#if defined(__x86_64__)
/// Clang's __builtin_cpu_supports knows no "f16c" before version 19.
bool has_f16c() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

std::atomic<Isa>& current() {
  static std::atomic<Isa> isa{best()};
  return isa;
}

}  // namespace

bool isa_available(Isa isa) noexcept {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  if (isa == Isa::avx2) return avx2;
  if (isa == Isa::avx512) {
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  }
#endif
  return isa == Isa::portable;
}

Isa isa_in_use() { return current().load(std::memory_order_relaxed); }

void set_isa_for_testing(Isa isa) { current().store(isa_available(isa) ? isa : best()); }

}  // namespace steer::core::detail
