// What a configuration says of the model that an SAE was trained on. TransformerLens changes a model's weights while it
// loads them, so that what flows through a point may differ from what flows there in the model as published.
// Source: TransformerLens 3, weight_processing.py; SAELens keeps the settings as model_from_pretrained_kwargs.
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "core/ascii.hpp"
#include "io/bytes.hpp"
#include "io/strict_json.hpp"
#include "sae/layouts.hpp"

namespace steer::sae::detail {
namespace {

using nlohmann::json;

/// Settings that change no activation at any point, or only where and in which precision it is computed.
constexpr std::array<std::string_view, 24> kHarmless = {"center_unembed",
                                                        "dtype",
                                                        "torch_dtype",
                                                        "device",
                                                        "device_map",
                                                        "n_devices",
                                                        "n_ctx",
                                                        "move_to_device",
                                                        "revision",
                                                        "checkpoint_index",
                                                        "checkpoint_value",
                                                        "hf_model",
                                                        "tokenizer",
                                                        "use_auth_token",
                                                        "token",
                                                        "trust_remote_code",
                                                        "cache_dir",
                                                        "local_files_only",
                                                        "low_cpu_mem_usage",
                                                        "attn_implementation",
                                                        "default_padding_side",
                                                        "default_prepend_bos",
                                                        "first_n_layers",
                                                        "hf_cache_dir"};

/// Settings that change activations, and at which points (by parts of TransformerLens's names).
struct Setting {
  std::string_view key;
  std::array<std::string_view, 5> points;
};
constexpr Setting kChanges[] = {
    {"fold_ln", {"hook_normalized", "mlp.hook_in", "attn.hook_in"}},
    {"fold_value_biases", {"hook_z", "hook_v", "hook_result"}},
    {"refactor_factored_attn_matrices", {"hook_z", "hook_v", "hook_q", "hook_k", "hook_result"}},
};
constexpr std::string_view kCentre = "center_writing_weights";
/// Where the residual stream, or something that is added to it, is read.
constexpr std::string_view kStream[] = {"hook_resid",   "hook_attn_out",  "hook_mlp_out",
                                        "hook_embed",   "hook_pos_embed", "hook_mlp_in",
                                        "hook_attn_in", "mlp.hook_out",   "attn.hook_out"};

/// Parts of model names whose norms subtract the mean, so that centring changes nothing but what is read; and of those
/// whose norms do not, which TransformerLens leaves uncentred.
constexpr std::string_view kLayerNorm[] = {"gpt2",        "gpt-neo",   "gpt-j",    "pythia",     "neox",
                                           "opt-",        "bloom",     "phi-1",    "phi-2",      "tiny-stories",
                                           "tinystories", "gelu-",     "solu-",    "santacoder", "stablelm",
                                           "redwood",     "distilgpt", "stanford", "bert"};
constexpr std::string_view kRmsNorm[] = {"llama", "gemma",  "mistral", "mixtral",  "qwen",    "phi-3",  "phi-4",
                                         "yi-",   "olmo-2", "olmo-3",  "deepseek", "granite", "smollm", "gpt-oss"};

template <class List>
bool holds_any(std::string_view text, const List& parts) {
  return std::any_of(std::begin(parts), std::end(parts),
                     [&](std::string_view part) { return !part.empty() && text.find(part) != std::string_view::npos; });
}

/// The residual stream less its mean over the width, as part of the encoder: w . (x - mean x) = (w - mean w) . x.
void centre_input(LoadedSae& sae) {
  auto& c = sae.config;
  auto& w = sae.weights;
  const auto encoder = w.W_enc.to(at::kFloat);
  const auto mean = encoder.mean({0}, true);  // [1, d_sae]
  w.W_enc = encoder - mean;
  if (w.W_skip.defined()) w.W_skip = w.W_skip.to(at::kFloat) - w.W_skip.to(at::kFloat).mean({1}, true);
  if (!c.subtract_b_dec) return;
  // b_dec is subtracted from the centred stream and is not centred itself.
  const auto shift = w.b_dec.to(at::kFloat).sum() * mean.squeeze(0);
  if (w.b_enc.defined()) w.b_enc = w.b_enc.to(at::kFloat) - shift;
  if (c.activation == SaeActivation::gated) {
    w.b_gate = w.b_gate.to(at::kFloat) - shift;
    w.b_mag = w.b_mag.to(at::kFloat) - w.r_mag.to(at::kFloat).exp() * shift;
  }
}

class TrainedStream {
 public:
  TrainedStream(const SaeFiles& files, LoadedSae& sae) : files_(files), sae_(sae) {}

