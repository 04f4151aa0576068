#pragma once
// The one way in which loops are built for several instruction sets. They stand in a file `<name>-inl.hpp`, which
// `steer_for_each_isa` (src/core/flags.cmake) compiles once for each, and which ends in a table of functions:
//
//   STEER_ISA_TABLE(Loops, loops) = {add, scale, ...};          in loops-inl.hpp, functions of an unnamed namespace
//   STEER_TABLE_IN_USE(Loops, loops)                            in one .cpp: defines `const Loops& loops()`
//
// What such a file calls must be its own: the linker keeps one copy of an inline function of a shared header, and that
// must not be the one with instructions an older machine lacks. So this header is plain data only, and the functions
// of <cmath> and <algorithm> are not used there.

#include <cstdint>

namespace steer::core::detail {

/// portable: SSE2, NEON, whatever the compiler has; avxvnni: AVX2, and AVX-VNNI's products of bytes; amx: AVX-512, and
/// AMX's tiles of bf16 for products.
enum class Isa : std::uint8_t { portable, avx2, avxvnni, avx512, amx };

/// Whether this machine and this build can run it.
bool isa_available(Isa isa) noexcept;
/// The best one available, or what the environment variable STEER_ISA names: to test or measure as on a lesser machine.
/// @throws Error(argument) when that is none, or not to be had here.
Isa isa_in_use();
/// For tests; the best one where it is not available. Not while other threads compute.
void set_isa_for_testing(Isa isa);

}  // namespace steer::core::detail

#define STEER_JOIN_NAMES(a, b) a##_##b
#define STEER_JOIN(a, b) STEER_JOIN_NAMES(a, b)
#define STEER_QUOTE_NAME(a) #a
#define STEER_QUOTE(a) STEER_QUOTE_NAME(a)

/// Begins the table that a file has for the instruction set STEER_ISA, which the build defines.
#define STEER_ISA_TABLE(Type, name)              \
  extern const Type STEER_JOIN(name, STEER_ISA); \
  const Type STEER_JOIN(name, STEER_ISA)

#if defined(__x86_64__)
#define STEER_TABLE_IN_USE(Type, name) STEER_TABLES_IN_USE(Type, name, name##_avx2, name##_avx512)
/// For loops that have tables of their own where there is AVX-VNNI or AMX.
#define STEER_TABLES_IN_USE(Type, name, avxvnni, amx)                                                     \
  extern const Type name##_portable, name##_avx2, avxvnni, name##_avx512, amx;                            \
  const Type& name() {                                                                                    \
    static const Type* const tables[] = {&name##_portable, &name##_avx2, &avxvnni, &name##_avx512, &amx}; \
    return *tables[static_cast<int>(core::detail::isa_in_use())];                                         \
  }
#else
#define STEER_TABLE_IN_USE(Type, name) \
  extern const Type name##_portable;   \
  const Type& name() { return name##_portable; }
#define STEER_TABLES_IN_USE(Type, name, avxvnni, amx) STEER_TABLE_IN_USE(Type, name)
#endif
