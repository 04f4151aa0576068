#include <steer/sae/temporal.hpp>

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/ranges.h>

#include <cmath>
#include <limits>
#include <vector>

#include <steer/core/error.hpp>
#include <steer/io/tensor_reader.hpp>

#include "core/format_text.hpp"
#include "io/strict_json.hpp"
#include "sae/layouts.hpp"
#include "sae/simple_yaml.hpp"

namespace steer {

struct TemporalSae::Impl {
  struct Linear {
    at::Tensor weight, bias;  // [out, in], [out]
    at::Tensor operator()(const at::Tensor& x) const { return at::addmm(bias, x, weight.t()); }
  };
  struct Attention {
    Linear k, q, v, out;
  };
  at::Tensor W_enc, W_dec, b;  // [d_in, d_sae], [d_sae, d_in], [d_in]
  std::vector<Attention> attention;
  std::int64_t heads = 1;
  std::int64_t k = 0;  // kept a token; 0: all (relu)
  double scale = 1;    // of the input
  std::optional<HookPoint> hook;
};

namespace {

namespace fs = std::filesystem;
using nlohmann::json;
constexpr std::string_view kLoad = "TemporalSae::load";

/// A key of conf.yaml: "sae.n_heads". @throws Error(config) when it is absent or of another type.
class Settings {
 public:
  explicit Settings(const fs::path& path) : path_(path), json_(sae::detail::read_simple_yaml(path, kLoad)) {}

