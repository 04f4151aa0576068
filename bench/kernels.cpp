// Products of the model at the widths it runs: GB/s of weight read and GFLOP/s, each with its share of what this
// machine can do (reading memory with all threads; libtorch's GEMM at M = 256), beside libtorch's own product.
//
//   OMP_WAIT_POLICY=passive bench/kernels --benchmark_filter='Product/q4_k.*' --benchmark_repetitions=5
//
// STEER_ISA = portable | avx2 | avxvnni | avx512 | amx runs the kernels of that instruction set.

#include <ATen/ops/linear.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <benchmark/benchmark.h>

#include <string>
#include <string_view>
#include <vector>

#include <steer/core/threads.hpp>

#include "limits.hpp"
#include "model/kernels/linear.hpp"

namespace {

using steer::model::detail::Linear;

double read_limit() {
  static const double limit = steer::bench::measure_read_limit();
  return limit;
}
double gemm_limit() {
  static const double limit = steer::bench::measure_gemm_limit();
  return limit;
}

/// A weight of the type in `storage` with random contents; several of them, so that none stays in the cache.
std::vector<Linear> weights(std::string_view storage, std::int64_t n, std::int64_t k) {
  std::vector<Linear> out;
  std::int64_t total = 0;
  while (total < (96 << 20)) {
    if (Linear::keeps_blocks(storage)) {
      const std::int64_t block = storage.ends_with("K") ? 256 : 32;
      const std::int64_t bytes = storage == "Q8_0"    ? 34
                                 : storage == "Q4_0"  ? 18
                                 : storage == "Q5_0"  ? 22
                                 : storage == "Q4_K"  ? 144
                                 : storage == "MXFP4" ? 17
                                                      : 210;
      // Small bytes keep every f16 scale finite.
      out.push_back(Linear::blocks(at::randint(0, 60, {n * k / block * bytes}, at::kByte), storage, n, k));
    } else if (storage == "int8") {
      out.push_back(Linear::int8(at::randn({n, k})));
    } else {
      out.push_back(Linear::dense(at::randn({n, k}).to(storage == "bf16" ? at::kBFloat16 : at::kFloat)));
    }
    total += out.back().bytes();
  }
  return out;
}

void report(benchmark::State& state, std::int64_t bytes, std::int64_t m, std::int64_t n, std::int64_t k) {
  using benchmark::Counter;
  const auto steps = static_cast<double>(state.iterations());
  const double read = static_cast<double>(bytes) * steps, work = 2.0 * m * n * k * steps;
  state.counters["GB/s"] = Counter(read / 1e9, Counter::kIsRate);
  state.counters["GFLOP/s"] = Counter(work / 1e9, Counter::kIsRate);
  state.counters["of_read_limit"] = Counter(read / read_limit(), Counter::kIsRate);
  state.counters["of_gemm_limit"] = Counter(work / gemm_limit(), Counter::kIsRate);
}

void product(benchmark::State& state, const std::string& storage, std::int64_t n, std::int64_t k) {
  const auto linears = weights(storage, n, k);
  const std::int64_t m = state.range(0);
  const at::Tensor x = at::randn({m, k});
  std::vector<float> y(m * n);
  std::size_t next = 0;
  for (auto _ : state) {
    linears[next++ % linears.size()].apply(x.const_data_ptr<float>(), m, y.data());
    benchmark::ClobberMemory();
  }
  report(state, linears[0].bytes(), m, n, k);
}

void libtorch(benchmark::State& state, at::ScalarType dtype, std::int64_t n, std::int64_t k) {
  std::vector<at::Tensor> ws;
  for (std::int64_t total = 0; total < (96 << 20); total += static_cast<std::int64_t>(ws.back().nbytes())) {
    ws.push_back(at::randn({n, k}).to(dtype));
  }
  const at::Tensor x = at::randn({state.range(0), k}).to(dtype);
  std::size_t next = 0;
  for (auto _ : state) benchmark::DoNotOptimize(at::linear(x, ws[next++ % ws.size()]));
  report(state, static_cast<std::int64_t>(ws[0].nbytes()), state.range(0), n, k);
}

}  // namespace

int main(int argc, char** argv) {
  steer::set_threads(0);
  constexpr std::int64_t shapes[][2] = {{2048, 768}, {768, 2048}, {8192, 2048}};
  const std::vector<std::int64_t> rows = {1, 2, 4, 8, 16, 32, 64, 128, 256};
  for (const auto& [n, k] : shapes) {
    const std::string shape = std::to_string(n) + "x" + std::to_string(k);
    for (const char* type : {"f32", "bf16", "int8", "Q8_0", "Q4_0", "Q5_0", "Q4_K", "Q6_K", "MXFP4"}) {
      auto* b =
          benchmark::RegisterBenchmark(("Product/" + std::string(type) + "/" + shape).c_str(), product, type, n, k);
      for (auto m : rows) b->Arg(m);
      b->UseRealTime()->MinTime(0.1);
    }
    for (auto dtype : {at::kFloat, at::kBFloat16}) {
      auto* b = benchmark::RegisterBenchmark(
          ("Libtorch/" + std::string(dtype == at::kFloat ? "f32/" : "bf16/") + shape).c_str(), libtorch, dtype, n, k);
      for (auto m : rows) b->Arg(m);
      b->UseRealTime()->MinTime(0.1);
    }
  }
  benchmark::Initialize(&argc, argv);
  benchmark::AddCustomContext("kernels", steer::model::detail::kernels().name);
  benchmark::AddCustomContext("threads", std::to_string(steer::threads()));
  benchmark::AddCustomContext("read limit, GB/s", std::to_string(read_limit() / 1e9));
  benchmark::AddCustomContext("GEMM limit, GFLOP/s", std::to_string(gemm_limit() / 1e9));
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
