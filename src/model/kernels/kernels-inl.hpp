// The kernels of one instruction set. The including file has its compile flags and defines
//   STEER_ISA_TABLE   the name of the table it defines in steer::model::detail
//   STEER_ISA_NAME    its name for messages
// Everything but the table has internal linkage, so that no two of these files share a function.

#include <cstdint>
#include <type_traits>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "model/kernels/isa.hpp"

namespace steer::model::detail {
namespace {

// IEEE half to float, for instruction sets without a conversion.
[[maybe_unused]] inline float half_to_float(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000) << 16;
  std::uint32_t exponent = h >> 10 & 31, mantissa = h & 1023, bits;
  if (exponent == 31) {
    bits = sign | 0x7f800000 | mantissa << 13;
  } else if (exponent != 0) {
    bits = sign | (exponent + 112) << 23 | mantissa << 13;
  } else {
    const float value = static_cast<float>(mantissa) * 5.9604644775390625e-8f;  // 2^-24
    __builtin_memcpy(&bits, &value, sizeof bits);
    bits |= sign;
  }
  float out;
  __builtin_memcpy(&out, &bits, sizeof out);
  return out;
}

#include "model/kernels/vec-inl.hpp"
//
#include "model/kernels/formats-inl.hpp"
//
#include "model/kernels/product-inl.hpp"
#ifdef STEER_KERNEL_ROUNDED
//
#include "model/kernels/rounded-inl.hpp"
#endif
//

#define STEER_FOR_TYPE(type, call) \
  switch (type) {                  \
    case WeightType::f32:          \
      return call<FormatF32>;      \
    case WeightType::f16:          \
      return call<FormatF16>;      \
    case WeightType::bf16:         \
      return call<FormatBf16>;     \
    case WeightType::int8:         \
      return call<FormatInt8>;     \
    case WeightType::q4_0:         \
      return call<FormatQ4_0>;     \
    case WeightType::q4_1:         \
      return call<FormatQ4_1>;     \
    case WeightType::q5_0:         \
      return call<FormatQ5_0>;     \
    case WeightType::q5_1:         \
      return call<FormatQ5_1>;     \
    case WeightType::q8_0:         \
      return call<FormatQ8_0>;     \
    case WeightType::q4_k:         \
      return call<FormatQ4_K>;     \
    case WeightType::q5_k:         \
      return call<FormatQ5_K>;     \
    case WeightType::q6_k:         \
      return call<FormatQ6_K>;     \
    case WeightType::mxfp4:        \
      return call<FormatMxFp4>;    \
  }                                \
  return nullptr

inline auto product_for(WeightType type) -> void (*)(const ProductArgs&, std::int64_t, std::int64_t, float*) {
  STEER_FOR_TYPE(type, product_of);
}
inline auto decode_for(WeightType type) -> void (*)(const WeightView&, std::int64_t, float*) {
  STEER_FOR_TYPE(type, decode_of);
}
#undef STEER_FOR_TYPE

void product(const ProductArgs& a, std::int64_t begin, std::int64_t end, float* scratch) {
#ifdef STEER_KERNEL_ROUNDED
  if (a.rounding != Rounding::none) return rounded_product(a, begin, end);
#endif
  product_for(a.weight.type)(a, begin, end, scratch);
}

bool rounds([[maybe_unused]] WeightType type, [[maybe_unused]] Rounding rounding) {
#ifdef STEER_KERNEL_ROUNDED
  return rounds_type(type, rounding);
#else
  return false;
#endif
}

void pack(const ProductArgs& a, std::int64_t begin, std::int64_t end, float* packed) {
#ifdef STEER_KERNEL_ROUNDED
  if (a.rounding == Rounding::bf16) return pack_bf16(a, begin, end, packed);
  if (a.rounding == Rounding::int8) return pack_int8(a, begin, end, packed);
#endif
  pack_rows(a, begin, end, packed);
}

void decode_row(const WeightView& w, std::int64_t row, float* out) { decode_for(w.type)(w, row, out); }

}  // namespace

extern const KernelTable STEER_ISA_TABLE;
const KernelTable STEER_ISA_TABLE = {STEER_ISA_NAME, product, decode_row, rounds, pack};

}  // namespace steer::model::detail
