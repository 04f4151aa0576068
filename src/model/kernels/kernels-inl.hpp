// The products of one instruction set (core/isa.hpp). Everything but the table has internal linkage, so that no two of
// these objects share a function.

#include <cstdint>
#include <type_traits>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "core/isa.hpp"
#include "io/ggml_blocks.hpp"
#include "model/kernels/table.hpp"

namespace steer::model::detail {
namespace {

#include "model/kernels/vec-inl.hpp"
//
#include "model/kernels/formats-inl.hpp"
//
#include "model/kernels/product-inl.hpp"
#ifdef STEER_KERNEL_X86
//
#include "model/kernels/int8_panels-inl.hpp"
#if defined(__AVX512F__)
#define STEER_VNNI "avx512vnni"
#else
#define STEER_KERNEL_AVXVNNI 1
namespace with_avx2 {
#include "model/kernels/int8-inl.hpp"
//
#include "model/kernels/int8_strips-inl.hpp"
}  // namespace with_avx2
using with_avx2::product_int8_for;
#define STEER_VNNI "avxvnni"
#endif
namespace with_vnni {
#include "model/kernels/int8-inl.hpp"
//
#include "model/kernels/int8_strips-inl.hpp"
}  // namespace with_vnni
#if defined(__AVX512F__)
using with_vnni::product_int8_for;
#endif
#endif
#ifdef STEER_KERNEL_BF16
//
#include "model/kernels/bf16-inl.hpp"
//
#include "model/kernels/amx-inl.hpp"
#endif

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
#ifdef STEER_KERNEL_BF16
inline auto product_bf16_for(WeightType type) -> void (*)(const ProductArgs&, std::int64_t, std::int64_t, float*) {
  STEER_FOR_TYPE(type, product_bf16);
}
inline auto product_amx_for(WeightType type) -> void (*)(const ProductArgs&, std::int64_t, std::int64_t, float*) {
  STEER_FOR_TYPE(type, product_amx);
}
#endif
#undef STEER_FOR_TYPE

bool rounds([[maybe_unused]] WeightType type, [[maybe_unused]] Rounding rounding) {
#ifdef STEER_KERNEL_X86
  if (rounding == Rounding::int8) return product_int8_for(type) != nullptr;
#endif
#ifdef STEER_KERNEL_BF16
  if (rounding == Rounding::bf16) return multiplies_bf16(type);
#endif
  return false;
}

void product(const ProductArgs& a, std::int64_t begin, std::int64_t end, float* scratch) {
#ifdef STEER_KERNEL_X86
  if (a.rounding == Rounding::int8) return product_int8_for(a.weight.type)(a, begin, end, scratch);
#endif
#ifdef STEER_KERNEL_BF16
  if (a.rounding == Rounding::bf16) return product_bf16_for(a.weight.type)(a, begin, end, scratch);
#endif
  product_for(a.weight.type)(a, begin, end, scratch);
}

void pack(const ProductArgs& a, std::int64_t begin, std::int64_t end, float* packed) {
#ifdef STEER_KERNEL_X86
  if (a.rounding == Rounding::int8) return pack_int8(a, begin, end, packed);
#endif
#ifdef STEER_KERNEL_BF16
  if (a.rounding == Rounding::bf16) return pack_bf16(a, begin, end, packed);
#endif
  pack_rows(a, begin, end, packed);
}

void decode_row(const WeightView& w, std::int64_t row, float* out) { decode_for(w.type)(w, row, out); }

#ifdef STEER_KERNEL_AVXVNNI
void product_with_vnni(const ProductArgs& a, std::int64_t begin, std::int64_t end, float* scratch) {
  (a.rounding == Rounding::int8 ? with_vnni::product_int8_for(a.weight.type) : product)(a, begin, end, scratch);
}
#endif

#ifdef STEER_KERNEL_BF16
void product_with_tiles(const ProductArgs& a, std::int64_t begin, std::int64_t end, float* scratch) {
  (a.rounding == Rounding::bf16 ? product_amx_for(a.weight.type) : product)(a, begin, end, scratch);
}

void pack_with_tiles(const ProductArgs& a, std::int64_t begin, std::int64_t end, float* packed) {
  (a.rounding == Rounding::bf16 ? pack_tiles : pack)(a, begin, end, packed);
}
#endif

}  // namespace

STEER_ISA_TABLE(KernelTable, kernels) = {STEER_QUOTE(STEER_ISA), product, decode_row, rounds, pack};
#ifdef STEER_KERNEL_AVXVNNI
STEER_ISA_TABLE(KernelTable, kernels_with_vnni) = {"avxvnni", product_with_vnni, decode_row, rounds, pack};
#endif
#ifdef STEER_KERNEL_BF16
STEER_ISA_TABLE(KernelTable, kernels_with_tiles) = {"amx", product_with_tiles, decode_row, rounds, pack_with_tiles};
#endif

}  // namespace steer::model::detail
