#include "core/isa.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <iterator>
#include <string_view>

#include <steer/core/error.hpp>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace steer::core::detail {
namespace {

constexpr std::string_view kNames[] = {"portable", "avx2", "avxvnni", "avx512", "amx"};

Isa best() {
  const char* value = std::getenv("STEER_ISA");
  if (value && *value) {
    const auto* known = std::ranges::find(kNames, std::string_view(value));
    const auto isa = static_cast<Isa>(known - std::begin(kNames));
    require(known != std::end(kNames) && isa_available(isa), ErrorCode::argument, "STEER_ISA",
            "expected portable, avx2, avxvnni, avx512 or amx, and this machine to have it, but got \"{}\"", value);
    return isa;
  }
  for (const Isa isa : {Isa::amx, Isa::avx512, Isa::avxvnni, Isa::avx2})
    if (isa_available(isa)) return isa;
  return Isa::portable;
}

#if defined(__x86_64__)
/// Clang's __builtin_cpu_supports knows no "f16c" before version 19.
bool has_f16c() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

/// AVX-VNNI (clang's __builtin_cpu_supports does not know it).
bool has_avxvnni() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1) == 1;
}

/// Whether there are tiles with products of bf16, and the kernel lets this process use them: their state is large, so
/// Linux saves it only for those that ask (Documentation/arch/x86/xstate.rst).
bool may_use_tiles() noexcept {
#if defined(__linux__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kBf16) == 0 || (d & kTile) == 0) return false;
  constexpr long kGetPermission = 0x1022, kAskPermission = 0x1023, kTileData = 18;
  std::uint64_t permitted = 0;
  return syscall(SYS_arch_prctl, kAskPermission, kTileData) == 0 &&
         syscall(SYS_arch_prctl, kGetPermission, &permitted) == 0 && (permitted >> kTileData & 1) == 1;
#else
  return false;
#endif
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
  if (isa == Isa::avxvnni) return avx2 && has_avxvnni();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (isa == Isa::avx512) return avx512;
  if (isa == Isa::amx) {
    static const bool tiles = avx512 && __builtin_cpu_supports("avx512bf16") && may_use_tiles();
    return tiles;
  }
#endif
  return isa == Isa::portable;
}

Isa isa_in_use() { return current().load(std::memory_order_relaxed); }

void set_isa_for_testing(Isa isa) { current().store(isa_available(isa) ? isa : best()); }

}  // namespace steer::core::detail
