// Writes SAELens's own layout (version 6), so that SAELens and everything built on it read what steer trains or
// converts.
#include <ATen/core/Tensor.h>

#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <steer/core/error.hpp>
#include <steer/io/safetensors_writer.hpp>
#include <steer/sae/sae.hpp>

#include "io/atomic_file.hpp"
#include "sae/impl.hpp"

namespace steer {
namespace {

constexpr std::string_view kSave = "Sae::save";

/// @param ranked  by scaled pre-activations (SaeWeights::selection_scale).
std::string architecture_of(const Sae& sae, bool ranked) {
  const auto& c = sae.config();
  std::string name;
  switch (c.activation) {
    case SaeActivation::relu:
      name = c.transcoder ? "" : "standard";
      break;
    case SaeActivation::jumprelu:
    case SaeActivation::batchtopk:
      name = "jumprelu";
      break;  // as SAELens saves its own batch top-k
    case SaeActivation::topk:
      name = "topk";
      break;
    case SaeActivation::abstopk:
      name = "abstopk";
      break;
    case SaeActivation::gated:
      name = "gated";
      break;
    case SaeActivation::matching_pursuit:
      name = "matching_pursuit";
      break;
    case SaeActivation::groupmax:
      break;
  }
  const bool plain = name.empty() || name == "jumprelu";
  require(c.activation != SaeActivation::groupmax && !ranked && (!c.transcoder || plain) &&
              (c.transcoder || !sae.W_skip().defined()) && !(c.transcoder && c.subtract_b_dec),
          ErrorCode::unsupported, kSave, "SAELens's layout cannot say this SAE: {}{}{}{}", to_string(c.activation),
          ranked ? ", ranked by scaled pre-activations" : "", c.transcoder ? ", transcoder" : "",
          sae.W_skip().defined() ? ", skip connection" : "");
  if (!c.transcoder) return name;
  if (!name.empty()) name += "_";
  return name + (sae.W_skip().defined() ? "skip_transcoder" : "transcoder");
}

nlohmann::json configuration(const Sae& sae, bool ranked) {
  const auto& c = sae.config();
  const auto site = [](const std::optional<HookPoint>& point, const std::string& fallback) -> nlohmann::json {
    if (point) return point->name();
    return fallback.empty() ? nlohmann::json(nullptr) : nlohmann::json(fallback);
  };
  nlohmann::json metadata = {{"sae_lens_version", "6.54.12"},  // the version whose layout this is
                             {"model_name", c.model_name},
                             {"hook_name", site(c.hook_in, c.hook_name)},
                             {"prepend_bos", true},
                             {"hook_head_index", nullptr}};
  nlohmann::json cfg = {{"architecture", architecture_of(sae, ranked)},
                        {"d_in", c.d_in},
                        {"d_sae", c.d_sae},
                        {"dtype", "float32"},
                        {"device", "cpu"},
                        {"apply_b_dec_to_input", c.subtract_b_dec},
                        {"normalize_activations", to_string(c.normalization)},
                        {"reshape_activations", c.reshape_hook_z ? "hook_z" : "none"}};
  if (c.transcoder) {
    cfg["d_out"] = c.d_out;
    metadata["hook_name_out"] = site(c.hook_out, "");
  }
  if (c.activation == SaeActivation::topk || c.activation == SaeActivation::abstopk) {
    cfg["k"] = c.k;
    cfg["rescale_acts_by_decoder_norm"] = false;
  }
  if (c.activation == SaeActivation::matching_pursuit) {
    cfg["max_iterations"] = c.k;
    cfg["residual_threshold"] = c.residual_threshold;
    cfg["stop_on_duplicate_support"] = c.stop_on_duplicate_support;
  }
  cfg["metadata"] = std::move(metadata);
  return cfg;
}

std::vector<std::pair<std::string, at::Tensor>> tensors(const Sae& sae) {
  const auto kind = sae.config().activation;
  std::vector<std::pair<std::string, at::Tensor>> list;
  if (kind != SaeActivation::matching_pursuit) list.emplace_back("W_enc", sae.W_enc());
  if (kind != SaeActivation::matching_pursuit && kind != SaeActivation::gated) list.emplace_back("b_enc", sae.b_enc());
  list.emplace_back("W_dec", sae.W_dec());
  list.emplace_back("b_dec", sae.b_dec());
  for (const auto& [name, tensor] :
       {std::pair{"threshold", sae.threshold()}, std::pair{"b_gate", sae.b_gate()}, std::pair{"r_mag", sae.r_mag()},
        std::pair{"b_mag", sae.b_mag()}, std::pair{"W_skip", sae.W_skip()}})
    if (tensor.defined()) list.emplace_back(name, tensor);
  return list;
}

}  // namespace

void Sae::save(const std::filesystem::path& path) const {
  const auto cfg = configuration(*this, impl_->weights.selection_scale.defined());
  if (path.extension() == ".safetensors") {
    save_safetensors(path, tensors(*this), {{"format", "pt"}, {"cfg", cfg.dump()}});
    return;
  }
  std::error_code error;
  std::filesystem::create_directories(path, error);
  require(!error, ErrorCode::io, kSave, "cannot create the folder {}: {}", path.string(), error.message());
  save_safetensors(path / "sae_weights.safetensors", tensors(*this), {{"format", "pt"}});
  const auto text = cfg.dump(2) + "\n";
  io::detail::AtomicFile file(path / "cfg.json", kSave);
  file.write_at(0, std::as_bytes(std::span(text)));
  file.commit();
}

}  // namespace steer
