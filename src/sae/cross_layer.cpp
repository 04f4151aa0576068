// Source: circuit-tracer, transcoder/cross_layer_transcoder.py.
#include <steer/sae/cross_layer.hpp>

#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <fmt/ranges.h>

#include <steer/core/error.hpp>
#include <steer/io/tensor_reader.hpp>

#include "core/format_text.hpp"
#include "sae/layouts.hpp"
#include "sae/simple_yaml.hpp"

namespace steer {

using sae::detail::hook_of;

struct CrossLayerTranscoder::Impl {
  struct Layer {
    at::Tensor W_enc;  // [d_sae, d_in]
    at::Tensor W_dec;  // [d_sae, layers from here on, d_out]
    at::Tensor b_enc, b_dec, threshold;
    Sae sae;
  };
  std::vector<Layer> layers;
  std::string model_name;
};

namespace {

namespace fs = std::filesystem;
constexpr std::string_view kCrossLayerLoad = "CrossLayerTranscoder::load";
/// Models have some hundred layers at most; this bounds the search for files.
constexpr std::int64_t kMaxLayers = 4096;

at::Tensor read_shape(const TensorReader& file, const std::string& name, std::vector<std::int64_t> shape) {
  const auto& info = file.info(name);
  bool fits = info.shape.size() == shape.size();
  for (std::size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i] < 0 || shape[i] == info.shape[i];
  require(fits, ErrorCode::shape, kCrossLayerLoad, "expected {} of shape [{}] (-1: any) but got [{}] ({})", name,
          fmt::join(shape, ", "), fmt::join(info.shape, ", "), file.path().string());
  return file.read(name);
}

std::int64_t count_layers(const fs::path& folder) {
  std::error_code ignored;
  require(fs::is_directory(folder, ignored), ErrorCode::io, kCrossLayerLoad,
          "expected a folder with W_enc_0.safetensors and so on but got {}; give the transcoder's folder",
          folder.string());
  std::int64_t count = 0;
  while (count < kMaxLayers && fs::exists(folder / format_text("W_enc_{}.safetensors", count), ignored)) ++count;
  require(count > 0, ErrorCode::io, kCrossLayerLoad, "expected W_enc_0.safetensors in the folder but found none ({})",
          folder.string());
  return count;
}

}  // namespace

CrossLayerTranscoder CrossLayerTranscoder::load(const fs::path& folder) {
  const auto n = count_layers(folder);
  auto impl = std::make_shared<Impl>();
  nlohmann::json config = nlohmann::json::object();
  if (std::error_code ignored; fs::exists(folder / "config.yaml", ignored))
    config = sae::detail::read_simple_yaml(folder / "config.yaml", kCrossLayerLoad);
  const auto text = [&](const char* key, const char* missing) {
    const auto found = config.find(key);
    return found != config.end() && found->is_string() ? found->get<std::string>() : std::string(missing);
  };
  if (config.contains("model_kind"))
    require(text("model_kind", "") == "cross_layer_transcoder", ErrorCode::config, kCrossLayerLoad,
            "expected model_kind cross_layer_transcoder but got \"{}\" ({}); load its layers with Sae::load",
            text("model_kind", ""), (folder / "config.yaml").string());
  impl->model_name = text("model_name", "");
  for (std::int64_t l = 0; l < n; ++l) {
    const auto encoder = open_tensors(folder / format_text("W_enc_{}.safetensors", l));
    const auto decoder = open_tensors(folder / format_text("W_dec_{}.safetensors", l));
    const auto name = [l](const char* stem) { return format_text("{}_{}", stem, l); };
    auto W_enc = read_shape(*encoder, name("W_enc"), {-1, -1});
    const auto d_sae = W_enc.size(0), d_in = W_enc.size(1);
    auto W_dec = read_shape(*decoder, name("W_dec"), {d_sae, n - l, -1});
    const auto d_out = W_dec.size(2);
    if (l > 0)
      require(d_in == impl->layers[0].W_enc.size(1) && d_out == impl->layers[0].W_dec.size(2), ErrorCode::shape,
              kCrossLayerLoad, "expected all layers of one width, [{}] to [{}], but layer {} has [{}] to [{}] ({})",
              impl->layers[0].W_enc.size(1), impl->layers[0].W_dec.size(2), l, d_in, d_out, folder.string());
    SaeConfig c;
    c.format = "circuit_tracer";
    c.transcoder = true;
    c.model_name = impl->model_name;
    const auto place = [&](const std::string& hook) { return format_text("blocks.{}.{}", l, hook); };
    c.hook_name = place(text("feature_input_hook", "hook_resid_mid"));
    c.hook_in = hook_of(c.hook_name);
    c.hook_out = hook_of(place(text("feature_output_hook", "hook_mlp_out")));
    SaeWeights w;
    w.W_enc = W_enc.t();
    w.b_enc = read_shape(*encoder, name("b_enc"), {d_sae});
    w.W_dec = W_dec.select(1, 0);
    w.b_dec = read_shape(*encoder, name("b_dec"), {d_out});
    if (encoder->contains(name("threshold"))) {
      w.threshold = read_shape(*encoder, name("threshold"), {d_sae});
      c.activation = SaeActivation::jumprelu;
    }
    auto sae = Sae::from_weights(std::move(c), w);
    impl->layers.push_back({std::move(W_enc), std::move(W_dec), w.b_enc, sae.b_dec(), w.threshold, std::move(sae)});
  }
  return CrossLayerTranscoder(std::move(impl));
}

std::int64_t CrossLayerTranscoder::n_layers() const { return static_cast<std::int64_t>(impl_->layers.size()); }
std::int64_t CrossLayerTranscoder::d_in() const { return impl_->layers[0].sae.d_in(); }
std::int64_t CrossLayerTranscoder::d_out() const { return impl_->layers[0].sae.d_out(); }
const std::string& CrossLayerTranscoder::model_name() const { return impl_->model_name; }

Sae CrossLayerTranscoder::layer(std::int64_t layer) const {
  require(layer >= 0 && layer < n_layers(), ErrorCode::argument, "CrossLayerTranscoder::layer",
          "expected a layer in [0, {}) but got {}", n_layers(), layer);
  return impl_->layers[static_cast<std::size_t>(layer)].sae;
}

at::Tensor CrossLayerTranscoder::decoder(std::int64_t from, std::int64_t to) const {
  require(from >= 0 && from <= to && to < n_layers(), ErrorCode::argument, "CrossLayerTranscoder::decoder",
          "expected 0 <= from <= to < {} but got {} and {}", n_layers(), from, to);
  return impl_->layers[static_cast<std::size_t>(from)].W_dec.select(1, to - from);
}

std::vector<at::Tensor> CrossLayerTranscoder::decode(std::span<const at::Tensor> features) const {
  constexpr std::string_view where = "CrossLayerTranscoder::decode";
  require(static_cast<std::int64_t>(features.size()) == n_layers(), ErrorCode::argument, where,
          "expected features of {} layers but got {}", n_layers(), features.size());
  for (std::size_t l = 0; l < features.size(); ++l)
    require(features[l].defined() && features[l].dim() > 0 && features[l].size(-1) == impl_->layers[l].sae.d_sae(),
            ErrorCode::shape, where, "expected features [.., {}] of layer {} but got {}", impl_->layers[l].sae.d_sae(),
            l, features[l].defined() ? format_text("[{}]", fmt::join(features[l].sizes(), ", ")) : "none");
  std::vector<at::Tensor> out;
  for (std::int64_t to = 0; to < n_layers(); ++to) {
    auto sum = impl_->layers[static_cast<std::size_t>(to)].b_dec;
    for (std::int64_t from = 0; from <= to; ++from)
      sum = at::matmul(features[static_cast<std::size_t>(from)].to(at::kFloat), decoder(from, to).to(at::kFloat)) + sum;
    out.push_back(sum);
  }
  return out;
}

std::vector<at::Tensor> CrossLayerTranscoder::reconstruct(std::span<const at::Tensor> x) const {
  require(static_cast<std::int64_t>(x.size()) == n_layers(), ErrorCode::argument, "CrossLayerTranscoder::reconstruct",
          "expected inputs of {} layers but got {}", n_layers(), x.size());
  std::vector<at::Tensor> features;
  for (std::size_t l = 0; l < x.size(); ++l) features.push_back(impl_->layers[l].sae.encode(x[l]));
  return decode(features);
}

}  // namespace steer
