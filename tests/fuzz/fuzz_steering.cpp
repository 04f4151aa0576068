// Steerings as JSON: steer's own form, the hosted service's and vLLM's. What is read in its own form and written is the
// same when it is read again. "<sae>" stands for the hash of the one SAE there is.
#include <ATen/ops/eye.h>
#include <ATen/ops/zeros.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include <steer/core/error.hpp>
#include <steer/steering/interop.hpp>
#include <steer/steering/steering.hpp>

#include "fuzz_file.hpp"
#include "io/strict_json.hpp"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  using namespace steer;
  static const Sae sae = Sae::from_weights(
      {.hook_in = HookPoint{Site::resid_post, 1}},
      {.W_enc = at::eye(6, 8), .b_enc = at::zeros({8}), .W_dec = at::eye(8, 6), .b_dec = at::zeros({6})});
  std::string text(fuzz::text_of(data, size));
  for (std::size_t at = 0; (at = text.find("<sae>", at)) != std::string::npos;) text.replace(at, 5, sae.hash());
  const auto json = io::detail::find_json(text);
  if (!json) return 0;
  fuzz::read_or_refuse<Error>([&] {
    const auto steering = Steering::from_json(*json, {.saes = {sae}});
    (void)steering.describe();
    if (Steering::from_json(steering.to_json(), {.saes = {sae}}) != steering) std::abort();
  });
  fuzz::read_or_refuse<Error>([&] { (void)from_hosted_variant(*json, sae).describe(); });
  fuzz::read_or_refuse<Error>([&] { (void)from_vllm_json(*json).describe(); });
  return 0;
}