  std::int64_t integer(const char* section, const char* key) const {
    const auto& value = at(section, key);
    require(value.is_number_integer(), ErrorCode::config, kLoad, "expected {}.{} as an integer but got {} ({})",
            section, key, io::detail::brief(value), path_.string());
    return value.get<std::int64_t>();
  }
  double number(const char* section, const char* key) const {
    const auto& value = at(section, key);
    require(value.is_number() && std::isfinite(value.get<double>()) && value.get<double>() > 0, ErrorCode::config,
            kLoad, "expected {}.{} as a number above 0 but got {} ({})", section, key, io::detail::brief(value),
            path_.string());
    return value.get<double>();
  }
  const json& at(const char* section, const char* key) const {
    const auto found = json_.find(section);
    require(found != json_.end() && found->is_object() && found->contains(key), ErrorCode::config, kLoad,
            "expected the key {}.{} but got none ({})", section, key, path_.string());
    return found->at(key);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
  json json_;
};

at::Tensor read_f32(const TensorReader& file, const std::string& name, std::vector<std::int64_t> shape) {
  const auto& info = file.info(name);
  require(info.shape == shape, ErrorCode::shape, kLoad, "expected {} of shape [{}] but got [{}] ({})", name,
          fmt::join(shape, ", "), fmt::join(info.shape, ", "), file.path().string());
  return file.read(name).to(at::kFloat).contiguous();
}

/// The codes of each token's predecessor; none for the first.
at::Tensor shifted(const at::Tensor& codes) {
  return at::cat({at::zeros_like(codes.narrow(0, 0, 1)), codes.narrow(0, 0, codes.size(0) - 1)}, 0);
}

/// Causal attention of one sequence, all heads. q, k [tokens, d_key], v [tokens, d_sae].
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::int64_t heads) {
  const auto tokens = q.size(0);
  const auto split = [&](const at::Tensor& t) { return t.view({tokens, heads, -1}).transpose(0, 1); };
  const auto mask = at::ones({tokens, tokens}, at::kBool).tril().logical_not();
  const auto scores =
      at::matmul(split(q), split(k).transpose(1, 2)) / std::sqrt(static_cast<double>(q.size(1) / heads));
  const auto weights = scores.masked_fill(mask, -std::numeric_limits<float>::infinity()).softmax(-1);
  return at::matmul(weights, split(v)).transpose(0, 1).reshape({tokens, -1});
}

}  // namespace

TemporalSae TemporalSae::load(const fs::path& folder) {
  std::error_code ignored;
  require(fs::exists(folder / "conf.yaml", ignored) && fs::exists(folder / "latest_ckpt.safetensors", ignored),
          ErrorCode::io, kLoad, "expected conf.yaml and latest_ckpt.safetensors in {}; give the folder that holds both",
          folder.string());
  const Settings settings(folder / "conf.yaml");
  const auto file = open_tensors(folder / "latest_ckpt.safetensors");
  auto impl = std::make_shared<Impl>();
  const auto& decoder = file->info("D");
  require(decoder.shape.size() == 2, ErrorCode::shape, kLoad, "expected D of two dimensions but got [{}] ({})",
          fmt::join(decoder.shape, ", "), file->path().string());
  const auto d_sae = decoder.shape[0], d_in = settings.integer("llm", "dimin");
  impl->W_dec = read_f32(*file, "D", {d_sae, d_in});
  impl->b = read_f32(*file, "b", {d_in});
  const auto& tied = settings.at("sae", "tied_weights");
  require(tied.is_boolean(), ErrorCode::config, kLoad, "expected sae.tied_weights as true or false but got {} ({})",
          io::detail::brief(tied), settings.path().string());
  impl->W_enc = tied.get<bool>() ? impl->W_dec.t().contiguous() : read_f32(*file, "E", {d_in, d_sae});
  impl->heads = settings.integer("sae", "n_heads");
  impl->scale = settings.number("sae", "scaling_factor");
  const auto layers = settings.integer("sae", "n_attn_layers"),
             bottleneck = settings.integer("sae", "bottleneck_factor");
  require(
      impl->heads > 0 && layers > 0 && layers <= 1000 && bottleneck > 0 && d_sae % (bottleneck * impl->heads) == 0 &&
          d_sae >= bottleneck * impl->heads,
      ErrorCode::config, kLoad,
      "expected d_sae {} to be a multiple of bottleneck_factor {} times n_heads {}, and attention layers, but got {} "
      "layers ({})",
      d_sae, bottleneck, impl->heads, layers, settings.path().string());
  const auto& kind = settings.at("sae", "sae_diff_type");
  require(kind == "relu" || kind == "topk", ErrorCode::unsupported, kLoad,
          "expected sae.sae_diff_type relu or topk but got {} ({})", io::detail::brief(kind), settings.path().string());
  if (kind == "topk") {
    impl->k = settings.integer("sae", "kval_topk");
    require(impl->k > 0 && impl->k <= d_sae, ErrorCode::config, kLoad,
            "expected sae.kval_topk between 1 and {} but got {} ({})", d_sae, impl->k, settings.path().string());
  }
  for (std::int64_t l = 0; l < layers; ++l) {
    const auto linear = [&](const char* name, std::int64_t out) -> Impl::Linear {
      const auto stem = format_text("attn_layers.{}.{}", l, name);
      return {read_f32(*file, stem + ".weight", {out, d_sae}), read_f32(*file, stem + ".bias", {out})};
    };
    impl->attention.push_back({linear("k_ctx", d_sae / bottleneck), linear("q_target", d_sae / bottleneck),
                               linear("v_ctx", d_sae), linear("c_proj", d_sae)});
  }
  if (const auto layer = sae::detail::number_in_path(fs::absolute(folder), "layer_"))
    impl->hook = sae::detail::residual_after(*layer);
  return TemporalSae(std::move(impl));
}

std::int64_t TemporalSae::d_in() const { return impl_->W_enc.size(0); }
std::int64_t TemporalSae::d_sae() const { return impl_->W_enc.size(1); }
const std::optional<HookPoint>& TemporalSae::hook() const { return impl_->hook; }

TemporalCodes TemporalSae::encode(const at::Tensor& x) const {
  require(x.defined() && x.dim() >= 2 && x.size(-1) == d_in() && x.size(-2) > 0, ErrorCode::shape,
          "TemporalSae::encode", "expected whole sequences [.., tokens, {}] but got {}", d_in(),
          x.defined() ? format_text("[{}]", fmt::join(x.sizes(), ", ")) : "none");
  const auto& sae = *impl_;
  const double lambda = 1.0 / (4.0 * static_cast<double>(d_in()));
  const auto sequences = x.to(at::kFloat).reshape({-1, x.size(-2), d_in()});
  std::vector<at::Tensor> novel, predicted;
  for (std::int64_t s = 0; s < sequences.size(0); ++s) {
    auto rest = sequences[s] * sae.scale - sae.b;
    auto foretold = at::zeros({rest.size(0), d_sae()});
    for (const auto& layer : sae.attention) {
      const auto codes = at::mm(rest * lambda, sae.W_enc).relu();
      const auto before = shifted(codes);
      const auto found = layer.out(attend(layer.q(codes), layer.k(before), layer.v(before), sae.heads)).relu();
      const auto direction = at::mm(found, sae.W_dec);
      const auto norm = direction.norm(2, {-1}, true) + 1e-6;
      const auto share = (direction * rest).sum(-1, true) / norm.square();
      foretold = foretold + found * share;
      rest = rest - share * direction;
    }
    auto codes = at::mm(rest * lambda, sae.W_enc).relu();
    if (sae.k > 0) {
      const auto [value, index] = codes.topk(sae.k, -1);
      codes = at::zeros_like(codes).scatter(1, index, value);
    }
    novel.push_back(codes);
    predicted.push_back(foretold);
  }
  auto shape = x.sizes().vec();
  shape.back() = d_sae();
  if (novel.empty()) return {at::zeros(shape), at::zeros(shape)};
  return {at::stack(novel).view(shape), at::stack(predicted).view(shape)};
}

at::Tensor TemporalSae::decode(const at::Tensor& codes) const {
  require(codes.defined() && codes.dim() >= 1 && codes.size(-1) == d_sae(), ErrorCode::shape, "TemporalSae::decode",
          "expected codes [.., {}] but got {}", d_sae(),
          codes.defined() ? format_text("[{}]", fmt::join(codes.sizes(), ", ")) : "none");
  return (at::matmul(codes.to(at::kFloat), impl_->W_dec) + impl_->b) / impl_->scale;
}

at::Tensor TemporalSae::reconstruct(const at::Tensor& x) const {
  const auto codes = encode(x);
  return decode(codes.novel + codes.predicted);
}

}  // namespace steer
