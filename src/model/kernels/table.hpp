#pragma once
// The table of products of weights with activations: kernels-inl.hpp, built for each instruction set (core/isa.hpp).

#include <cstdint>

namespace steer::model::detail {

/// How a weight's numbers are laid out in memory.
enum class WeightType : std::uint8_t {
  f32,
  f16,
  bf16,
  int8,  ///< int8 values and, apart, one f32 scale for each group of 32 along a row
  // GGUF blocks along a row, as ggml defines them (ggml-common.h); 32 values a block, 256 for the K kinds.
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q4_k,
  q5_k,
  q6_k,
  mxfp4,
};

/// A weight [n, k] as the kernels see it.
struct WeightView {
  WeightType type = WeightType::f32;
  const void* data = nullptr;
  const float* scales = nullptr;  ///< int8 only: [n, ceil(k / 32)]
  std::int64_t n = 0, k = 0;
  std::int64_t row_bytes = 0;
};

/// What x is rounded to before a product: nothing; bf16; 8 bits and a scale for each group of 32 along k.
enum class Rounding : std::uint8_t { none, bf16, int8 };

/// y[i, j] = x[i, :] . W[j, :] + bias[j] for i in [0, m), j in [begin, end).
struct ProductArgs {
  WeightView weight;
  const float* bias = nullptr;  ///< [n] or null
  const float* x = nullptr;     ///< rows at stride ldx
  std::int64_t ldx = 0, m = 0;
  float* y = nullptr;  ///< rows at stride ldy; column j of W's row j
  std::int64_t ldy = 0;
  Rounding rounding = Rounding::none;
  const float* packed = nullptr;  ///< x by `KernelTable::pack_rows`, rounded
};

/// Floats of working memory that `KernelTable::product` wants.
inline constexpr std::int64_t kScratchFloats = 28 << 10;
/// k is padded to a multiple of this in packed rows.
inline constexpr std::int64_t kPackedGroup = 32;

struct KernelTable {
  const char* name;
  /// Rows [begin, end) of W, with x packed. `scratch` holds kScratchFloats, aligned to 64 bytes.
  void (*product)(const ProductArgs&, std::int64_t begin, std::int64_t end, float* scratch);
  /// Row `row` of W as f32.
  void (*decode_row)(const WeightView&, std::int64_t row, float* out);
  /// Whether there is a product with x rounded so.
  bool (*rounds)(WeightType, Rounding);
  /// Numbers [begin, end) of k of a's x, packed for its product, as m rows of k padded; begin is a multiple of
  /// kPackedGroup. One row of whole groups is packed as it is.
  void (*pack_rows)(const ProductArgs& a, std::int64_t begin, std::int64_t end, float* packed);
};

const KernelTable& kernels();

}  // namespace steer::model::detail
