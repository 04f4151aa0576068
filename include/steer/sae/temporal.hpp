#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <steer/model/hooks.hpp>

namespace steer {

/// The codes of a temporal SAE, each [.., tokens, d_sae], f32.
struct TemporalCodes {
  at::Tensor novel;      ///< sparse, what the context did not foretell: the features
  at::Tensor predicted;  ///< dense, from attention over the codes of the tokens before
};

/// An SAE whose code of a token has two parts: one predicted from the tokens before it by attention, and a sparse one
/// for the rest. A token's features therefore depend on its context: give whole sequences. Immutable, cheap to copy,
/// safe to share between threads. Arithmetic is f32, on the CPU. Source: arXiv:2511.01836; SAELens 6.54,
/// temporal_sae.py.
class TemporalSae {
 public:
  /// From a folder with `conf.yaml` and `latest_ckpt.safetensors`.
  /// @throws Error(io | format | shape | config) naming file, tensor or key.
  static TemporalSae load(const std::filesystem::path& folder);

  /// Width of what it reads, and how many codes it has.
  std::int64_t d_in() const;
  std::int64_t d_sae() const;
  /// The point it was trained at, where the folder's name says the layer ("layer_12").
  const std::optional<HookPoint>& hook() const;

  /// @param x  [.., tokens, d_in]: whole sequences from their first token on. @throws Error(shape).
  TemporalCodes encode(const at::Tensor& x) const;
  /// [.., d_in] from codes [.., d_sae]. Of novel + predicted codes it is the reconstruction, of novel ones alone what
  /// the token adds. @throws Error(shape).
  at::Tensor decode(const at::Tensor& codes) const;
  /// decode(novel + predicted), [.., tokens, d_in]. @throws Error(shape).
  at::Tensor reconstruct(const at::Tensor& x) const;

 private:
  struct Impl;
  explicit TemporalSae(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

}  // namespace steer
