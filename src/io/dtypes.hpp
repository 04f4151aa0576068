#pragma once

#include <c10/core/ScalarType.h>

#include <string_view>

namespace steer::io::detail {

/// One data type as safetensors names it. `type` is Undefined where libtorch has no equal.
struct Dtype {
  std::string_view name;
  at::ScalarType type;
  int bits;
};

/// The types of the safetensors format (github.com/huggingface/safetensors, `Dtype`).
inline constexpr Dtype kDtypes[] = {
    {"BOOL", at::ScalarType::Bool, 8},
    {"U8", at::ScalarType::Byte, 8},
    {"I8", at::ScalarType::Char, 8},
    {"F8_E4M3", at::ScalarType::Float8_e4m3fn, 8},
    {"F8_E5M2", at::ScalarType::Float8_e5m2, 8},
    {"F8_E4M3FNUZ", at::ScalarType::Float8_e4m3fnuz, 8},
    {"F8_E5M2FNUZ", at::ScalarType::Float8_e5m2fnuz, 8},
    {"F8_E8M0", at::ScalarType::Float8_e8m0fnu, 8},
    {"I16", at::ScalarType::Short, 16},
    {"U16", at::ScalarType::UInt16, 16},
    {"F16", at::ScalarType::Half, 16},
    {"BF16", at::ScalarType::BFloat16, 16},
    {"I32", at::ScalarType::Int, 32},
    {"U32", at::ScalarType::UInt32, 32},
    {"F32", at::ScalarType::Float, 32},
    {"C64", at::ScalarType::ComplexFloat, 64},
    {"F64", at::ScalarType::Double, 64},
    {"I64", at::ScalarType::Long, 64},
    {"U64", at::ScalarType::UInt64, 64},
    {"F4", at::ScalarType::Undefined, 4},
    {"F6_E2M3", at::ScalarType::Undefined, 6},
    {"F6_E3M2", at::ScalarType::Undefined, 6},
};

inline const Dtype* find_dtype(std::string_view name) {
  for (const auto& dtype : kDtypes)
    if (dtype.name == name) return &dtype;
  return nullptr;
}

/// The name of a libtorch type in messages and `TensorInfo::storage`; libtorch's own for one without a row here.
inline std::string_view dtype_name(at::ScalarType type) {
  for (const auto& dtype : kDtypes)
    if (dtype.type == type) return dtype.name;
  return c10::toString(type);
}

}  // namespace steer::io::detail
