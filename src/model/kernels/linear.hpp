#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string_view>

#include "model/kernels/table.hpp"

namespace steer::model::detail {

/// The weight of a linear map or an embedding, [out, in], kept in memory as it came (mapped f32, f16, bf16; GGUF
/// blocks) or quantised to int8. Immutable; copies share the memory; any number of threads may use one.
///
/// Products accumulate in f32 and take the weight as it is: no rounding of activations. Each element of y is summed
/// over k in one fixed order that depends on `in` and on the machine's instruction set, not on how many rows x has, on
/// the other rows or on the number of threads: on the CPU a row's bits are the same alone and in any batch.
class Linear {
 public:
  Linear() = default;

  /// @param weight  [out, in] f32, f16 or bf16, contiguous (else copied); used in place, its memory kept alive.
  /// @param bias    [out] of any float type, or undefined.
  /// @throws Error(shape | unsupported).
  static Linear dense(at::Tensor weight, at::Tensor bias = {});
  /// Quantises [out, in] to int8: symmetric, one scale for each group of 32 along a row.
  static Linear int8(const at::Tensor& weight, at::Tensor bias = {});
  /// GGUF blocks as the file holds them.
  /// @param raw      u8, the tensor's stored bytes (`TensorReader::raw`), kept alive.
  /// @param storage  GGUF's name of the type, e.g. "Q4_K"; `keeps_blocks(storage)` must hold.
  /// @throws Error(unsupported | shape | format).
  static Linear blocks(at::Tensor raw, std::string_view storage, std::int64_t out, std::int64_t in,
                       at::Tensor bias = {});
  /// Whether `blocks` takes this type; others are for the reader to dequantise.
  static bool keeps_blocks(std::string_view storage);

  bool defined() const { return data_.defined(); }
  std::int64_t out_features() const { return view_.n; }
  std::int64_t in_features() const { return view_.k; }
  WeightType type() const { return view_.type; }
  at::Device device() const { return data_.device(); }
  /// Bytes the weight and bias take.
  std::int64_t bytes() const;

  /// y = x W^T + bias. x [..., in] on the weight's device -> [..., out] of x's dtype. f32 on the CPU runs the kernels
  /// here; anything else, and x under autograd, runs `at::linear`.
  /// @throws Error(shape) unless x's last dimension is `in`.
  at::Tensor operator()(const at::Tensor& x) const;

  /// The same on raw memory, CPU only: x [m, in] and y [m, out], f32, contiguous. Where this machine can for this kind
  /// of weight, x is rounded first.
  void apply(const float* x, std::int64_t m, float* y, Rounding rounding = Rounding::none) const;

  /// Rows of W as f32, [ids, in]: an embedding look-up. `ids` must lie in [0, out).
  at::Tensor gather(std::span<const std::int64_t> ids) const;
  /// All of W as f32 [out, in], a new tensor unless W is f32 already.
  at::Tensor to_f32() const;
  /// On another device, kept as it is; but GGUF blocks become f32 (MXFP4: bf16) on a card that this build has no
  /// kernels for.
  Linear to(at::Device device) const;

  /// Rows [begin, end) of W, sharing its memory, and their bias.
  Linear rows(std::int64_t begin, std::int64_t end) const;
  /// Columns [begin, end) of W, copied; the bias too where asked for. Where they do not begin and end with a block of
  /// W's format they become f32.
  Linear columns(std::int64_t begin, std::int64_t end, bool with_bias) const;

  /// f32, f16 and bf16: [out, in] as it is kept.
  const at::Tensor& matrix() const { return data_; }
  const at::Tensor& bias() const { return bias_; }
  const WeightView& view() const { return view_; }

 private:
  bool is_blocks() const { return data_.scalar_type() == at::kByte; }
  /// This weight with a part of its memory.
  Linear with(at::Tensor data, at::Tensor scales, at::Tensor bias, std::int64_t out, std::int64_t in) const;

  at::Tensor data_;    // owns view_.data
  at::Tensor scales_;  // owns view_.scales
  at::Tensor bias_;    // f32 [out] or undefined
  WeightView view_;
};

/// One product of `apply_together`.
struct LinearCall {
  const Linear* weight;
  float* y;          ///< [m, out], rows at stride ldy
  std::int64_t ldy;  ///< 0: out
};

/// Several weights applied to the same x [m, in] in one parallel region (q, k and v; gate and up): saves the start and
/// end of a region for each. CPU, f32.
void apply_together(const float* x, std::int64_t m, std::span<const LinearCall> calls,
                    Rounding rounding = Rounding::none);

/// An x [m, in] and the weights applied to it.
struct LinearGroup {
  const float* x;
  std::int64_t m;
  std::span<const LinearCall> calls;
};

/// The same of several x, each with weights of its own (experts): as many groups in a region as have a few hundred
/// rows.
void apply_together(std::span<const LinearGroup> groups, Rounding rounding = Rounding::none);

}  // namespace steer::model::detail
