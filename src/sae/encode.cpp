// Encode and decode. Formulas: docs/sae-formats.md, which names their sources.
#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/count_nonzero.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/ranges.h>

#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include <steer/core/error.hpp>
#include <steer/sae/sae.hpp>

#include "core/crew.hpp"
#include "core/format_text.hpp"
#include "sae/each_token.hpp"
#include "sae/impl.hpp"
#include "sae/kernels.hpp"
#include "sae/sparse.hpp"

namespace steer {
namespace sae::detail {
namespace {

/// function(x) of each row of x by itself.
template <class F>
at::Tensor row_by_row(const at::Tensor& x, const F& function) {
  std::vector<at::Tensor> rows;
  for (std::int64_t t = 0; t < x.size(0); ++t) rows.push_back(function(x.narrow(0, t, 1)));
  return at::cat(rows);
}

/// A function of each row, at once where bits may depend on the number of rows.
template <class F>
at::Tensor of_rows(const at::Tensor& x, const F& function) {
  return EachTokenAlone::on() ? row_by_row(x, function) : function(x);
}

/// x W_enc + b (undefined: 0), each row's bits its own.
at::Tensor product_of_each(const at::Tensor& x, const at::Tensor& w, const at::Tensor& b) {
  const std::int64_t tokens = x.size(0), features = w.size(1);
  // A copy even for one token: it is added to.
  at::Tensor out = b.defined() ? b.repeat({tokens, 1}) : at::zeros({tokens, features});
  const at::Tensor rows = x.contiguous();
  const bool by_rows = w.stride(0) == 1;
  const at::Tensor matrix = by_rows || w.stride(1) == 1 ? w : w.contiguous();
  const Product product{.x = rows.const_data_ptr<float>(),
                        .w = matrix.const_data_ptr<float>(),
                        .out = out.data_ptr<float>(),
                        .tokens = tokens,
                        .inputs = x.size(1),
                        .features = features,
                        .stride = matrix.stride(by_rows ? 1 : 0)};
  core::detail::run_ranges(features, by_rows ? 64 : 1024, [&](std::int64_t begin, std::int64_t end) {
    by_rows ? kernels().add_features_by_rows(product, begin, end) : kernels().add_features(product, begin, end);
  });
  return out;
}

at::Tensor pre_activations(const Sae::Impl& sae, const at::Tensor& x) {
  const bool gated = sae.config.activation == SaeActivation::gated;
  if (EachTokenAlone::on()) {
    const at::Tensor& w = sae.W_enc();
    if (x.is_cpu() && w.is_cpu() && !records_gradient(x))
      return product_of_each(x, w, gated ? at::Tensor() : sae.weights.b_enc);
    return row_by_row(
        x, [&](const at::Tensor& row) { return gated ? at::mm(row, w) : at::addmm(sae.weights.b_enc, row, w); });
  }
  return sae.config.activation == SaeActivation::gated ? at::mm(x, sae.W_enc())
                                                       : at::addmm(sae.weights.b_enc, x, sae.W_enc());
}

/// Greedy and tied, a row of tokens at a time: SAELens, matching_pursuit_sae.py.
at::Tensor matching_pursuit(const Sae::Impl& sae, const at::Tensor& x) {
  const auto& decoder = sae.W_dec();
  auto residual = x;
  auto features = at::zeros({x.size(0), sae.config.d_sae}, x.options());
  auto active = at::ones({x.size(0), 1}, x.options());
  auto support = at::zeros_like(features, at::kBool);
  for (std::int64_t step = 0; step < sae.config.k; ++step) {
    const auto best = at::mm(residual.detach(), sae.W_enc()).relu_().argmax(1, true);
    const auto rows = decoder.index_select(0, best.squeeze(1));
    const auto value = (residual * rows).sum(-1, true).relu() * active;
    features = features.scatter_add(1, best, value);
    residual = residual - value * rows;
    auto done = active == 0;
    if (sae.config.stop_on_duplicate_support) {
      const auto now = features.detach() != 0;
      done.logical_or_((now == support).all(1, true));
      support = now;
    }
    if (sae.config.residual_threshold > 0)
      done.logical_or_(residual.detach().norm(2, {1}, true) < sae.config.residual_threshold);
    active = done.logical_not().to(x.scalar_type());
    if (done.all().item<bool>()) break;
  }
  return features;
}

/// Dense activations of the kinds in which features compete, by libtorch's operators (any device, with gradients).
at::Tensor competing_activation(const Sae::Impl& sae, const at::Tensor& z) {
  const auto k = sae.config.k;
  if (sae.config.activation == SaeActivation::groupmax) {
    const auto group = sae.config.d_sae / k;
    auto [value, at] = z.relu().view({z.size(0), k, group}).max(-1);
    at = at + at::arange(k, at.options()) * group;
    return at::zeros_like(z).scatter(1, at, value);
  }
  const bool absolute = sae.config.activation == SaeActivation::abstopk;
  const auto score = absolute ? z.abs() : sae.weights.selection_scale.defined() ? z * sae.weights.selection_scale : z;
  const auto at = std::get<1>(score.topk(k, -1, true, false));
  const auto value = z.gather(1, at);
  return at::zeros_like(z).scatter(1, at, absolute ? value : value.relu());
}

at::Tensor activations(const Sae::Impl& sae, const at::Tensor& x) {
  if (sae.config.activation == SaeActivation::matching_pursuit)
    return of_rows(x, [&](const at::Tensor& row) { return matching_pursuit(sae, row); });
  auto z = pre_activations(sae, x);
  switch (sae.config.activation) {
    case SaeActivation::topk:
    case SaeActivation::abstopk:
    case SaeActivation::groupmax:
      return competing_activation(sae, z);
    default:
      return per_feature_activation(sae.config.activation, std::move(z), sae.weights);
  }
}

SparseActivations sparse_activations(const Sae::Impl& sae, const at::Tensor& x, std::int64_t limit) {
  const bool ranked = sae.config.activation == SaeActivation::topk || sae.config.activation == SaeActivation::abstopk;
  if (ranked) {
    const auto z = pre_activations(sae, x);
    // libtorch ranks NaN highest and so lets it show; the kernel would drop it in silence.
    if (kernels_apply(z) && at::isfinite(x).all().item<bool>()) return sparse_top_k(sae, z, limit);
    return sparse_of_any(competing_activation(sae, z), limit);
  }
  const auto f = activations(sae, x);
  return kernels_apply(f) ? sparse_of(f, limit) : sparse_of_any(f, limit);
}

/// Undoes the normalisation of the input and gives the result the shape of the input.
at::Tensor finish(const Sae::Impl& sae, at::Tensor out, const SaeInput* input, std::vector<std::int64_t> leading) {
  if (input && input->scale.defined() && !sae.config.transcoder) {
    out = out * input->scale;
    if (input->shift.defined()) out = out + input->shift;
  }
  if (input && !sae.config.transcoder) return out.view(input->shape);
  leading.push_back(sae.config.d_out);
  return out.view(leading);
}

/// The `x` that decode needs, checked against the number of tokens to decode.
std::optional<SaeInput> input_of(const Sae::Impl& sae, const at::Tensor& x, std::int64_t tokens) {
  require(x.defined() || sae.config.transcoder || sae.config.normalization == SaeNormalization::none,
          ErrorCode::argument, "Sae::decode",
          "expected the encoded x, whose {} normalisation is to be undone, but got none",
          to_string(sae.config.normalization));
  if (!x.defined()) return {};
  auto input = prepare(sae, x, "Sae::decode");
  require(input.x.size(0) == tokens, ErrorCode::shape, "Sae::decode",
          "expected x of {} tokens like the features but got {}", tokens, input.x.size(0));
  return input;
}

}  // namespace

SaeInput prepare(const Sae::Impl& sae, const at::Tensor& x, std::string_view where) {
  const auto d_in = sae.config.d_in;
  require(x.defined() && x.dim() >= 1, ErrorCode::shape, where, "expected x of shape [.., {}] but got {}", d_in,
          x.defined() ? "a scalar" : "an undefined tensor");
  require(at::isFloatingType(x.scalar_type()), ErrorCode::argument, where, "expected x of a floating dtype but got {}",
          c10::toString(x.scalar_type()));
  SaeInput in;
  in.shape = x.sizes().vec();
  in.leading = in.shape;
  in.leading.pop_back();
  if (x.size(-1) != d_in) {
    const bool heads = sae.config.reshape_hook_z && x.dim() >= 2 && x.size(-1) * x.size(-2) == d_in;
    require(heads, ErrorCode::shape, where, "expected x of shape [.., {}]{} but got [{}]", d_in,
            sae.config.reshape_hook_z ? " or [.., heads, d_head]" : "", fmt::join(x.sizes(), ", "));
    in.leading.pop_back();
  }
  in.raw = x.to(sae.weights.W_enc.device(), at::kFloat).reshape({-1, d_in});
  in.x = in.raw;
  switch (sae.config.normalization) {
    case SaeNormalization::none:
      break;
    case SaeNormalization::constant_norm_rescale: {
      // A row of zeros has no direction to rescale: it is passed on as zeros (SAELens gives NaN).
      const auto norm = of_rows(in.raw, [](const at::Tensor& x) { return x.norm(2, {1}, true); });
      in.scale = at::where(norm > 0, norm, at::ones_like(norm)) / std::sqrt(static_cast<double>(d_in));
      in.x = in.raw / in.scale;
      break;
    }
    case SaeNormalization::layer_norm: {
      in.shift = of_rows(in.raw, [](const at::Tensor& x) { return x.mean(1, true); });
      const auto centred = in.raw - in.shift;
      in.scale = of_rows(centred, [](const at::Tensor& x) { return x.std(1, /*unbiased=*/true, /*keepdim=*/true); });
      in.x = centred / (in.scale + 1e-5);
      break;
    }
  }
  if (sae.config.subtract_b_dec) in.x = in.x - sae.weights.b_dec;
  return in;
}

at::Tensor per_feature_activation(SaeActivation activation, at::Tensor z, const SaeWeights& p) {
  const bool in_place = !records_gradient(z);
  switch (activation) {
    case SaeActivation::jumprelu:
    case SaeActivation::batchtopk: {
      const auto open = z > p.threshold;
      return in_place ? z.relu_().mul_(open) : z.relu() * open;
    }
    case SaeActivation::gated:
      return (z * p.r_mag.exp() + p.b_mag).relu() * (z + p.b_gate > 0);
    default:
      return in_place ? z.relu_() : z.relu();
  }
}

}  // namespace sae::detail

at::Tensor SparseActivations::dense() const {
  const auto tokens = offsets.size(0) - 1;
  const auto owner = at::repeat_interleave(offsets.diff());
  return at::zeros({tokens, d_sae}, value.options()).index_put({owner, index}, value);
}

at::Tensor Sae::encode(const at::Tensor& x) const {
  auto in = sae::detail::prepare(*impl_, x, "Sae::encode");
  in.leading.push_back(d_sae());
  return sae::detail::activations(*impl_, in.x).view(in.leading);
}

SparseActivations Sae::encode_sparse(const at::Tensor& x, std::int64_t limit) const {
  require(limit >= 0, ErrorCode::argument, "Sae::encode_sparse", "expected a limit of 0 (all) or more but got {}",
          limit);
  const auto in = sae::detail::prepare(*impl_, x, "Sae::encode_sparse");
  const auto tokens = in.x.size(0), block = sae::detail::block_rows(d_sae());
  std::vector<SparseActivations> parts;
  for (std::int64_t begin = 0; begin == 0 || begin < tokens; begin += block)
    parts.push_back(
        sae::detail::sparse_activations(*impl_, in.x.slice(0, begin, std::min(tokens, begin + block)), limit));
  return sae::detail::concatenate(std::move(parts));
}

at::Tensor Sae::encode_subset(const at::Tensor& x, std::span<const std::int64_t> features) const {
  const auto indices = sae::detail::checked_indices(features, d_sae(), device(), "Sae::encode_subset");
  if (!per_feature()) return encode(x).index_select(-1, indices);
  if (features.empty()) {
    auto shape = sae::detail::prepare(*impl_, x, "Sae::encode_subset").leading;
    shape.push_back(0);
    return at::empty(shape, b_enc().options());
  }
  std::shared_ptr<const Impl::Subset> subset;
  {
    const std::lock_guard lock(impl_->subset_mutex);
    subset = impl_->subset;
  }
  if (!subset || !std::equal(features.begin(), features.end(), subset->features.begin(), subset->features.end())) {
    subset = std::make_shared<const Impl::Subset>(Impl::Subset{{features.begin(), features.end()}, select(features)});
    const std::lock_guard lock(impl_->subset_mutex);
    impl_->subset = subset;
  }
  return subset->sae.encode(x);
}

at::Tensor Sae::decode(const at::Tensor& features, const at::Tensor& x) const {
  require(features.defined() && features.dim() >= 1 && features.size(-1) == d_sae(), ErrorCode::shape, "Sae::decode",
          "expected features of shape [.., {}] but got [{}]", d_sae(),
          features.defined() ? format_text("{}", fmt::join(features.sizes(), ", ")) : "undefined");
  const auto f = features.to(device(), at::kFloat).reshape({-1, d_sae()});
  const auto input = sae::detail::input_of(*impl_, x, f.size(0));
  auto leading = features.sizes().vec();
  leading.pop_back();
  // Activations are mostly zeros: summing the few decoder rows beats a product with all of them.
  constexpr double kSparse = 0.05;
  const bool sparse =
      sae::detail::kernels_apply(f) && sae::detail::kernels_apply(impl_->weights.W_dec) && f.numel() > 0 &&
      static_cast<double>(at::count_nonzero(f).item<std::int64_t>()) < kSparse * static_cast<double>(f.numel());
  auto out = sparse ? sae::detail::sparse_decode(*impl_, sae::detail::sparse_of(f, 0)) : at::addmm(b_dec(), f, W_dec());
  return sae::detail::finish(*impl_, std::move(out), input ? &*input : nullptr, std::move(leading));
}

at::Tensor Sae::decode(const SparseActivations& features, const at::Tensor& x) const {
  require(features.d_sae == d_sae(), ErrorCode::shape, "Sae::decode", "expected activations of {} features but got {}",
          d_sae(), features.d_sae);
  const auto tokens = features.offsets.size(0) - 1;
  const auto input = sae::detail::input_of(*impl_, x, tokens);
  return sae::detail::finish(*impl_, sae::detail::sparse_decode(*impl_, features), input ? &*input : nullptr,
                             input ? input->leading : std::vector<std::int64_t>{tokens});
}

at::Tensor Sae::reconstruct(const at::Tensor& x) const {
  const auto in = sae::detail::prepare(*impl_, x, "Sae::reconstruct");
  const auto tokens = in.x.size(0), block = sae::detail::block_rows(d_sae());
  std::vector<at::Tensor> parts;
  for (std::int64_t begin = 0; begin == 0 || begin < tokens; begin += block) {
    const auto part = in.x.slice(0, begin, std::min(tokens, begin + block));
    parts.push_back(sae::detail::sparse_decode(*impl_, sae::detail::sparse_activations(*impl_, part, 0)));
  }
  auto out = parts.size() == 1 ? parts.front() : at::cat(parts);
  out = sae::detail::finish(*impl_, std::move(out), &in, in.leading);
  if (W_skip().defined()) out = out + at::mm(in.raw, W_skip().t()).view(out.sizes());
  return out;
}

at::Tensor Sae::error(const at::Tensor& x) const {
  require(!config().transcoder, ErrorCode::unsupported, "Sae::error",
          "expected an autoencoder but got a transcoder, whose output is not an approximation of its input");
  return x.to(device(), at::kFloat) - reconstruct(x);
}

}  // namespace steer
