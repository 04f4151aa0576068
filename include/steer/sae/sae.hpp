#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <steer/core/enum.hpp>
#include <steer/model/hooks.hpp>

namespace steer {

/// How pre-activations become feature activations. Formulas: docs/sae-formats.md.
enum class SaeActivation { relu, jumprelu, topk, batchtopk, abstopk, gated, groupmax, matching_pursuit };

template <>
struct EnumTable<SaeActivation> {
  static constexpr std::string_view name = "SAE activation";
  static constexpr EnumEntry<SaeActivation> entries[] = {
      {SaeActivation::relu, "relu"},         {SaeActivation::jumprelu, "jumprelu"},
      {SaeActivation::topk, "topk"},         {SaeActivation::batchtopk, "batchtopk"},
      {SaeActivation::abstopk, "abstopk"},   {SaeActivation::gated, "gated"},
      {SaeActivation::groupmax, "groupmax"}, {SaeActivation::matching_pursuit, "matching_pursuit"}};
};

/// What happens to the input before encoding and to the output after decoding.
enum class SaeNormalization { none, constant_norm_rescale, layer_norm };

template <>
struct EnumTable<SaeNormalization> {
  static constexpr std::string_view name = "SAE normalisation";
  static constexpr EnumEntry<SaeNormalization> entries[] = {
      {SaeNormalization::none, "none"},
      {SaeNormalization::constant_norm_rescale, "constant_norm_rescale"},
      {SaeNormalization::layer_norm, "layer_norm"}};
};

/// What a file says of an SAE besides its weights.
struct SaeConfig {
  std::int64_t d_in = 0, d_out = 0, d_sae = 0;
  SaeActivation activation = SaeActivation::relu;
  std::int64_t k = 0;                     ///< topk, abstopk: kept a token; groupmax: groups; matching_pursuit: steps
  double residual_threshold = 0;          ///< matching_pursuit: a token stops when |residual| is below; 0: never
  bool stop_on_duplicate_support = true;  ///< matching_pursuit: a token stops when a step adds no new feature
  SaeNormalization normalization = SaeNormalization::none;
  bool subtract_b_dec = false;  ///< encode x - b_dec (after the normalisation)
  bool transcoder = false;      ///< reads one place and writes another; the normalisation of the output does not apply
  bool reshape_hook_z = false;  ///< also takes [.., heads, d_head] and gives reconstructions back in that shape
  std::optional<HookPoint> hook_in{}, hook_out{};  ///< where it was trained, as far as steer's sites can name it
  std::string hook_name{};                         ///< the same as the file writes it; may be empty
  std::string format{};                            ///< the layout it came from: "saelens", "gemma_scope", ...
  std::string model_name{};                        ///< what the file says; may be empty
};

/// The tensors of an SAE in canonical orientation, of any floating dtype and strides. Absent ones stay undefined.
struct SaeWeights {
  at::Tensor W_enc{};                     ///< [d_in, d_sae]
  at::Tensor b_enc{};                     ///< [d_sae]; absent for gated and matching_pursuit
  at::Tensor W_dec{};                     ///< [d_sae, d_out]
  at::Tensor b_dec{};                     ///< [d_out]
  at::Tensor threshold{};                 ///< [d_sae]; jumprelu, batchtopk
  at::Tensor b_gate{}, r_mag{}, b_mag{};  ///< [d_sae]; gated
  at::Tensor W_skip{};  ///< [d_out, d_in]; the raw input, before any normalisation, times this is added to the output
  at::Tensor selection_scale{};  ///< [d_sae]; topk: features are ranked by z times this (OpenMOSS's decoder-norm gate)
};

/// Feature activations of some tokens, only those that are not zero: token r holds entries
/// [offsets[r], offsets[r+1]) of `index` and `value`, by descending absolute value.
struct SparseActivations {
  at::Tensor offsets;  ///< [tokens + 1], i64
  at::Tensor index;    ///< [entries], i64
  at::Tensor value;    ///< [entries], f32
  std::int64_t d_sae = 0;
  at::Tensor dense() const;  ///< [tokens, d_sae], f32
};

/// Choices a file leaves open.
struct SaeLoadOptions {
  at::Device device = at::kCPU;
  std::optional<double> norm_scaling_factor{};  ///< s = sqrt(d_in) / mean |x|, for files trained with
                                                ///< expected_average_only_in that do not carry it
  std::optional<std::int64_t> k{};              ///< for layouts that name k only in the repository's name
  bool saelens_llama_scope = false;             ///< gate Llama Scope files as SAELens does, not as their publisher
};

/// A sparse autoencoder (or transcoder) in canonical form: z = x~ W_enc + b_enc; f = act(z); x^ = f W_dec + b_dec.
/// Immutable, cheap to copy, safe to share between threads. Arithmetic is f32 whatever the input's dtype; results are
/// f32 on the SAE's device. `x` may have any leading dimensions: [.., d_in]. Gradients flow to an `x` that asks for
/// them.
class Sae {
 public:
  /// From a file or folder of any layout of docs/sae-formats.md, chosen by key and config, never by shape alone.
  /// Weights that need no change are used in place (mapped).
  /// @throws Error(unsupported) for crosscoders and unknown layouts, naming the key that decided it;
  ///         Error(io | format | shape | config) naming the file, tensor or key.
  static Sae load(const std::filesystem::path& path, const SaeLoadOptions& options = {});
  /// From tensors in memory. @throws Error(shape | config) unless they fit the configuration; dimensions left 0 in it
  /// are taken from the tensors.
  static Sae from_weights(SaeConfig config, SaeWeights weights);
  /// Writes the native SAELens layout, f32: cfg.json and sae_weights.safetensors in the folder `path`; or, for a path
  /// that ends in ".safetensors", one file that holds cfg.json's text as metadata "cfg", which `load` reads as well.
  /// @throws Error(io), Error(unsupported) for what that layout cannot say (groupmax, selection_scale).
  void save(const std::filesystem::path& path) const;

