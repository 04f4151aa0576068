#include <steer/features/neighbours.hpp>

#include <ATen/TensorOperators.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/zeros.h>

#include <steer/core/error.hpp>

namespace steer {
namespace {

void check(const Sae& sae, std::int64_t feature, std::int64_t top, std::string_view where) {
  require(feature >= 0 && feature < sae.d_sae(), ErrorCode::argument, where, "expected a feature in [0, {}) but got {}",
          sae.d_sae(), feature);
  require(top > 0, ErrorCode::argument, where, "expected at least one neighbour but got {}", top);
}

std::vector<FeatureNeighbour> best(at::Tensor similarity, std::int64_t feature, std::int64_t top) {
  similarity[feature] = -2;
  const auto [values, indices] = similarity.topk(std::min(top, similarity.numel() - 1));
  std::vector<FeatureNeighbour> found;
  for (std::int64_t i = 0; i < indices.numel(); ++i)
    found.push_back({indices[i].item<std::int64_t>(), values[i].item<double>()});
  return found;
}

}  // namespace

std::vector<FeatureNeighbour> neighbours_by_decoder(const Sae& sae, std::int64_t feature, std::int64_t top) {
  check(sae, feature, top, "neighbours_by_decoder");
  const at::Tensor& rows = sae.W_dec();
  const at::Tensor norms = rows.norm(2, 1).clamp_min(1e-12);
  const at::Tensor row = rows[feature];
  return best(at::mv(rows, row / norms[feature]) / norms, feature, top);
}

std::vector<FeatureNeighbour> neighbours_by_coactivation(Session& session, const Sae& sae, std::int64_t feature,
                                                         std::span<const TokenizedText> texts, std::int64_t top) {
  constexpr auto where = "neighbours_by_coactivation";
  check(sae, feature, top, where);
  at::Tensor active = at::zeros({sae.d_sae()}, at::kDouble), both = active.clone();
  double tokens = 0;
  visit_activations(session, sae, texts, [&](std::size_t, const at::Tensor& x) {
    const at::Tensor on = sae.encode(x).cpu().ne(0).to(at::kFloat);
    active += on.sum(0);
    both += at::mv(on.t(), on.select(1, feature));
    tokens += static_cast<double>(on.size(0));
  });
  const double own = active[feature].item<double>();
  require(own > 0 && own < tokens, ErrorCode::argument, where,
          "expected texts on some of whose {} tokens feature {} is active but it is active on {}", tokens, feature,
          own);
  const at::Tensor spread = (active * (tokens - active) * (own * (tokens - own))).sqrt().clamp_min(1e-12);
  return best((both * tokens - active * own) / spread, feature, top);
}

}  // namespace steer
