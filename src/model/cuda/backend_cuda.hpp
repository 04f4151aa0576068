#pragma once

#include "model/backend.hpp"

namespace steer::model::detail {

/// Our kernels on the card. What they do not do (an attention pattern that is looked at, recurrent layers) libtorch's
/// operators do there.
///
/// Products of up to eight rows take the weights as they are kept and round nothing. Products of more rows, unless
/// `batch_invariant`, are matrix products of the card's own kind: 16-bit weights and blocks then meet activations
/// rounded to 16 bits, summed in f32; f32 weights stay f32.
class CudaBackend final : public AtenBackend {
 public:
  using AtenBackend::AtenBackend;
  void begin(std::int64_t tokens) override;
  at::Tensor norm(const at::Tensor& x, const Norm& norm, bool with_gain) override;
  void gain(at::Tensor& x, const Norm& norm) override;
  void norm_heads(at::Tensor& x, const Norm& norm) override;
  void rotate(at::Tensor& x, const RopeTables::Rows& rope) override;
  void store(std::int64_t layer, const at::Tensor& k, const at::Tensor& v, const Rows& rows) override;
  at::Tensor attend(std::int64_t layer, const at::Tensor& q, const Rows& rows) override;
  void activate(at::Tensor& gate, const at::Tensor& up) override;
  void gate(at::Tensor& x, const at::Tensor& by) override;
  void scale_rows(at::Tensor& x, const at::Tensor& factors) override;
  void add(at::Tensor& x, const at::Tensor& y) override;

 protected:
  at::Tensor product(const at::Tensor& x, const Linear& weight, const Rows& rows) const override;

 private:
  at::Tensor matrix_product(const at::Tensor& x, const Linear& weight) const;
};

}  // namespace steer::model::detail
