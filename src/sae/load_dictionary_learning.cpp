// dictionary_learning (saprmarks; also the "saes-*" collections made with it): ae.pt and config.json.
// Source: dictionary_learning/dictionary.py and trainers/.
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>

#include "sae/layouts.hpp"

namespace steer::sae::detail {
namespace {

using nlohmann::json;

/// The class that wrote the file: config.json says so, else keys that only one class has.
std::optional<std::string> class_of(const SaeFiles& f) {
  if (const auto trainer = f.get<json>("trainer"))
    if (const auto name = f.get_from<std::string>(*trainer, "dict_class")) return name;
  if (!f.config.is_null() || f.tensors->format() != "pytorch") return {};
  if (f.has_all({"bias", "encoder.weight", "encoder.bias", "decoder.weight"})) return "AutoEncoder";
  if (f.has_all({"decoder_bias", "encoder.weight", "r_mag", "gate_bias", "mag_bias", "decoder.weight"}))
    return "GatedAutoEncoder";
  if (f.has_all({"W_enc", "W_dec", "b_enc", "b_dec", "threshold", "group_sizes"})) return "MatryoshkaBatchTopKSAE";
  if (f.has_all({"W_enc", "W_dec", "b_enc", "b_dec", "threshold"})) return "JumpReluAutoEncoder";
  if (f.has_all({"b_dec", "encoder.weight", "encoder.bias", "decoder.weight"}))
    fail(ErrorCode::config, kLoad,
         "the keys of {} fit AutoEncoderTopK and BatchTopKSAE, which differ; put its config.json (trainer.dict_class) "
         "beside it",
         f.path.string());
  return {};
}

void linear(const SaeFiles& f, SaeWeights& w) {
  w.W_enc = f.read("encoder.weight").t();
  if (f.has("encoder.bias")) w.b_enc = f.read("encoder.bias");
  w.W_dec = f.read("decoder.weight").t();
}

void matrices(const SaeFiles& f, SaeWeights& w) {
  w.W_enc = f.read("W_enc");
  w.b_enc = f.read("b_enc");
  w.W_dec = f.read("W_dec");
  w.b_dec = f.read("b_dec");
}

/// The single threshold of the batch top-k classes, one for every feature; -1 means never set, which keeps all that is
/// positive.
at::Tensor uniform_threshold(const SaeFiles& f, std::int64_t d_sae) { return at::full({d_sae}, f.scalar("threshold")); }

}  // namespace

std::optional<LoadedSae> load_dictionary_learning(const SaeFiles& f) {
  const auto dict_class = class_of(f);
  if (!dict_class) return {};
  LoadedSae sae;
  auto& c = sae.config;
  auto& w = sae.weights;
  c.format = "dictionary_learning";
  const auto trainer = f.get<json>("trainer").value_or(json::object());
  const auto& name = *dict_class;
  if (name == "AutoEncoder") {
    linear(f, w);
    w.b_dec = f.read("bias");
    c.subtract_b_dec = true;
  } else if (name == "AutoEncoderNew") {
    linear(f, w);
    w.b_dec = f.read("decoder.bias");
  } else if (name == "GatedAutoEncoder") {
    linear(f, w);
    c.activation = SaeActivation::gated;
    w.b_enc = at::Tensor();  // its gate and magnitude have biases of their own
    w.b_dec = f.read("decoder_bias");
    w.b_gate = f.read("gate_bias");
    w.r_mag = f.read("r_mag");
    w.b_mag = f.read("mag_bias");
    c.subtract_b_dec = true;
  } else if (name == "AutoEncoderTopK") {
    linear(f, w);
    w.b_dec = f.read("b_dec");
    c.activation = SaeActivation::topk;
    c.k = f.has("k") ? static_cast<std::int64_t>(f.scalar("k")) : f.get_from<std::int64_t>(trainer, "k").value_or(0);
    c.subtract_b_dec = true;
  } else if (name == "BatchTopKSAE") {
    linear(f, w);
    w.b_dec = f.read("b_dec");
    c.activation = SaeActivation::batchtopk;
    w.threshold = uniform_threshold(f, w.W_enc.size(1));
    c.subtract_b_dec = true;
  } else if (name == "MatryoshkaBatchTopKSAE") {
    matrices(f, w);
    c.activation = SaeActivation::batchtopk;
    w.threshold = uniform_threshold(f, w.W_enc.size(1));
    c.subtract_b_dec = true;
  } else if (name == "JumpReluAutoEncoder") {
    matrices(f, w);
    c.activation = SaeActivation::jumprelu;
    w.threshold = f.read("threshold");
  } else {
    fail(ErrorCode::unsupported, kLoad, "key \"trainer.dict_class\" = {} is not a class that steer knows ({})", name,
         f.config_path.string());
  }
  c.model_name = f.get_from<std::string>(trainer, "lm_name").value_or("");
  c.hook_name = f.get_from<std::string>(trainer, "submodule_name").value_or("");
  if (const auto layer = f.get_from<std::int64_t>(trainer, "layer"); layer && c.hook_name.starts_with("resid_post"))
    c.hook_in = c.hook_out = residual_after(*layer);
  return sae;
}

}  // namespace steer::sae::detail
