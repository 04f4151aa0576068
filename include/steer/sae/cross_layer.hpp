#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <steer/sae/sae.hpp>

namespace steer {

/// A cross-layer transcoder: the features of layer l read one place in that layer and write to the MLP outputs of the
/// layers l, l+1, ... Immutable, cheap to copy, safe to share between threads. Arithmetic is f32, on the CPU.
/// Source: circuit-tracer, "cross_layer_transcoder".
class CrossLayerTranscoder {
 public:
  /// From a folder of `W_enc_L.safetensors` (W_enc_L [d_sae, d_in], b_enc_L, b_dec_L, perhaps threshold_L) and
  /// `W_dec_L.safetensors` (W_dec_L [d_sae, layers - L, d_out]: slice j writes to layer L + j), with config.yaml beside
  /// them or without. Files are mapped, not read.
  /// @throws Error(io) for a layer whose file is missing, Error(shape | format | config) naming file and tensor.
  static CrossLayerTranscoder load(const std::filesystem::path& folder);

  /// Layers that it reads; widths of what it reads and of what it writes.
  std::int64_t n_layers() const;
  std::int64_t d_in() const;
  std::int64_t d_out() const;
  /// What the file says of the model; may be empty.
  const std::string& model_name() const;

  /// One layer as an SAE of its own: `encode` gives the layer's features; its decoder and bias are those that write to
  /// the same layer, so that `reconstruct` is that layer's part alone. Its hook names are where it reads and writes.
  /// @throws Error(argument) for a layer outside [0, n_layers).
  Sae layer(std::int64_t layer) const;
  /// What features of layer `from` write to layer `to`, [d_sae, d_out], a view of the file.
  /// @throws Error(argument) unless 0 <= from <= to < n_layers.
  at::Tensor decoder(std::int64_t from, std::int64_t to) const;
  /// The outputs of all layers, each [.., d_out], from the features of all layers, each [.., d_sae]: layer o's is the
  /// sum over layers l <= o of features[l] decoder(l, o), plus its bias. @throws Error(argument | shape).
  std::vector<at::Tensor> decode(std::span<const at::Tensor> features) const;
  /// decode(encode(x)) for what each layer reads, each [.., d_in].
  std::vector<at::Tensor> reconstruct(std::span<const at::Tensor> x) const;

 private:
  struct Impl;
  explicit CrossLayerTranscoder(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

}  // namespace steer
