// Attention-output SAEs with X.pt and X_cfg.json: the concatenated heads' outputs, b_dec subtracted.
// Source: ckkissane/attention-output-saes, as SAELens 6.54 reads it (connor_rob_hook_z).
#include <ATen/core/Tensor.h>

#include "sae/layouts.hpp"

namespace steer::sae::detail {

std::optional<LoadedSae> load_hook_z(const SaeFiles& f) {
  const auto act_size = f.get<std::int64_t>("act_size"), dict_size = f.get<std::int64_t>("dict_size");
  if (!act_size || !dict_size || !f.has_all({"W_enc", "W_dec", "b_enc", "b_dec"})) return {};
  LoadedSae sae;
  auto& c = sae.config;
  auto& w = sae.weights;
  c.format = "hook_z";
  c.d_in = c.d_out = *act_size;
  c.d_sae = *dict_size;
  c.subtract_b_dec = true;
  c.hook_name = f.require_key<std::string>("act_name");
  c.model_name = f.get<std::string>("model_name").value_or("");
  c.hook_in = c.hook_out = hook_of(c.hook_name);
  c.reshape_hook_z = c.hook_name.find("hook_z") != std::string::npos;
  w.W_enc = f.read("W_enc");
  w.b_enc = f.read("b_enc");
  w.W_dec = f.read("W_dec");
  w.b_dec = f.read("b_dec");
  return sae;
}

}  // namespace steer::sae::detail
