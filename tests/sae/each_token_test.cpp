// What an SAE gives a token while sessions promise rows their own bits: the same alone and among others, and what
// libtorch's product gives up to rounding.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <cmath>

#include <steer/sae/sae.hpp>

#include "sae/each_token.hpp"
#include "support.hpp"

namespace steer {
namespace {

struct Kind {
  SaeActivation activation;
  SaeNormalization normalization;
  bool by_rows;  ///< how W_enc lies in memory
};

Sae make(const Kind& kind, std::int64_t width, std::int64_t features) {
  at::manual_seed(width + features);
  SaeConfig config;
  config.activation = kind.activation;
  config.normalization = kind.normalization;
  config.k = 5;
  SaeWeights w;
  w.W_enc = kind.by_rows ? at::randn({features, width}).t() : at::randn({width, features});
  w.W_enc.div_(std::sqrt(static_cast<double>(width)));
  w.b_enc = at::randn({features}) / 4;
  w.W_dec = at::randn({features, width});
  w.b_dec = at::randn({width});
  if (kind.activation == SaeActivation::jumprelu) w.threshold = at::full({features}, 0.1);
  if (kind.activation == SaeActivation::gated) {
    w.b_gate = at::randn({features}) / 4;
    w.r_mag = at::randn({features}) / 4;
    w.b_mag = at::randn({features}) / 4;
  }
  return Sae::from_weights(config, w);
}

TEST(Invariance, SaesGiveATokenItsOwnBits) {
  test::CaseCounter cases("invariance (SAEs)");
  for (const auto activation : {SaeActivation::relu, SaeActivation::jumprelu, SaeActivation::topk,
                                SaeActivation::abstopk, SaeActivation::gated, SaeActivation::matching_pursuit})
    for (const auto normalization :
         {SaeNormalization::none, SaeNormalization::constant_norm_rescale, SaeNormalization::layer_norm})
      for (const bool by_rows : {false, true})
        for (const auto& [width, features] : {std::pair(37, 90), std::pair(768, 3000)}) {
          const Sae sae = make({activation, normalization, by_rows}, width, features);
          const at::Tensor x = at::randn({11, width});
          const at::Tensor usual = sae.encode(x);
          const sae::detail::EachTokenAlone alone;
          const at::Tensor f = sae.encode(x), y = sae.reconstruct(x);
          bool same = true;
          for (std::int64_t t = 0; t < x.size(0); ++t)
            same = same && at::equal(f[t], sae.encode(x[t])) && at::equal(y[t], sae.reconstruct(x[t]));
          const bool right = at::allclose(f, usual, 1e-4, 1e-4);
          cases.count(same && right);
          EXPECT_TRUE(same) << to_string(activation) << " " << to_string(normalization) << " " << width;
          EXPECT_TRUE(right) << to_string(activation) << " " << to_string(normalization) << " " << width;
        }
  EXPECT_FALSE(sae::detail::EachTokenAlone::on());
}

}  // namespace
}  // namespace steer
