#pragma once
// A steering that warns.

#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <steer/sae/sae.hpp>
#include <steer/steering/steering.hpp>

namespace steer::test {

/// A nudge behind layer 1, for models of width 32, of an SAE that was trained behind layer 0.
inline Steering misplaced_nudge() {
  SaeConfig config;
  config.hook_in = HookPoint{Site::resid_post, 0};
  const Sae sae = Sae::from_weights(
      config,
      {.W_enc = at::randn({32, 4}), .b_enc = at::zeros({4}), .W_dec = at::randn({4, 32}), .b_dec = at::zeros({32})});
  return Steering().nudge(sae, 1, 0.5, {.point = HookPoint{Site::resid_post, 1}});
}

}  // namespace steer::test