  /// What the file says besides the weights.
  const SaeConfig& config() const;
  std::int64_t d_in() const { return config().d_in; }
  std::int64_t d_out() const { return config().d_out; }
  std::int64_t d_sae() const { return config().d_sae; }
  /// Where its tensors are; inputs are moved there.
  at::Device device() const;
  /// The same SAE on another device.
  Sae to(at::Device device) const;
  /// The absolute path that `load` alone makes this SAE of again; empty for one made otherwise, or with options that
  /// say more than the files do. Not part of `hash`.
  const std::filesystem::path& path() const;
  /// Identifies the weights and the configuration, for journals (hash of config, shapes, dtypes and a sample of each
  /// tensor's bytes).
  const std::string& hash() const;

  /// Feature activations [.., d_sae]. @throws Error(shape) unless the last dimension is d_in.
  at::Tensor encode(const at::Tensor& x) const;
  /// The same, non-zero entries only; at most the `limit` largest by absolute value a token (0: all). Leading
  /// dimensions are flattened to tokens. Works in blocks of tokens, so that no [tokens, d_sae] array is made.
  SparseActivations encode_sparse(const at::Tensor& x, std::int64_t limit = 0) const;
  /// Activations of the named features only, [.., features.size()]. One dot product each where the activation is per
  /// feature (`per_feature()`); else from a full encode. For many calls with one set, keep `select(features)`.
  /// @throws Error(argument) for an index outside [0, d_sae), giving the range.
  at::Tensor encode_subset(const at::Tensor& x, std::span<const std::int64_t> features) const;
  /// Whether a feature's activation depends on no other feature (relu, jumprelu, batchtopk at inference, gated).
  bool per_feature() const;
  /// An SAE of the named features only, in that order, with its own copy of their rows: `select(f).encode(x)` equals
  /// `encode_subset(x, f)` at the price of one dot product a feature and token.
  /// @throws Error(unsupported) unless `per_feature()`; Error(argument) for an index outside [0, d_sae).
  Sae select(std::span<const std::int64_t> features) const;

  /// Reconstruction [.., d_out] from [.., d_sae]. With an input normalisation, give the `x` that was encoded.
  /// The skip connection of a transcoder is not part of it. @throws Error(argument) when `x` is needed and missing.
  at::Tensor decode(const at::Tensor& features, const at::Tensor& x = {}) const;
  at::Tensor decode(const SparseActivations& features, const at::Tensor& x = {}) const;
  /// decode(encode(x)), plus the skip connection where there is one.
  at::Tensor reconstruct(const at::Tensor& x) const;
  /// x - reconstruct(x). @throws Error(unsupported) for a transcoder.
  at::Tensor error(const at::Tensor& x) const;

  /// The same function of x with decoder rows of unit norm: feature i is scaled by |W_dec[i]| (Neuronpedia's units).
  /// @throws Error(unsupported) where that would change which features are kept (topk kinds, matching pursuit), unless
  ///         the rows are unit already.
  Sae fold_W_dec_norm() const;

  /// Encoder rows [features, d_in] (columns of W_enc) and decoder rows [features, d_out], f32, contiguous, touching no
  /// others where the file stores features as rows.
  /// @throws Error(argument) for an index outside [0, d_sae), giving the range.
  at::Tensor encoder_rows(std::span<const std::int64_t> features) const;
  at::Tensor decoder_rows(std::span<const std::int64_t> features) const;
  /// Canonical tensors, f32, of any strides (views of the file where it holds f32). The first use of a matrix stored in
  /// another dtype converts it and keeps the result.
  const at::Tensor& W_enc() const;      ///< [d_in, d_sae]
  const at::Tensor& b_enc() const;      ///< [d_sae]; zeros where the layout has none
  const at::Tensor& W_dec() const;      ///< [d_sae, d_out]
  const at::Tensor& b_dec() const;      ///< [d_out]
  const at::Tensor& threshold() const;  ///< [d_sae]; undefined without one
  const at::Tensor& b_gate() const;     ///< [d_sae]; undefined unless gated, as the next two
  const at::Tensor& r_mag() const;
  const at::Tensor& b_mag() const;
  const at::Tensor& W_skip() const;  ///< [d_out, d_in]; undefined without a skip connection

  struct Impl;

 private:
  static Sae from_weights(SaeConfig config, SaeWeights weights, std::filesystem::path path);
  explicit Sae(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

}  // namespace steer
