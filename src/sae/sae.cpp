#include <steer/sae/sae.hpp>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>

#include <string_view>
#include <utility>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>

#include "core/format_text.hpp"
#include "sae/impl.hpp"
#include "sae/mapped_rows.hpp"

namespace steer {
namespace {

using sae::detail::checked_indices;
using sae::detail::gather_rows;

constexpr std::string_view kFrom = "Sae::from_weights";

bool selects_by_rank(SaeActivation activation) {
  return activation == SaeActivation::topk || activation == SaeActivation::abstopk ||
         activation == SaeActivation::groupmax || activation == SaeActivation::matching_pursuit;
}

void require_shape(const at::Tensor& t, std::string_view name, at::IntArrayRef shape) {
  require(t.defined(), ErrorCode::config, kFrom, "expected a tensor {} but got none", name);
  require(at::isFloatingType(t.scalar_type()), ErrorCode::shape, kFrom, "expected {} of a floating dtype but got {}",
          name, c10::toString(t.scalar_type()));
  require(t.sizes() == shape, ErrorCode::shape, kFrom, "expected {} of shape [{}] but got [{}]", name,
          fmt::join(shape, ", "), fmt::join(t.sizes(), ", "));
}

void fill_dimension(std::int64_t& dimension, const at::Tensor& t, std::int64_t axis, std::string_view name) {
  require(t.defined() && t.dim() == 2, ErrorCode::shape, kFrom, "expected {} of two dimensions but got {}", name,
          t.defined() ? format_text("[{}]", fmt::join(t.sizes(), ", ")) : "none");
  if (dimension == 0) dimension = t.size(axis);
}

/// Checks everything encode and decode rely on, and brings the vectors to f32.
std::shared_ptr<Sae::Impl> make(SaeConfig config, SaeWeights w) {
  if (config.activation == SaeActivation::matching_pursuit && !w.W_enc.defined() && w.W_dec.defined())
    w.W_enc = w.W_dec.t();  // tied
  fill_dimension(config.d_in, w.W_enc, 0, "W_enc");
  fill_dimension(config.d_sae, w.W_enc, 1, "W_enc");
  fill_dimension(config.d_out, w.W_dec, 1, "W_dec");
  const auto d_in = config.d_in, d_out = config.d_out, d_sae = config.d_sae;
  require(d_in > 0 && d_out > 0 && d_sae > 0, ErrorCode::shape, kFrom,
          "expected dimensions of 1 or more but got d_in {}, d_out {}, d_sae {}", d_in, d_out, d_sae);
  // Positions within a row are 32-bit in the kernels.
  require(d_sae < (std::int64_t{1} << 31), ErrorCode::unsupported, kFrom, "expected d_sae below 2^31 but got {}",
          d_sae);
  require_shape(w.W_enc, "W_enc", {d_in, d_sae});
  require_shape(w.W_dec, "W_dec", {d_sae, d_out});
  const auto device = w.W_enc.device();
  const auto vector = [&](at::Tensor& t, std::string_view name, std::int64_t size) {
    require_shape(t, name, {size});
    t = t.to(device, at::kFloat).contiguous();
  };
  require(w.W_dec.device() == device, ErrorCode::config, kFrom, "expected W_dec on {} like W_enc but got {}",
          device.str(), w.W_dec.device().str());
  if (!w.b_dec.defined()) w.b_dec = at::zeros({d_out}, at::TensorOptions().device(device));
  vector(w.b_dec, "b_dec", d_out);
  if (!w.b_enc.defined()) w.b_enc = at::zeros({d_sae}, at::TensorOptions().device(device));
  vector(w.b_enc, "b_enc", d_sae);
  if (config.activation == SaeActivation::jumprelu || config.activation == SaeActivation::batchtopk)
    vector(w.threshold, "threshold", d_sae);
  if (config.activation == SaeActivation::gated) {
    vector(w.b_gate, "b_gate", d_sae);
    vector(w.r_mag, "r_mag", d_sae);
    vector(w.b_mag, "b_mag", d_sae);
  }
  if (w.selection_scale.defined()) {
    require(config.activation == SaeActivation::topk, ErrorCode::config, kFrom,
            "expected selection_scale with activation topk only but got {}", to_string(config.activation));
    vector(w.selection_scale, "selection_scale", d_sae);
  }
  if (w.W_skip.defined()) {
    require_shape(w.W_skip, "W_skip", {d_out, d_in});
    w.W_skip = w.W_skip.to(device, at::kFloat);
  }
  if (selects_by_rank(config.activation))
    require(config.k > 0 && (config.k <= d_sae || config.activation == SaeActivation::matching_pursuit),
            ErrorCode::config, kFrom, "expected k between 1 and d_sae {} for {} but got {}", d_sae,
            to_string(config.activation), config.k);
  require(config.activation != SaeActivation::groupmax || d_sae % config.k == 0, ErrorCode::config, kFrom,
          "expected d_sae to be a multiple of the number of groups {} but got {}", config.k, d_sae);
  require(!config.subtract_b_dec || d_in == d_out, ErrorCode::config, kFrom,
          "expected d_in = d_out where b_dec is subtracted from the input but got {} and {}", d_in, d_out);
  require(config.transcoder || d_in == d_out, ErrorCode::config, kFrom,
          "expected d_in = d_out unless it is a transcoder but got {} and {}", d_in, d_out);
  auto impl = std::make_shared<Sae::Impl>();
  impl->config = std::move(config);
  impl->weights = std::move(w);
  return impl;
}

}  // namespace

namespace sae::detail {

at::Tensor checked_indices(std::span<const std::int64_t> features, std::int64_t d_sae, at::Device device,
                           std::string_view where) {
  for (const auto f : features)
    require(f >= 0 && f < d_sae, ErrorCode::argument, where, "expected feature indices in [0, {}) but got {}", d_sae,
            f);
  auto indices = at::empty({static_cast<std::int64_t>(features.size())}, at::kLong);
  std::copy(features.begin(), features.end(), indices.data_ptr<std::int64_t>());
  return indices.to(device);
}

}  // namespace sae::detail

const at::Tensor& Sae::Impl::in_f32(const at::Tensor& stored, std::once_flag& once, at::Tensor& converted) {
  if (stored.scalar_type() == at::kFloat) return stored;
  std::call_once(once, [&] { converted = stored.to(at::kFloat); });
  return converted;
}

Sae Sae::from_weights(SaeConfig config, SaeWeights weights) {
  return from_weights(std::move(config), std::move(weights), {});
}

Sae Sae::from_weights(SaeConfig config, SaeWeights weights, std::filesystem::path path) {
  auto impl = make(std::move(config), std::move(weights));
  impl->path = std::move(path);
  return Sae(std::move(impl));
}

const SaeConfig& Sae::config() const { return impl_->config; }
const std::filesystem::path& Sae::path() const { return impl_->path; }
at::Device Sae::device() const { return impl_->weights.W_enc.device(); }
const at::Tensor& Sae::W_enc() const { return impl_->W_enc(); }
const at::Tensor& Sae::W_dec() const { return impl_->W_dec(); }
const at::Tensor& Sae::b_enc() const { return impl_->weights.b_enc; }
const at::Tensor& Sae::b_dec() const { return impl_->weights.b_dec; }
const at::Tensor& Sae::threshold() const { return impl_->weights.threshold; }
const at::Tensor& Sae::b_gate() const { return impl_->weights.b_gate; }
const at::Tensor& Sae::r_mag() const { return impl_->weights.r_mag; }
const at::Tensor& Sae::b_mag() const { return impl_->weights.b_mag; }
const at::Tensor& Sae::W_skip() const { return impl_->weights.W_skip; }

bool Sae::per_feature() const { return !selects_by_rank(impl_->config.activation); }

at::Tensor Sae::encoder_rows(std::span<const std::int64_t> features) const {
  return gather_rows(impl_->weights.W_enc.t(), checked_indices(features, d_sae(), device(), "Sae::encoder_rows"));
}

at::Tensor Sae::decoder_rows(std::span<const std::int64_t> features) const {
  return gather_rows(impl_->weights.W_dec, checked_indices(features, d_sae(), device(), "Sae::decoder_rows"));
}

Sae Sae::select(std::span<const std::int64_t> features) const {
  require(per_feature(), ErrorCode::unsupported, "Sae::select",
          "expected an activation in which features do not compete but got {}; use encode_subset",
          to_string(config().activation));
  const auto indices = checked_indices(features, d_sae(), device(), "Sae::select");
  require(!features.empty(), ErrorCode::argument, "Sae::select", "expected at least one feature but got none");
  const auto& from = impl_->weights;
  SaeWeights w = from;
  w.W_enc = gather_rows(from.W_enc.t(), indices).t();
  w.W_dec = gather_rows(from.W_dec, indices);
  for (auto field :
       {&SaeWeights::b_enc, &SaeWeights::threshold, &SaeWeights::b_gate, &SaeWeights::r_mag, &SaeWeights::b_mag})
    if ((from.*field).defined()) w.*field = (from.*field).index_select(0, indices);
  auto narrowed = config();
  narrowed.d_sae = static_cast<std::int64_t>(features.size());
  return from_weights(std::move(narrowed), std::move(w));
}

Sae Sae::to(at::Device device) const {
  if (device == this->device()) return *this;
  SaeWeights w = impl_->weights;
  for (auto field :
       {&SaeWeights::W_enc, &SaeWeights::b_enc, &SaeWeights::W_dec, &SaeWeights::b_dec, &SaeWeights::threshold,
        &SaeWeights::b_gate, &SaeWeights::r_mag, &SaeWeights::b_mag, &SaeWeights::W_skip, &SaeWeights::selection_scale})
    if ((w.*field).defined()) w.*field = (w.*field).to(device);
  return from_weights(config(), std::move(w), path());
}

Sae Sae::fold_W_dec_norm() const {
  // SAELens clamps the norms from below by 1e-8 as well: a feature that decodes to nothing stays so.
  const auto norm = W_dec().norm(2, {1}).clamp_min(1e-8);
  const bool ranked = selects_by_rank(config().activation);
  require(!ranked || (norm - 1).abs().max().item<float>() < 1e-4f, ErrorCode::unsupported, "Sae::fold_W_dec_norm",
          "expected an activation that a change of the features' scale leaves alone, or unit decoder rows, but got {}",
          to_string(config().activation));
  if (ranked) return *this;
  SaeWeights w = impl_->weights;
  w.W_dec = W_dec() / norm.unsqueeze(1);
  w.W_enc = W_enc() * norm;
  for (auto field : {&SaeWeights::b_enc, &SaeWeights::threshold, &SaeWeights::b_gate, &SaeWeights::b_mag})
    if ((w.*field).defined()) w.*field = w.*field * norm;
  return from_weights(config(), std::move(w));
}

const std::string& Sae::hash() const {
  std::call_once(impl_->hash_once, [this] {
    const auto& c = config();
    ContentHasher hasher;
    hasher.update(format_text("sae {} {} {} {} {} {} {} {} {} {} {}", c.d_in, c.d_out, c.d_sae, to_string(c.activation),
                              c.k, c.residual_threshold, c.stop_on_duplicate_support, to_string(c.normalization),
                              c.subtract_b_dec, c.transcoder, c.hook_name));
    const auto& w = impl_->weights;
    // 4,096 values of each tensor, evenly spread, tell two SAEs apart without reading gigabytes.
    for (const auto* t : {&w.W_enc, &w.b_enc, &w.W_dec, &w.b_dec, &w.threshold, &w.b_gate, &w.r_mag, &w.b_mag,
                          &w.W_skip, &w.selection_scale}) {
      hasher.update(t->defined() ? format_text("|{}|", fmt::join(t->sizes(), ",")) : std::string("|-|"));
      if (!t->defined()) continue;
      constexpr std::int64_t kSamples = 4096;
      const auto n = t->numel(), samples = std::min(n, kSamples);
      auto at = at::arange(samples, at::TensorOptions().dtype(at::kLong).device(t->device())).mul_(n / samples);
      std::vector<at::Tensor> position;
      for (std::int64_t axis = t->dim(); axis-- > 0;) {
        position.insert(position.begin(), at.remainder(t->size(axis)));
        at = at.div(t->size(axis), "floor");
      }
      c10::List<std::optional<at::Tensor>> where;
      for (auto& p : position) where.push_back(p);
      const auto sample = t->index(where).to(at::kCPU, at::kFloat).contiguous();
      hasher.update({static_cast<const char*>(sample.data_ptr()), static_cast<std::size_t>(sample.nbytes())});
    }
    impl_->hash = hasher.hex();
  });
  return impl_->hash;
}

}  // namespace steer