  void apply() {
    if (!files_.config.is_object()) return;
    for (const auto* object : {&files_.config, find(files_.config, "metadata")}) {
      if (!object || !object->is_object()) continue;
      if (const auto* kwargs = find(*object, "model_from_pretrained_kwargs"); kwargs && !kwargs->is_null()) {
        require(kwargs->is_object(), ErrorCode::config, kLoad,
                "expected model_from_pretrained_kwargs as an object but got {} ({})", io::detail::brief(*kwargs),
                files_.config_path.string());
        for (const auto& [key, value] : kwargs->items()) setting(key, value, /*must_know=*/true);
      }
      for (const auto& [key, value] : object->items()) setting(key, value, /*must_know=*/false);
    }
    if (centred_) centre();
  }

 private:
  static const json* find(const json& object, const char* key) {
    const auto found = object.find(key);
    return found == object.end() ? nullptr : &*found;
  }
  const std::string& point() const { return sae_.config.hook_name; }

  bool is_on(std::string_view key, const json& value) const {
    if (value.is_null()) return false;
    require(value.is_boolean(), ErrorCode::config, kLoad, "expected {} as true or false but got {} ({})", key,
            io::detail::brief(value), files_.config_path.string());
    return value.get<bool>();
  }

  void setting(std::string_view key, const json& value, bool must_know) {
    if (key == kCentre) {
      centred_ = centred_ || (is_on(key, value) && (point().empty() || holds_any(point(), kStream)));
      return;
    }
    for (const auto& change : kChanges) {
      if (key != change.key) continue;
      require(!is_on(key, value) || !holds_any(point(), change.points), ErrorCode::unsupported, kLoad,
              "expected an SAE of what the published model computes at {} but it was trained with {}, which changes it "
              "there ({}); train it on the model without that setting",
              point(), key, files_.config_path.string());
      return;
    }
    if (!must_know || std::find(kHarmless.begin(), kHarmless.end(), key) != kHarmless.end()) return;
    const bool off = value.is_null() || value == false;
    require(
        off, ErrorCode::unsupported, kLoad,
        "expected settings of the model that steer knows but got {} = {} in model_from_pretrained_kwargs, which could "
        "change what the SAE was trained on ({}); remove the key if it does not",
        io::detail::quote(key), io::detail::brief(value), files_.config_path.string());
  }

  void centre() {
    const std::string name = ascii_lower(sae_.config.model_name);
    if (holds_any(name, kRmsNorm)) return;
    require(
        holds_any(name, kLayerNorm), ErrorCode::unsupported, kLoad,
        "expected a model_name that tells whether {} took effect (it does in models with LayerNorm, and is skipped in "
        "those with RMS norms) but got {} ({}); correct model_name, such as \"gpt2\", or set {} to false if the model "
        "has RMS norms",
        kCentre, io::detail::quote(sae_.config.model_name), files_.config_path.string(), kCentre);
    if (sae_.config.normalization == SaeNormalization::layer_norm) return;  // subtracts the mean by itself
    require(
        sae_.config.normalization == SaeNormalization::none &&
            sae_.config.activation != SaeActivation::matching_pursuit,
        ErrorCode::unsupported, kLoad,
        "expected {} with an encoder that takes the stream as it is but got normalisation {} and activation {} ({})",
        kCentre, to_string(sae_.config.normalization), to_string(sae_.config.activation), files_.config_path.string());
    centre_input(sae_);
  }

  const SaeFiles& files_;
  LoadedSae& sae_;
  bool centred_ = false;
};

}  // namespace

void apply_trained_stream(const SaeFiles& files, LoadedSae& sae) { TrainedStream(files, sae).apply(); }

}  // namespace steer::sae::detail
