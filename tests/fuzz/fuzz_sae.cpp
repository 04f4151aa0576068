// The configuration beside an SAE's weights, in each of the layouts that have one: what loads encodes and decodes.
// The first byte chooses the weights.
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <steer/core/error.hpp>
#include <steer/io/safetensors_writer.hpp>
#include <steer/sae/sae.hpp>

#include "fuzz_file.hpp"

namespace {

namespace fs = std::filesystem;
constexpr std::int64_t kWidth = 6, kFeatures = 8;

/// Folders of weights, named as each layout names them.
std::vector<fs::path> make_folders() {
  const auto w = [](std::int64_t a, std::int64_t b) { return at::randn({a, b}); };
  const auto v = [](std::int64_t n) { return at::rand({n}); };
  const std::vector<std::vector<std::pair<std::string, at::Tensor>>> layouts = {
      {{"W_enc", w(kWidth, kFeatures)}, {"b_enc", v(kFeatures)}, {"W_dec", w(kFeatures, kWidth)}, {"b_dec", v(kWidth)}},
      {{"W_enc", w(kWidth, kFeatures)},
       {"b_enc", v(kFeatures)},
       {"W_dec", w(kFeatures, kWidth)},
       {"b_dec", v(kWidth)},
       {"threshold", v(kFeatures)}},
      {{"encoder.weight", w(kFeatures, kWidth)},
       {"encoder.bias", v(kFeatures)},
       {"decoder.weight", w(kWidth, kFeatures)},
       {"bias", v(kWidth)}},
      {{"encoder.weight", w(kFeatures, kWidth)},
       {"encoder.bias", v(kFeatures)},
       {"decoder.weight", w(kWidth, kFeatures)},
       {"decoder.bias", v(kWidth)}},
      {{"encoder.weight", w(kFeatures, kWidth)},
       {"encoder.bias", v(kFeatures)},
       {"W_dec", w(kFeatures, kWidth)},
       {"b_dec", v(kWidth)}},
      {{"W_E", w(kWidth, kFeatures)}, {"b_E", v(kFeatures)}, {"W_D", w(kFeatures, kWidth)}, {"b_D", v(kWidth)}},
  };
  const fs::path root = "/dev/shm/fuzz_sae." + std::to_string(::getpid());
  std::vector<fs::path> folders;
  for (const auto& tensors : layouts) {
    folders.push_back(root / std::to_string(folders.size()));
    fs::create_directories(folders.back());
    steer::save_safetensors(folders.back() / "sae_weights.safetensors", tensors, {});
  }
  return folders;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  static const auto folders = make_folders();
  if (size == 0) return 0;
  const auto& folder = folders[data[0] % folders.size()];
  std::ofstream(folder / "cfg.json", std::ios::binary) << steer::fuzz::text_of(data + 1, size - 1);
  steer::fuzz::read_or_refuse<steer::Error>([&] {
    const auto sae = steer::Sae::load(folder, {.norm_scaling_factor = 1, .k = 2});
    const auto features = sae.encode(at::ones({2, kWidth}));
    if (features.size(1) != sae.d_sae()) std::abort();
    (void)sae.decode(features);
  });
  return 0;
}
