// OpenMOSS's layouts: Llama Scope (hyperparams.json, checkpoints/final.safetensors), Llama-Scope-R1-Distill and
// Llamascopium (config.json, sae_weights.safetensors). Source: OpenMOSS/Language-Model-SAEs, sae.py and initializer.py.
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "sae/layouts.hpp"

namespace steer::sae::detail {
namespace {

using nlohmann::json;

/// sqrt(d) / (mean norm of the activations at `hook`), from the configuration or a 0-d tensor.
double norm_factor(const SaeFiles& f, std::string_view side, const std::string& hook, std::int64_t d) {
  std::optional<double> norm;
  if (const auto table = f.get<json>("dataset_average_activation_norm")) {
    norm = f.get_from<double>(*table, side);
    if (!norm) norm = f.get_from<double>(*table, hook);
  }
  const auto tensor = "dataset_average_activation_norm." + hook;
  if (!norm && f.has(tensor)) norm = f.scalar(tensor);
  if (!norm && f.options.norm_scaling_factor) return *f.options.norm_scaling_factor;
  require(norm.has_value(), ErrorCode::config, kLoad,
          "norm_activation is dataset-wise but neither {} nor a tensor \"{}\" gives the norm; give "
          "SaeLoadOptions::norm_scaling_factor",
          f.config_path.string(), tensor);
  require(*norm > 0 && std::isfinite(*norm), ErrorCode::config, kLoad,
          "expected a positive dataset_average_activation_norm but got {} ({})", *norm, f.config_path.string());
  return std::sqrt(static_cast<double>(d)) / *norm;
}

}  // namespace

std::optional<LoadedSae> load_openmoss(const SaeFiles& f) {
  const bool linear = f.has_all({"encoder.weight", "encoder.bias", "decoder.weight"});
  const bool newer = f.has_all({"W_E", "b_E", "W_D"});
  const auto d_model = f.get<std::int64_t>("d_model");
  if (!(linear || newer) || !d_model) return {};
  LoadedSae sae;
  auto& c = sae.config;
  auto& w = sae.weights;
  const bool v1 = linear && !f.has("log_jumprelu_threshold");
  c.format = v1 ? "llama_scope" : newer ? "llamascopium" : "llama_scope_r1";
  require(!f.get<bool>("use_glu_encoder").value_or(false), ErrorCode::unsupported, kLoad,
          "key \"use_glu_encoder\" is true: gated linear encoders are not supported ({})", f.config_path.string());

  w.W_enc = newer ? f.read("W_E") : f.read("encoder.weight").t();
  w.b_enc = f.read_any({"b_E", "encoder.bias"}).to(at::kFloat);
  w.W_dec = newer ? f.read("W_D") : f.read("decoder.weight").t();
  if (f.get<bool>("use_decoder_bias").value_or(true))
    w.b_dec = f.read_any({"b_D", "decoder.bias"}).to(at::kFloat);
  else
    w.b_dec = at::zeros({w.W_dec.size(1)});
  c.d_in = c.d_out = *d_model;
  c.subtract_b_dec = f.get<bool>("apply_decoder_bias_to_pre_encoder").value_or(false);
  c.hook_name = f.get<std::string>("hook_point_in").value_or("");
  const auto hook_out = f.get<std::string>("hook_point_out").value_or(c.hook_name);
  c.hook_in = hook_of(c.hook_name);
  c.hook_out = hook_of(hook_out);
  c.transcoder = hook_out != c.hook_name;
  c.model_name = f.get<std::string>("model_name").value_or("");

  double threshold = 0;
  const auto act_fn = f.get<std::string>("act_fn").value_or(f.has("log_jumprelu_threshold") ? "jumprelu" : "");
  const auto log_threshold =
      f.has("log_jumprelu_threshold") ? "log_jumprelu_threshold" : "activation_function.log_jumprelu_threshold";
  if (act_fn == "jumprelu") {
    c.activation = SaeActivation::jumprelu;
    if (f.has(log_threshold)) {
      w.threshold = f.read(log_threshold).to(at::kFloat).exp();
    } else {
      threshold = f.require_key<double>("jump_relu_threshold");
      w.threshold = at::full({w.W_enc.size(1)}, threshold);
    }
  } else if (act_fn == "relu") {
    c.activation = SaeActivation::relu;
  } else if (act_fn == "topk") {
    c.activation = SaeActivation::topk;
    c.k = f.require_key<std::int64_t>("top_k");
  } else {
    fail(ErrorCode::unsupported, kLoad, "key \"act_fn\" = {} is not an activation that steer knows ({})", act_fn,
         f.config_path.string());
  }

  const auto norm_activation = f.get<std::string>("norm_activation").value_or("dataset-wise");
  const bool with_decoder_norm = f.get<bool>("sparsity_include_decoder_norm").value_or(false);
  double s_in = 1, s_out = 1;
  if (norm_activation == "dataset-wise") {
    s_in = norm_factor(f, "in", c.hook_name, c.d_in);
    s_out = norm_factor(f, "out", hook_out, c.d_out);
  } else if (norm_activation == "token-wise") {
    c.normalization = SaeNormalization::constant_norm_rescale;
  } else {
    require(norm_activation == "inference" || norm_activation == "none", ErrorCode::unsupported, kLoad,
            "key \"norm_activation\" = {} is not supported ({})", norm_activation, f.config_path.string());
  }
  if (v1 && f.options.saelens_llama_scope) {
    // SAELens keeps features in the units of the normalised input, scales the threshold, and ignores decoder norms.
    fold_expected_average(sae, s_in);
    if (w.threshold.defined()) w.threshold = w.threshold * s_in;
    return sae;
  }
  w.b_enc = w.b_enc / s_in;
  w.b_dec = w.b_dec / s_out;
  if (s_in != s_out) w.W_dec = w.W_dec.to(at::kFloat) * (s_in / s_out);
  if (!with_decoder_norm) return sae;
  if (v1) {
    fold_decoder_norms(sae);  // threshold stays: it gates z * |d|
    return sae;
  }
  // The newer code gates on z * |d| too, but its features keep the scale of z.
  const auto norm = w.W_dec.to(at::kFloat).norm(2, {1});
  if (c.activation == SaeActivation::jumprelu) w.threshold = w.threshold / norm;
  if (c.activation == SaeActivation::topk) w.selection_scale = norm;
  return sae;
}

}  // namespace steer::sae::detail
