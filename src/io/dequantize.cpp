#include "io/dequantize.hpp"

#include "core/crew.hpp"
#include "core/isa.hpp"

namespace steer::io::detail {

STEER_TABLE_IN_USE(DequantizeKernels, dequantize_kernels)

namespace {

constexpr auto kFloat = at::ScalarType::Float;
constexpr auto kNone = at::ScalarType::Undefined;

constexpr GgmlType kTypes[] = {
    {0, "F32", 1, 4, kFloat},
    {1, "F16", 1, 2, at::ScalarType::Half},
    {2, "Q4_0", 32, 18, kFloat},
    {3, "Q4_1", 32, 20, kFloat},
    {6, "Q5_0", 32, 22, kFloat},
    {7, "Q5_1", 32, 24, kFloat},
    {8, "Q8_0", 32, 34, kFloat},
    {9, "Q8_1", 32, 36, kNone},
    {10, "Q2_K", 256, 84, kFloat},
    {11, "Q3_K", 256, 110, kFloat},
    {12, "Q4_K", 256, 144, kFloat},
    {13, "Q5_K", 256, 176, kFloat},
    {14, "Q6_K", 256, 210, kFloat},
    {15, "Q8_K", 256, 292, kNone},
    {16, "IQ2_XXS", 256, 66, kNone},
    {17, "IQ2_XS", 256, 74, kNone},
    {18, "IQ3_XXS", 256, 98, kNone},
    {19, "IQ1_S", 256, 50, kNone},
    {20, "IQ4_NL", 32, 18, kFloat},
    {21, "IQ3_S", 256, 110, kNone},
    {22, "IQ2_S", 256, 82, kNone},
    {23, "IQ4_XS", 256, 136, kFloat},
    {24, "I8", 1, 1, at::ScalarType::Char},
    {25, "I16", 1, 2, at::ScalarType::Short},
    {26, "I32", 1, 4, at::ScalarType::Int},
    {27, "I64", 1, 8, at::ScalarType::Long},
    {28, "F64", 1, 8, at::ScalarType::Double},
    {29, "IQ1_M", 256, 56, kNone},
    {30, "BF16", 1, 2, at::ScalarType::BFloat16},
    {34, "TQ1_0", 256, 54, kNone},
    {35, "TQ2_0", 256, 66, kNone},
    {39, "MXFP4", 32, 17, kFloat},
    {40, "NVFP4", 64, 36, kNone},
};

}  // namespace

const GgmlType* find_ggml_type(std::uint32_t id) {
  for (const auto& type : kTypes)
    if (type.id == id) return &type;
  return nullptr;
}

const GgmlType* find_ggml_type(std::string_view name) {
  for (const auto& type : kTypes)
    if (type.name == name) return &type;
  return nullptr;
}

DequantizeKernel dequantize_kernel(const GgmlType& type) { return dequantize_kernels().of(type.id); }

void dequantize(const GgmlType& type, const std::byte* data, std::int64_t blocks, float* out) {
  const auto kernel = dequantize_kernel(type);
  // 16,384 values a task: below that, waking a thread costs more than it saves.
  const auto grain = 16384 / type.block_values;
  core::detail::run_shares(blocks, grain, [&](std::int64_t begin, std::int64_t end) {
    kernel(data + begin * type.block_bytes, end - begin, out + begin * type.block_values);
  });
}

}  // namespace steer::io::detail
