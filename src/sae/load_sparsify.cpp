// EleutherAI sparsify: layers.L[.mlp]/{cfg.json, sae.safetensors}. Source: EleutherAI/sparsify, sparse_coder.py.
// (SAELens's loader of this layout transposes the decoder and subtracts b_dec by another rule; sparsify is followed.)
#include <ATen/TensorOperators.h>

#include "sae/layouts.hpp"

namespace steer::sae::detail {

std::optional<LoadedSae> load_sparsify(const SaeFiles& f) {
  // Only this layout mixes a linear encoder with a bare decoder matrix.
  if (!f.has_all({"encoder.weight", "W_dec", "b_dec"})) return {};
  require(!f.config.is_null(), ErrorCode::config, kLoad, "expected cfg.json beside {} but found none", f.path.string());
  LoadedSae sae;
  auto& c = sae.config;
  auto& w = sae.weights;
  c.format = "sparsify";
  w.W_enc = f.read("encoder.weight").t();
  w.b_enc = f.read("encoder.bias");
  w.W_dec = f.read("W_dec");
  w.b_dec = f.read("b_dec");
  c.d_in = f.require_key<std::int64_t>("d_in");
  c.d_sae = f.get<std::int64_t>("num_latents").value_or(0);
  if (c.d_sae == 0) c.d_sae = c.d_in * f.require_key<std::int64_t>("expansion_factor");
  c.k = f.require_key<std::int64_t>("k");
  const auto activation = f.get<std::string>("activation").value_or("topk");
  if (activation == "topk")
    c.activation = SaeActivation::topk;
  else if (activation == "groupmax")
    c.activation = SaeActivation::groupmax;
  else
    fail(ErrorCode::unsupported, kLoad, "key \"activation\" = {} is not an activation that steer knows ({})",
         activation, f.config_path.string());
  require(!f.get<bool>("signed").value_or(false), ErrorCode::unsupported, kLoad,
          "key \"signed\" is true: not supported ({})", f.config_path.string());
  c.transcoder = f.get<bool>("transcode").value_or(false);
  c.subtract_b_dec = !c.transcoder;
  if (f.get<bool>("skip_connection").value_or(false)) w.W_skip = f.read("W_skip");
  const auto folder = f.path.parent_path().filename().string();
  c.hook_name = folder;
  if (const auto layer = number_in_path(folder, "layers.")) {
    const bool mlp = folder.ends_with(".mlp");
    c.hook_in = c.hook_out = HookPoint{mlp ? Site::mlp_out : Site::resid_post, *layer};
    if (c.transcoder) c.hook_in.reset();  // the input of the module, which sits behind a norm with its gain
  }
  return sae;
}

}  // namespace steer::sae::detail
