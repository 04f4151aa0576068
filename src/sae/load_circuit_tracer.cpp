// circuit-tracer's transcoder sets: layer_L.safetensors for each layer, config.yaml and wandb-config.yaml beside them
// (either may be missing). Source: circuit-tracer, transcoder/single_layer_transcoder.py; SAELens 6.54 reads them so.
#include <ATen/TensorOperators.h>

#include "core/format_text.hpp"
#include "sae/layouts.hpp"

namespace steer::sae::detail {

std::optional<LoadedSae> load_circuit_tracer(const SaeFiles& f) {
  const auto stem = f.path.stem().string();
  if (!stem.starts_with("layer_") || !f.has_all({"W_enc", "W_dec", "b_enc", "b_dec"})) return {};
  const auto& enc = f.tensors->info("W_enc").shape;
  const auto& dec = f.tensors->info("W_dec").shape;
  if (enc.size() != 2 || dec.size() != 2) return {};
  const auto kind = f.get<std::string>("model_kind");
  const bool named = kind || f.get<nlohmann::json>("d_feature");
  // Encoder and decoder both have a row a feature here; in all other layouts of these names one is transposed. Only
  // where d_in = d_sae do the shapes not tell.
  if (!named && (enc[0] == enc[1] || enc[0] != dec[0] || f.tensors->info("b_enc").shape != std::vector{enc[0]}))
    return {};
  require(!kind || *kind == "transcoder_set", ErrorCode::unsupported, kLoad,
          "expected model_kind transcoder_set but got {} ({}); load a cross-layer transcoder with "
          "CrossLayerTranscoder::load",
          kind.value_or(""), f.config_path.string());
  const auto layer = number_in_path(f.path.filename(), "layer_");
  if (!layer) return {};
  LoadedSae sae;
  auto& c = sae.config;
  auto& w = sae.weights;
  c.format = "circuit_tracer";
  c.transcoder = true;
  c.model_name = f.get<std::string>("model_name").value_or("");
  const auto place = [&](const std::string& hook) { return format_text("blocks.{}.{}", *layer, hook); };
  c.hook_name = place(f.get<std::string>("feature_input_hook").value_or("mlp.hook_in"));
  c.hook_in = hook_of(c.hook_name);
  // TransformerLens has two names for what the MLP adds to the stream.
  const auto out = f.get<std::string>("feature_output_hook").value_or("hook_mlp_out");
  c.hook_out = hook_of(place(out == "mlp.hook_out" ? "hook_mlp_out" : out));
  w.W_enc = f.read("W_enc").t();
  w.b_enc = f.read("b_enc");
  w.W_dec = f.read("W_dec");
  w.b_dec = f.read("b_dec");
  if (f.has("threshold")) {
    w.threshold = f.read("threshold");
    c.activation = SaeActivation::jumprelu;
  }
  if (f.has("W_skip")) w.W_skip = f.read("W_skip");
  return sae;
}

}  // namespace steer::sae::detail
