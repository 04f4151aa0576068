#include "eval/run/calibrate.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <tuple>

#include "model/kernels/linear.hpp"

namespace steer::eval::detail {
namespace {

constexpr std::int64_t kWeights = 16 << 20;  // timed of one kind: larger than caches
constexpr std::int64_t kPromptRows = 128;
constexpr int kRepeats = 2;

/// The matrices of one storage type and width, together.
struct Kind {
  std::int64_t elements = 0, bytes = 0, out = 0;
};

/// A matrix of random weights, kept as the model would keep one of this storage type.
model::detail::Linear random_linear(const std::string& storage, const Kind& kind, std::int64_t out, std::int64_t in,
                                    const LoadOptions& load) {
  const at::Device device = load.device;
  const bool stored = load.weights == WeightFormat::stored;
  if (stored &&
      model::detail::Linear::keeps_blocks(storage))  // the same byte everywhere: small finite scales, whatever the type
    return model::detail::Linear::blocks(at::full({out * in * kind.bytes / kind.elements}, 0x11, at::kByte), storage,
                                         out, in)
        .to(device);
  const at::Tensor weight = at::empty({out, in}).uniform_(-1, 1);
  if (load.weights == WeightFormat::int8) return model::detail::Linear::int8(weight).to(device);
  if (stored && storage == "F16") return model::detail::Linear::dense(weight.to(at::kHalf)).to(device);
  if (load.weights == WeightFormat::bf16 || (stored && storage == "BF16"))
    return model::detail::Linear::dense(weight.to(at::kBFloat16)).to(device);
  return model::detail::Linear::dense(weight).to(device);
}

double seconds_a_row(const model::detail::Linear& weight, std::int64_t rows) {
  const at::Tensor x = at::ones({rows, weight.in_features()}).to(weight.device());
  double best = 0;
  for (int repeat = 0; repeat <= kRepeats; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    weight(x).select(0, 0).cpu();  // on an accelerator: waits for the product
    const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (repeat > 0) best = repeat == 1 ? elapsed : std::min(best, elapsed);  // the first one warms up
  }
  return best / static_cast<double>(rows);
}

}  // namespace

TokenCost calibrate(const ModelConfig& config, const TensorReader& tensors, const LoadOptions& load,
                    std::int64_t batch) {
  c10::NoGradGuard no_grad;
  std::map<std::tuple<std::string, std::int64_t, bool>, Kind>
      kinds;  // by storage, width and whether it is the unembedding
  const TensorInfo* unembedding = nullptr;
  for (const auto& tensor : tensors.tensors()) {
    if (tensor.shape.size() != 2) continue;
    if (tensor.shape[0] == config.vocab_size) {  // the embedding is only looked up; tied or not, the last one unembeds
      unembedding = &tensor;
      continue;
    }
    auto& kind = kinds[{tensor.storage, tensor.shape[1], false}];
    kind.elements += tensor.shape[0] * tensor.shape[1];
    kind.bytes += tensor.bytes;
    kind.out = std::max(kind.out, tensor.shape[0]);
  }
  if (unembedding)
    kinds[{unembedding->storage, config.d_model, true}] = {config.vocab_size * config.d_model, unembedding->bytes,
                                                           config.vocab_size};
  TokenCost cost;
  for (const auto& [key, kind] : kinds) {
    const auto& [storage, in, last] = key;
    if (kind.elements == 0) continue;
    const std::int64_t out = std::clamp<std::int64_t>(kWeights / in, 1, kind.out);
    const model::detail::Linear weight = random_linear(storage, kind, out, in, load);
    const double scale = static_cast<double>(kind.elements) / static_cast<double>(out * in);
    (last ? cost.logits : cost.prompt_token) += scale * seconds_a_row(weight, kPromptRows);
    cost.new_token += scale * seconds_a_row(weight, std::max<std::int64_t>(batch, 1));
  }
  return cost;
}

}  // namespace steer::eval::detail
