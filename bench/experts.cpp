// A mixture of experts: all experts' products of a kind in one parallel region, as the CPU backend runs them, beside
// one expert after another. In turn, in one process; one JSON line for each format and number of tokens: microseconds
// of a layer [quartiles] and how many times faster together is [quartiles of the pairs' ratios].
//
//   OMP_WAIT_POLICY=passive bench/experts [EXPERTS PER_TOKEN WIDTH INNER [PAIRS]]   (128 8 2048 768: qwen3_moe's
//   30B-A3B)

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include <steer/core/threads.hpp>

#include "limits.hpp"
#include "model/backend.hpp"
#include "model/experts.hpp"

namespace {

using namespace steer;
using namespace steer::model::detail;

Linear random_weight(const std::string& format, std::int64_t out, std::int64_t in) {
  if (format == "MXFP4")  // powers of two about 1/32, any 4 bits
    return Linear::blocks(at::randint(119, 123, {out * in / 32 * 17}, at::kByte), format, out, in);
  if (format == "Q4_K")  // small bytes keep every f16 scale finite
    return Linear::blocks(at::randint(0, 60, {out * in / 256 * 144}, at::kByte), format, out, in);
  const at::Tensor weight = at::randn({out, in}) / std::sqrt(static_cast<double>(in));
  if (format == "int8") return Linear::int8(weight);
  return Linear::dense(weight.to(format == "bf16" ? at::kBFloat16 : at::kFloat));
}

at::Tensor one_after_another(const at::Tensor& x, const at::Tensor& router, const std::vector<MlpWeights>& each,
                             const ModelConfig& config, CpuBackend& backend) {
  const std::int64_t width = x.size(1);
  const Routing routing = route(router.const_data_ptr<float>(), x.size(0), config.experts);
  at::Tensor out = at::zeros({x.size(0), width});
  for (std::size_t e = 0; e < each.size(); ++e) {
    const auto rows = std::ssize(routing[e]);
    if (rows == 0) continue;
    at::Tensor in = at::empty({rows, width}), gate = at::empty({rows, config.experts.d_mlp}), up = at::empty_like(gate),
               made = at::empty_like(in);
    for (std::int64_t r = 0; r < rows; ++r)
      std::copy_n(x.const_data_ptr<float>() + routing[e][static_cast<std::size_t>(r)].row * width, width,
                  in.data_ptr<float>() + r * width);
    const LinearCall calls[] = {{&each[e].gate, gate.data_ptr<float>(), 0}, {&each[e].up, up.data_ptr<float>(), 0}};
    apply_together(in.const_data_ptr<float>(), rows, calls);
    backend.activate(gate, up);
    each[e].down.apply(gate.const_data_ptr<float>(), rows, made.data_ptr<float>());
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto& [row, weight] = routing[e][static_cast<std::size_t>(r)];
      float* to = out.data_ptr<float>() + row * width;
      const float* from = made.const_data_ptr<float>() + r * width;
      for (std::int64_t i = 0; i < width; ++i) to[i] += weight * from[i];
    }
  }
  return out;
}

/// "median [lower quartile, upper quartile]"
std::string quartiles(std::vector<double> values, const char* digits) {
  std::sort(values.begin(), values.end());
  const auto at = [&](std::size_t part) { return values[(values.size() - 1) * part / 4]; };
  return fmt::format(fmt::runtime(fmt::format("[{0}, {0}, {0}]", digits)), at(1), at(2), at(3));
}

}  // namespace

int main(int argc, char** argv) {
  set_threads(0);
  const auto number = [&](int i, std::int64_t missing) { return argc > i ? std::atoll(argv[i]) : missing; };
  Transformer model;
  model.config.experts = {.count = number(1, 128), .per_token = number(2, 8), .d_mlp = number(4, 768)};
  model.config.d_model = number(3, 2048);
  model.part = model.config;
  const std::int64_t pairs = number(5, 15), width = model.config.d_model, inner = model.config.experts.d_mlp;
  KvCache cache(model.config, at::kCPU, CacheFormat::f32, 0);
  CpuBackend backend(model, cache, false);
  for (const std::string format : {"f32", "bf16", "int8", "Q4_K", "MXFP4"}) {
    std::vector<MlpWeights> each;
    for (std::int64_t e = 0; e < model.config.experts.count; ++e)
      each.push_back({random_weight(format, inner, width), random_weight(format, inner, width),
                      random_weight(format, width, inner)});
    for (const std::int64_t tokens : {1, 4, 16, 64, 256}) {
      // Several inputs, so that their experts do not stay in the cache.
      std::vector<double> together, apart, ratio;
      for (std::int64_t pair = -1; pair < pairs; ++pair) {
        const at::Tensor x = at::randn({tokens, width}), router = at::randn({tokens, model.config.experts.count}),
                         other = at::randn_like(x), other_router = at::randn_like(router);
        backend.begin(tokens, 0);
        const auto a = [&] { (void)backend.experts(x, router, each, {}); };
        const auto b = [&] { (void)one_after_another(other, other_router, each, model.config, backend); };
        double first = 0, second = 0;
        if (pair % 2 == 0) {
          first = bench::seconds(a);
          second = bench::seconds(b);
        } else {
          second = bench::seconds(b);
          first = bench::seconds(a);
        }
        if (pair < 0) continue;  // warms up
        together.push_back(first * 1e6);
        apart.push_back(second * 1e6);
        ratio.push_back(second / first);
      }
      fmt::print(R"({{"format": "{}", "tokens": {}, "together_us": {}, "apart_us": {}, "ratio": {}}})"
                 "\n",
                 format, tokens, quartiles(together, "{:.0f}"), quartiles(apart, "{:.0f}"), quartiles(ratio, "{:.2f}"));
      std::fflush(stdout);
    }
  }
  return 0;
}
