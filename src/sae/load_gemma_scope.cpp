// Gemma Scope (params.npz) and Gemma Scope 2 (params.safetensors, config.json that may be absent).
// Sources: Google's Gemma Scope notebooks; the configuration files of google/gemma-scope-2-*.
#include <ATen/TensorOperators.h>

#include "sae/layouts.hpp"

namespace steer::sae::detail {
namespace {

/// The site that a Hugging Face hook name of Gemma Scope 2 means.
std::optional<HookPoint> gemma_hook(std::string_view name) {
  const auto layer = number_in_path(std::filesystem::path(name), "model.layers.");
  if (!layer) return {};
  const auto rest = name.substr(name.find('.', std::string_view("model.layers.").size()) + 1);
  if (rest == "output") return HookPoint{Site::resid_post, *layer};
  if (rest == "self_attn.o_proj.input") return HookPoint{Site::attn_z, *layer};
  if (rest == "post_feedforward_layernorm.output") return HookPoint{Site::mlp_out, *layer};
  return {};  // pre_feedforward_layernorm.output: the norm with its gain, which is no site
}

/// Where there is no configuration, folder names say the site.
void place_by_path(const SaeFiles& f, SaeConfig& c) {
  const auto path = std::filesystem::absolute(f.path).lexically_normal();
  const auto layer = number_in_path(path, "layer_");
  if (!layer) return;
  const auto text = path.generic_string();
  const auto has = [&](std::string_view part) { return text.find(part) != std::string::npos; };
  if (has("transcoder")) {
    c.transcoder = true;
    c.hook_out = HookPoint{Site::mlp_out, *layer};
  } else if (has("attn_out") || has("-att/")) {
    c.hook_in = c.hook_out = HookPoint{Site::attn_z, *layer};
  } else if (has("mlp_out") || has("-mlp/")) {
    c.hook_in = c.hook_out = HookPoint{Site::mlp_out, *layer};
  } else if (has("resid_post") || has("-res/")) {
    c.hook_in = c.hook_out = HookPoint{Site::resid_post, *layer};
  }
}

}  // namespace

std::optional<LoadedSae> load_gemma_scope(const SaeFiles& f) {
  const bool upper = f.has_all({"W_enc", "W_dec"}), lower = f.has_all({"w_enc", "w_dec"});
  if (!(upper || lower) || !f.has_all({"b_enc", "b_dec", "threshold"})) return {};
  const auto hook_in = f.get<std::string>("hf_hook_point_in");
  if (!f.config.is_null() && !hook_in) return {};
  LoadedSae sae;
  auto& c = sae.config;
  auto& w = sae.weights;
  c.format = f.tensors->format() == "safetensors" ? "gemma_scope_2" : "gemma_scope";
  c.activation = SaeActivation::jumprelu;
  if (const auto architecture = f.get<std::string>("architecture"))
    require(*architecture == "jump_relu", ErrorCode::unsupported, kLoad,
            "key \"architecture\" = {} is not an architecture that steer knows ({})", *architecture,
            f.config_path.string());
  w.W_enc = f.read(upper ? "W_enc" : "w_enc");
  w.W_dec = f.read(upper ? "W_dec" : "w_dec");
  w.b_enc = f.read("b_enc");
  w.b_dec = f.read("b_dec");
  w.threshold = f.read("threshold");
  if (f.has("affine_skip_connection")) {
    w.W_skip = f.read("affine_skip_connection").t();  // stored [in, out]
    c.transcoder = true;
  }
  require(!f.get<bool>("affine_connection").value_or(false) || w.W_skip.defined(), ErrorCode::config, kLoad,
          "key \"affine_connection\" is true but {} has no tensor \"affine_skip_connection\"", f.path.string());
  if (hook_in) {
    const auto hook_out = f.get<std::string>("hf_hook_point_out").value_or(*hook_in);
    c.hook_name = *hook_in;
    c.hook_in = gemma_hook(*hook_in);
    c.hook_out = gemma_hook(hook_out);
    c.transcoder = c.transcoder || hook_out != *hook_in;
  } else {
    place_by_path(f, c);
  }
  c.transcoder = c.transcoder || w.W_enc.size(0) != w.W_dec.size(-1);
  c.model_name = f.get<std::string>("model_name").value_or("");
  return sae;
}

}  // namespace steer::sae::detail
