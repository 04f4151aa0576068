#pragma once
// What a Sae holds, and the steps of encode and decode that its files share.

#include <ATen/core/Tensor.h>

#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include <steer/sae/sae.hpp>

namespace steer {

struct Sae::Impl {
  SaeConfig config;
  /// Vectors are f32 already; the matrices W_enc and W_dec keep their stored dtype and strides.
  SaeWeights weights;
  std::filesystem::path path;

  const at::Tensor& W_enc() const { return in_f32(weights.W_enc, W_enc_once, W_enc_f32); }
  const at::Tensor& W_dec() const { return in_f32(weights.W_dec, W_dec_once, W_dec_f32); }

  mutable std::once_flag W_enc_once, W_dec_once, hash_once;
  mutable at::Tensor W_enc_f32, W_dec_f32;
  mutable std::string hash;
  /// The last set of features that encode_subset was asked for, with their rows: calls tend to repeat it.
  struct Subset {
    std::vector<std::int64_t> features;
    Sae sae;
  };
  mutable std::mutex subset_mutex;
  mutable std::shared_ptr<const Subset> subset;

 private:
  static const at::Tensor& in_f32(const at::Tensor& stored, std::once_flag& once, at::Tensor& converted);
};

namespace sae::detail {

/// An input made ready for the encoder, with what is needed to undo its normalisation.
struct SaeInput {
  at::Tensor raw;           ///< [tokens, d_in], f32, as given
  at::Tensor x;             ///< [tokens, d_in], f32, normalised
  at::Tensor scale, shift;  ///< [tokens, 1]: undo is `y * scale + shift`; undefined where there is nothing to undo
  std::vector<std::int64_t> leading;  ///< the dimensions in front of d_in
  std::vector<std::int64_t> shape;    ///< of the tensor given
};

/// @param where  the public function, for messages. @throws Error(shape) unless x ends in d_in.
SaeInput prepare(const Sae::Impl& sae, const at::Tensor& x, std::string_view where);

/// The activation functions in which features do not compete, of pre-activations z [tokens, n] of the n features whose
/// parameters are given. Overwrites z where no gradient is recorded.
at::Tensor per_feature_activation(SaeActivation activation, at::Tensor z, const SaeWeights& parameters);

/// `features` as an i64 tensor on `device`. @throws Error(argument) for an index outside [0, d_sae).
at::Tensor checked_indices(std::span<const std::int64_t> features, std::int64_t d_sae, at::Device device,
                           std::string_view where);

}  // namespace sae::detail
}  // namespace steer
