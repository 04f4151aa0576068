#include "model/kernels/isa.hpp"

#include <atomic>
#include <cstdlib>
#include <string_view>

#include <steer/core/error.hpp>

namespace steer::model::detail {

extern const KernelTable kernels_portable;
#if defined(__x86_64__)
extern const KernelTable kernels_avx2;
extern const KernelTable kernels_avx512;
#endif

namespace {

const KernelTable* table_of(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx2) return &kernels_avx2;
  if (isa == Isa::avx512) return &kernels_avx512;
#endif
  return isa == Isa::portable ? &kernels_portable : nullptr;
}

/// The one that the environment variable STEER_ISA names, to measure or test as on a lesser machine; null: none.
const KernelTable* demanded() {
  const char* value = std::getenv("STEER_ISA");
  if (!value || *value == 0) return nullptr;
  const std::string_view name(value);
  const Isa isa = name == "avx512" ? Isa::avx512 : name == "avx2" ? Isa::avx2 : Isa::portable;
  require((isa != Isa::portable || name == "portable") && isa_available(isa), ErrorCode::argument, "STEER_ISA",
          "expected portable, avx2 or avx512, and this machine to have it, but got \"{}\"", name);
  return table_of(isa);
}

const KernelTable* best() {
  if (const KernelTable* table = demanded()) return table;
  for (Isa isa : {Isa::avx512, Isa::avx2}) {
    if (isa_available(isa)) return table_of(isa);
  }
  return &kernels_portable;
}

std::atomic<const KernelTable*>& current() {
  static std::atomic<const KernelTable*> table{best()};
  return table;
}

}  // namespace

bool isa_available(Isa isa) noexcept {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (isa == Isa::avx2) return avx2;
  if (isa == Isa::avx512) {
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  }
#endif
  return isa == Isa::portable;
}

const KernelTable& kernels() noexcept { return *current().load(std::memory_order_relaxed); }

void set_isa_for_testing(Isa isa) { current().store(isa_available(isa) ? table_of(isa) : best()); }

}  // namespace steer::model::detail
