// SAELens: cfg.json and sae_weights.safetensors, versions 3 to 6. Source: sae_lens 6.54.12, loading/ and saes/.
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros_like.h>

#include <charconv>

#include "sae/layouts.hpp"

namespace steer::sae::detail {
namespace {

using nlohmann::json;

/// The major version a "6.18.0"-like text begins with; 0 when there is none.
int major_version(const std::string& text) {
  int major = 0;
  std::from_chars(text.data(), text.data() + text.size(), major);
  return major;
}

bool before_version_6(const SaeFiles& f) {
  if (const auto metadata = f.get<json>("metadata"))
    if (const auto version = f.get_from<std::string>(*metadata, "sae_lens_version")) return major_version(*version) < 6;
  if (const auto version = f.get<std::string>("sae_lens_version")) return major_version(*version) < 6;
  return true;
}

/// A key that was renamed: the old spelling before version 6.
std::optional<std::string> renamed(const SaeFiles& f, std::string_view key, std::string_view old) {
  if (auto value = f.get<std::string>(key)) return value;
  return f.get<std::string>(old);
}

enum class Normalize { none, expected_average, constant_norm_rescale, layer_norm };

Normalize normalization_of(const SaeFiles& f) {
  const auto value = f.get<json>("normalize_activations");
  if (!value) return Normalize::none;
  if (value->is_boolean()) return value->get<bool>() ? Normalize::expected_average : Normalize::none;
  const auto text = value->is_string() ? value->get<std::string>() : value->dump();
  // covariance_whitening is a setting of training; what is saved has it folded in.
  if (text == "none" || text == "covariance_whitening") return Normalize::none;
  if (text == "expected_average_only_in") return Normalize::expected_average;
  if (text == "constant_norm_rescale") return Normalize::constant_norm_rescale;
  if (text == "layer_norm") return Normalize::layer_norm;
  fail(ErrorCode::unsupported, kLoad, "unknown normalize_activations {} ({})", text, f.config_path.string());
}

/// k of a topk kind; before version 6 it sits in activation_fn_kwargs.
std::int64_t k_of(const SaeFiles& f, const json& kwargs) {
  if (const auto k = f.get_from<std::int64_t>(kwargs, "k")) return *k;
  return f.require_key<std::int64_t>("k");
}

}  // namespace

std::optional<LoadedSae> load_saelens(const SaeFiles& f) {
  if (!f.has("W_dec") || !f.get<std::int64_t>("d_in") || !f.get<std::int64_t>("d_sae")) return {};
  const bool old = before_version_6(f);
  LoadedSae sae;
  auto& c = sae.config;
  auto& w = sae.weights;
  c.format = "saelens";
  c.d_in = f.require_key<std::int64_t>("d_in");
  c.d_sae = f.require_key<std::int64_t>("d_sae");
  c.d_out = f.get<std::int64_t>("d_out").value_or(c.d_in);

  auto architecture = f.get<std::string>("architecture").value_or("standard");
  const auto kwargs = f.get<json>("activation_fn_kwargs").value_or(json::object());
  const auto activation_fn = renamed(f, "activation_fn", "activation_fn_str").value_or("relu");
  if (old && activation_fn == "topk" && kwargs.contains("k")) architecture = "topk";
  if (old && architecture == "standard")
    require(activation_fn == "relu" || activation_fn == "topk", ErrorCode::unsupported, kLoad,
            "expected activation_fn relu or topk but got {} ({})", activation_fn, f.config_path.string());

  c.transcoder = architecture.ends_with("transcoder");
  bool rescale = false;
  if (architecture == "standard" || architecture == "transcoder" || architecture == "skip_transcoder") {
    c.activation = SaeActivation::relu;
  } else if (architecture == "jumprelu" || architecture == "jumprelu_transcoder" ||
             architecture == "jumprelu_skip_transcoder") {
    c.activation = SaeActivation::jumprelu;
    if (f.has("log_threshold") && !f.has("threshold"))
      w.threshold = f.read("log_threshold").to(at::kFloat).exp();
    else
      w.threshold = f.read("threshold");
  } else if (architecture == "topk" || architecture == "abstopk") {
    c.activation = architecture == "topk" ? SaeActivation::topk : SaeActivation::abstopk;
    c.k = k_of(f, kwargs);
    rescale = f.get<bool>("rescale_acts_by_decoder_norm").value_or(false);
  } else if (architecture == "gated") {
    c.activation = SaeActivation::gated;
    w.b_gate = f.read("b_gate");
    w.r_mag = f.read("r_mag");
    w.b_mag = f.read("b_mag");
  } else if (architecture == "matching_pursuit") {
    c.activation = SaeActivation::matching_pursuit;
    c.k = f.get<std::int64_t>("max_iterations").value_or(c.d_in);
    c.residual_threshold = f.get<double>("residual_threshold").value_or(1e-2);
    c.stop_on_duplicate_support = f.get<bool>("stop_on_duplicate_support").value_or(true);
  } else {
    fail(ErrorCode::unsupported, kLoad, "key \"architecture\" = {} is not a kind of SAE that steer knows ({})",
         architecture, f.config_path.string());
  }

  w.W_dec = f.read("W_dec");
  w.b_dec = f.read("b_dec");
  if (c.activation != SaeActivation::matching_pursuit) w.W_enc = f.read("W_enc");
  if (c.activation != SaeActivation::matching_pursuit && c.activation != SaeActivation::gated)
    w.b_enc = f.read("b_enc");
  if (architecture.find("skip") != std::string::npos) w.W_skip = f.read("W_skip");
  if (f.has("scaling_factor")) {
    const auto scale = f.read("scaling_factor").to(at::kFloat);
    // SAELens 6 refuses such files, so there is no reference left to follow.
    require(at::allclose(scale, at::ones_like(scale)), ErrorCode::unsupported, kLoad,
            "tensor \"scaling_factor\" is not all ones: finetuned scales of SAELens before 6 are not supported ({})",
            f.path.string());
  }

  c.subtract_b_dec = f.get<bool>("apply_b_dec_to_input").value_or(!c.transcoder);
  require(!c.transcoder || !c.subtract_b_dec, ErrorCode::config, kLoad,
          "expected apply_b_dec_to_input false for a transcoder but it is true ({})", f.config_path.string());
  if (c.activation == SaeActivation::matching_pursuit && !c.subtract_b_dec)
    w.b_dec = at::zeros_like(w.b_dec, at::kFloat);  // added back only where it was taken off

  const auto metadata = f.get<json>("metadata").value_or(json::object());
  const auto named = [&](std::string_view key) { return f.get_from<std::string>(metadata, key); };
  c.hook_name = named("hook_name").value_or(renamed(f, "hook_name", "hook_point").value_or(""));
  c.model_name = named("model_name").value_or(f.get<std::string>("model_name").value_or(""));
  c.hook_in = hook_of(c.hook_name);
  c.hook_out = c.hook_in;
  if (c.transcoder)
    c.hook_out = hook_of(named("hook_name_out").value_or(f.get<std::string>("hook_name_out").value_or("")));
  const auto reshape = f.get<std::string>("reshape_activations");
  c.reshape_hook_z = reshape ? *reshape == "hook_z" : old && c.hook_name.find("hook_z") != std::string::npos;

  const auto normalize = normalization_of(f);
  if (normalize == Normalize::constant_norm_rescale) c.normalization = SaeNormalization::constant_norm_rescale;
  if (normalize == Normalize::layer_norm) c.normalization = SaeNormalization::layer_norm;
  if (normalize == Normalize::expected_average) {
    require(f.options.norm_scaling_factor.has_value(), ErrorCode::config, kLoad,
            "normalize_activations is expected_average_only_in but {} does not hold the factor; give "
            "SaeLoadOptions::norm_scaling_factor = sqrt(d_in) / mean |x| of the activations it was trained on",
            f.config_path.string());
    fold_expected_average(sae, *f.options.norm_scaling_factor);
  }
  // Ranking and decoding by z * |d| is the same as unit decoder rows with the norm moved into the encoder. After the
  // fold above, as in SAELens, whose norms shrink with the decoder.
  if (rescale) fold_decoder_norms(sae);
  return sae;
}

}  // namespace steer::sae::detail
