// Attention over long caches: a prompt's last 256 tokens and one decoded token, as GFLOP/s beside libtorch's GEMM and
// as GB/s of keys and values beside what this machine reads.
//
//   OMP_WAIT_POLICY=passive bench/attention --benchmark_filter='Prompt/.*' --benchmark_repetitions=5
//
// Names say heads, heads of keys and values, width of a head, format of the cache, tokens in it. STEER_ISA = portable |
// avx2 | avx512 runs the loops of that instruction set.

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/randn.h>
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <vector>

#include <steer/core/threads.hpp>

#include "limits.hpp"
#include "model/cpu_attention.hpp"

namespace {

using namespace steer;
namespace cpu = steer::model::detail::cpu;

struct Shape {
  const char* name;
  std::int64_t heads, kv_heads, d_head;
};

/// A sequence's blocks of one layer, filled.
struct Cache {
  Cache(const Shape& shape, CacheFormat format, std::int64_t tokens) {
    const auto type = format == CacheFormat::f32 ? at::kFloat : format == CacheFormat::bf16 ? at::kBFloat16 : at::kHalf;
    for (std::int64_t t = 0; t < tokens; t += cpu::kBlock) {
      const std::int64_t numbers = shape.kv_heads * shape.d_head * cpu::kBlock;
      memory.push_back(at::randn({2, numbers + 16}).to(type));
      auto* const first = static_cast<std::byte*>(memory.back().data_ptr());
      blocks.push_back({first, first + memory.back().element_size() * static_cast<std::size_t>(numbers + 16)});
    }
  }
  std::vector<at::Tensor> memory;
  std::vector<cpu::BlockView> blocks;
};

/// `queries` tokens whose last is the cache's last.
void attention(benchmark::State& state, const Shape& shape, CacheFormat format, std::int64_t queries,
               std::int64_t tokens) {
  const Cache cache(shape, format, tokens);
  const at::Tensor q = at::randn({queries, shape.heads * shape.d_head});
  at::Tensor z = at::empty_like(q);
  cpu::AttentionArgs args;
  args.q = q.const_data_ptr<float>();
  args.z = z.data_ptr<float>();
  args.blocks = cache.blocks;
  args.format = format;
  args.queries = queries;
  args.position = tokens - queries;
  args.n_heads = shape.heads;
  args.n_kv_heads = shape.kv_heads;
  args.d_head = shape.d_head;
  args.scale = 0.1F;
  for (auto _ : state) cpu::attend({&args, 1});
  static const double gemm = bench::measure_gemm_limit(), read = bench::measure_read_limit();
  const auto steps = static_cast<double>(state.iterations());
  const auto pairs =
      static_cast<double>(queries * shape.heads) * (static_cast<double>(tokens - queries) + queries / 2.0);
  const double work = steps * 4 * pairs * static_cast<double>(shape.d_head);
  const double bytes =
      steps * 2 * static_cast<double>(tokens * shape.kv_heads * shape.d_head) * (format == CacheFormat::f32 ? 4 : 2);
  using benchmark::Counter;
  state.counters["GFLOP/s"] = Counter(work / 1e9, Counter::kIsRate);
  state.counters["of_gemm"] = Counter(work / gemm, Counter::kIsRate);
  state.counters["GB/s"] = Counter(bytes / 1e9, Counter::kIsRate);
  state.counters["of_read"] = Counter(bytes / read, Counter::kIsRate);
}

}  // namespace

int main(int argc, char** argv) {
  steer::set_threads(0);
  constexpr Shape shapes[] = {{"110M", 12, 12, 64}, {"0.5B", 14, 2, 64}, {"8B", 32, 8, 128}};
  for (const Shape& shape : shapes)
    for (const CacheFormat format : {CacheFormat::f32, CacheFormat::bf16})
      for (const std::int64_t tokens : {1024, 4096, 16384})
        for (const std::int64_t queries : {256, 1})
          benchmark::RegisterBenchmark(
              fmt::format("{}/{}_{}x{}x{}/{}/{}", queries == 1 ? "Decode" : "Prompt", shape.name, shape.heads,
                          shape.kv_heads, shape.d_head, format == CacheFormat::f32 ? "f32" : "bf16", tokens)
                  .c_str(),
              [=](benchmark::State& state) { attention(state, shape, format, queries, tokens); })
              ->UseRealTime()
              ->MinTime(0.1)
              ->Unit(benchmark::kMillisecond);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
