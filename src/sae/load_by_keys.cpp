// Layouts of PyTorch files that come without a configuration: Goodfire, Qwen-Scope, qresearch. Each is told by its
// keys; sources are the publishers' model cards.
#include <ATen/TensorOperators.h>

#include "sae/layouts.hpp"

namespace steer::sae::detail {
namespace {

/// "-l19", "_l15", "layer1." and the like: the layer whose output the SAE reads.
void place(const SaeFiles& f, SaeConfig& c, std::initializer_list<std::string_view> prefixes) {
  for (const auto prefix : prefixes)
    if (const auto layer = number_in_path(f.path.filename(), prefix)) {
      c.hook_in = c.hook_out = residual_after(*layer);
      c.hook_name = c.hook_in->name();
      return;
    }
}

}  // namespace

std::optional<LoadedSae> load_goodfire(const SaeFiles& f) {
  LoadedSae sae;
  auto& c = sae.config;
  auto& w = sae.weights;
  c.format = "goodfire";
  if (f.has_all({"encoder_linear.weight", "encoder_linear.bias", "decoder_linear.weight", "decoder_linear.bias"})) {
    w.W_enc = f.read("encoder_linear.weight").t();
    w.b_enc = f.read("encoder_linear.bias");
    w.W_dec = f.read("decoder_linear.weight").t();
    w.b_dec = f.read("decoder_linear.bias");
  } else if (f.has_all({"encoder_linear.weight", "decoder.weight", "decoder_bias"})) {
    // gpt-oss-20b: the input is scaled by a constant of the model card, whose code leaves the reconstruction in that
    // scale; here it is brought back to the scale of x.
    constexpr double kScale = 0.016724765300750732;
    w.b_dec = f.read("decoder_bias").to(at::kFloat) / kScale;
    w.W_enc = f.read("encoder_linear.weight").to(at::kFloat).t() * kScale;
    w.W_dec = f.read("decoder.weight").to(at::kFloat) / kScale;
    c.subtract_b_dec = true;
    c.activation = SaeActivation::topk;
    c.k = std::min(f.options.k ? *f.options.k : number_in_path(f.path.filename(), "_k").value_or(32), w.W_enc.size(1));
  } else if (f.has_all({"W", "b_enc", "b_dec"})) {
    // DeepSeek R1: tied, trained with batch top-k but saved without a threshold, so k a token.
    w.W_enc = f.read("W");
    w.W_dec = w.W_enc.t();
    w.b_enc = f.read("b_enc");
    w.b_dec = f.read("b_dec");
    c.activation = SaeActivation::topk;
    c.k = std::min(f.options.k.value_or(128), w.W_enc.size(1));
  } else {
    return {};
  }
  place(f, c, {"-l", "_l"});
  return sae;
}

std::optional<LoadedSae> load_qwen_scope(const SaeFiles& f) {
  if (!f.config.is_null() || f.tensors->format() != "pytorch" || f.tensors->tensors().size() != 4 ||
      !f.has_all({"W_enc", "W_dec", "b_enc", "b_dec"}))
    return {};
  LoadedSae sae;
  auto& c = sae.config;
  auto& w = sae.weights;
  c.format = "qwen_scope";
  w.W_enc = f.read("W_enc").t();  // stored [d_sae, d_in], unlike SAELens's tensors of this name
  w.W_dec = f.read("W_dec").t();
  w.b_enc = f.read("b_enc");
  w.b_dec = f.read("b_dec");
  c.activation = SaeActivation::topk;
  const auto path = std::filesystem::absolute(f.path);
  const auto k = f.options.k ? f.options.k : number_in_path(path, "L0_");
  require(k.has_value(), ErrorCode::config, kLoad,
          "expected k in the folder's name (\"...-L0_50\") but {} has none; give SaeLoadOptions::k", path.string());
  c.k = *k;
  place(f, c, {"layer"});
  return sae;
}

std::optional<LoadedSae> load_plain_linear(const SaeFiles& f) {
  // Llama Scope has the same keys in safetensors and means something else by them: it needs its hyperparams.json.
  if (!f.config.is_null() || f.tensors->format() != "pytorch" || f.tensors->tensors().size() != 4 ||
      !f.has_all({"encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"}))
    return {};
  LoadedSae sae;
  auto& w = sae.weights;
  sae.config.format = "qresearch";
  w.W_enc = f.read("encoder.weight").t();
  w.b_enc = f.read("encoder.bias");
  w.W_dec = f.read("decoder.weight").t();
  w.b_dec = f.read("decoder.bias");
  place(f, sae.config, {"-l", "_l"});
  return sae;
}

}  // namespace steer::sae::detail
