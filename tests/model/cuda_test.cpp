// The card's kernels on the CPU, thread by thread: what they compute, that a row's bits do not depend on its batch, and
// whole models against libtorch's operators and the references' golden vectors. What only a card shows (races, speed,
// alignment faults) is left to bench/gpu.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>

#include <steer/model/compare.hpp>

#include "core/format_text.hpp"
#include "model/cuda/backend_cuda.hpp"
#include "model/cuda/emulation.hpp"
#include "model/cuda/kernels.hpp"
#include "model/cuda/runtime.hpp"
#include "model/tiny_models.hpp"
#include "support.hpp"

namespace steer::model::detail {

namespace cuda {
Stream current_stream() { return nullptr; }
void check_launch(const char*) {}
}  // namespace cuda

namespace {

using cuda::emulation::Block;
using test::some_ids;

/// While it lives, sessions compute with the card's kernels.
class OnEmulatedCard {
 public:
  OnEmulatedCard() {
    kernel_backend_for_testing = [](const Transformer& model, KvCache& cache, bool invariant) {
      return std::unique_ptr<Backend>(new CudaBackend(model, cache, invariant));
    };
  }
  ~OnEmulatedCard() { kernel_backend_for_testing = nullptr; }
  OnEmulatedCard(const OnEmulatedCard&) = delete;
  OnEmulatedCard& operator=(const OnEmulatedCard&) = delete;
};

std::vector<float> values(const at::Tensor& t) {
  const at::Tensor flat = t.to(at::kFloat).contiguous();
  return {flat.const_data_ptr<float>(), flat.const_data_ptr<float>() + flat.numel()};
}

TEST(CudaEmulation, ThreadsMeetAtBarriersAndShuffles) {
  std::vector<float> reversed(64), halves(64);
  Block::now().run(1, 64, [&] {
    static float shared[64];
    const int i = static_cast<int>(threadIdx.x);
    shared[i] = static_cast<float>(i);
    __syncthreads();
    reversed[static_cast<std::size_t>(i)] = shared[63 - i];
    float x = static_cast<float>(i);
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
    halves[static_cast<std::size_t>(i)] = x;
  });
  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(reversed[static_cast<std::size_t>(i)], 63 - i);
    EXPECT_EQ(halves[static_cast<std::size_t>(i)], i < 32 ? 496 : 1520);
  }
}

TEST(CudaEmulation, ABarrierThatSomeThreadsNeverReachIsFound) {
  EXPECT_THROW(Block::now().run(1, 64,
                                [&] {
                                  if (threadIdx.x < 40) __syncthreads();
                                }),
               std::logic_error);
}

/// Random bytes as blocks, their half-precision scales kept finite.
at::Tensor random_blocks(std::int64_t blocks, std::int64_t bytes, std::vector<std::int64_t> halves) {
  at::Tensor raw = at::randint(0, 256, {blocks, bytes}, at::kByte);
  for (const std::int64_t at : halves) {
    const at::Tensor scale = (at::rand({blocks}) * 0.2 - 0.1).to(at::kHalf);
    raw.narrow(1, at, 2).copy_(scale.view(at::kByte).view({blocks, 2}));
  }
  if (halves.empty()) raw.select(1, 0).fill_(120).narrow(0, 0, 1).fill_(1);  // powers of two, one subnormal
  return raw.flatten();
}

/// One weight of every type, [n, k].
std::vector<std::pair<std::string, Linear>> weights_of_every_type(std::int64_t n) {
  at::manual_seed(3);
  std::vector<std::pair<std::string, Linear>> out;
  for (const std::int64_t k : {64, 76, 333}) {
    const at::Tensor w = at::randn({n, k}), bias = at::randn({n});
    out.emplace_back(format_text("f32 {}", k), Linear::dense(w, bias));
    out.emplace_back(format_text("f16 {}", k), Linear::dense(w.to(at::kHalf)));
    out.emplace_back(format_text("bf16 {}", k), Linear::dense(w.to(at::kBFloat16), bias));
    out.emplace_back(format_text("int8 {}", k), Linear::int8(w));
  }
  const struct {
    const char* name;
    std::int64_t values, bytes;
    std::vector<std::int64_t> halves;
  } kinds[] = {{"Q4_0", 32, 18, {0}},      {"Q4_1", 32, 20, {0, 2}},  {"Q5_0", 32, 22, {0}},
               {"Q5_1", 32, 24, {0, 2}},   {"Q8_0", 32, 34, {0}},     {"Q4_K", 256, 144, {0, 2}},
               {"Q5_K", 256, 176, {0, 2}}, {"Q6_K", 256, 210, {208}}, {"MXFP4", 32, 17, {}}};
  for (const auto& kind : kinds)
    out.emplace_back(kind.name, Linear::blocks(random_blocks(n * 512 / kind.values, kind.bytes, kind.halves), kind.name,
                                               n, 512, at::randn({n})));
  return out;
}

TEST(CudaKernels, ProductsOfEveryTypeAndARowsBitsAreItsOwn) {
  constexpr std::int64_t n = 11, most = 15;
  for (const auto& [name, weight] : weights_of_every_type(n)) {
    const at::Tensor x = at::randn({most, weight.in_features()}), w = weight.to_f32().to(at::kDouble);
    at::Tensor exact = at::matmul(x.to(at::kDouble), w.t());
    if (weight.bias().defined()) exact += weight.bias();
    const double scale = (x.abs().to(at::kDouble).matmul(w.abs().t())).max().item<double>();
    std::vector<float> alone;
    for (const std::int64_t rows : {1, 2, 3, 4, 7, 8, 15}) {
      at::Tensor y = at::empty({rows, n});
      cuda::multiply(nullptr, weight.view(), weight.bias().defined() ? weight.bias().const_data_ptr<float>() : nullptr,
                     x.const_data_ptr<float>(), rows, y.data_ptr<float>());
      EXPECT_LE((y - exact.narrow(0, 0, rows)).abs().max().item<double>(), 1e-6 * scale) << name << " " << rows;
      if (rows == 1) alone = values(y);
      EXPECT_EQ(values(y[0]), alone) << name << " with " << rows << " rows";
    }
    at::Tensor wide = at::empty({n, weight.in_features()}), narrow = wide.to(at::kBFloat16);
    cuda::widen_to_f32(nullptr, weight.view(), wide.data_ptr<float>());
    cuda::widen_to_bf16(nullptr, weight.view(), static_cast<std::uint16_t*>(narrow.data_ptr()));
    EXPECT_LE((wide - weight.to_f32()).abs().max().item<float>(), 1e-6) << name;
    EXPECT_TRUE(at::equal(narrow, wide.to(at::kBFloat16))) << name;
  }
}

TEST(CudaBackend, EqualsOperatorsInEveryFamilyAndCacheFormat) {
  const OnEmulatedCard card;
  for (const auto* family : {"llama", "gemma2", "gpt2", "gpt_neox"}) {
    const Model model = test::tiny_model(family, 2).load();
    for (const CacheFormat cache : {CacheFormat::f32, CacheFormat::bf16, CacheFormat::f16}) {
      if (cache != CacheFormat::f32 && family != std::string_view("llama")) continue;  // an emulated card is slow
      Session tested(model, {.cache = cache}), reference(model, {.cache = cache, .backend = BackendKind::aten});
      const auto result = compare_backends(tested, reference, some_ids(40), {.tolerance = 2e-5, .decoded = 2});
      const double limit = cache == CacheFormat::f32 ? 2e-5 : 5e-3;
      for (const auto& p : result.points) EXPECT_LE(p.relative(), limit) << family << " " << p.name;
    }
  }
}

/// Prompts, single tokens and chunks in one batch against each sequence alone.
TEST(CudaBackend, ARowsBitsDoNotDependOnItsBatch) {
  const OnEmulatedCard card;
  for (const auto* family : {"gemma2", "llama"}) {
    const Model model = test::tiny_model(family, 2).load();
    Session session(model, {.batch_invariant = true});
    const auto a = some_ids(37, 1), b = some_ids(5, 2), c = some_ids(1, 3);
    const SequenceId s = session.open(), t = session.open(), u = session.open();
    const at::Tensor together = session.step({{s, a}, {t, b}, {u, c}}, Logits::all);
    Session alone(model, {.batch_invariant = true});
    EXPECT_TRUE(at::equal(together.narrow(0, 0, 37), alone.forward(a))) << family;
    EXPECT_TRUE(at::equal(together.narrow(0, 37, 5), alone.forward(b))) << family;
    EXPECT_TRUE(at::equal(together.narrow(0, 42, 1), alone.forward(c))) << family;
    const std::vector<std::int64_t> next{9};
    const at::Tensor stepped = session.step({{s, next, Phase::generated}, {u, next, Phase::generated}}, Logits::last);
    auto longer = a;
    longer.push_back(9);
    EXPECT_TRUE(at::equal(stepped[0], alone.forward(longer)[-1])) << family << ": cached as in one pass";
  }
}

/// Attention over more keys than a split holds, in one block of threads and spread over several.
TEST(CudaKernels, SplitsGiveTheSameBitsWhereverTheyAreSummed) {
  at::manual_seed(8);
  constexpr std::int64_t keys = 1300, heads = 4, kv_heads = 2, d = 24;
  const std::int64_t blocks = (keys + cuda::kBlock - 1) / cuda::kBlock;
  at::Tensor k = at::randn({blocks, kv_heads, d, cuda::kBlock}), v = at::randn({blocks, kv_heads, cuda::kBlock, d});
  std::vector<cuda::CacheBlock> pointers;
  for (std::int64_t i = 0; i < blocks; ++i) pointers.push_back({k[i].data_ptr(), v[i].data_ptr()});
  const at::Tensor sinks = at::randn({heads});
  for (const std::int64_t window : {0, 700, 20})
    for (const std::int64_t queries : {1, 9}) {
      const at::Tensor q = at::randn({queries, heads * d});
      const std::vector<cuda::AttentionRun> runs{{0, queries, keys - queries, 0}};
      std::vector<cuda::AttentionTile> tiles;
      for (std::int64_t pair = 0; pair < queries * heads / kv_heads; pair += cuda::kTilePairs)
        tiles.push_back({0, pair});
      at::Tensor z = at::zeros({queries, heads * d}), spread = at::zeros_like(z);
      cuda::Attention a{.q = q.const_data_ptr<float>(),
                        .z = z.data_ptr<float>(),
                        .blocks = pointers.data(),
                        .runs = runs.data(),
                        .tiles = tiles.data(),
                        .tile_count = std::ssize(tiles),
                        .rows = queries,
                        .splits = (keys + cuda::kSplitKeys - 1) / cuda::kSplitKeys,
                        .heads = heads,
                        .kv_heads = kv_heads,
                        .d_head = d,
                        .window = window,
                        .scale = 0.2f,
                        .soft_cap = 5,
                        .sinks = sinks.const_data_ptr<float>()};
      cuda::attend(nullptr, a);
      at::Tensor partial = at::full({queries * heads * a.splits * (d + 2)}, std::nan(""));
      a.partial = partial.data_ptr<float>(), a.z = spread.data_ptr<float>();
      cuda::attend(nullptr, a);
      EXPECT_TRUE(at::equal(z, spread)) << window << " " << queries;

      // In double, by the definition.
      const at::Tensor all_k = k.permute({1, 2, 0, 3}).reshape({kv_heads, d, -1}).to(at::kDouble),
                       all_v = v.permute({1, 0, 2, 3}).reshape({kv_heads, -1, d}).to(at::kDouble);
      for (std::int64_t i = 0; i < queries; ++i)
        for (std::int64_t h = 0; h < heads; ++h) {
          const std::int64_t end = keys - queries + i + 1,
                             begin = window > 0 ? std::max<std::int64_t>(0, end - window) : 0;
          const at::Tensor query = q[i].narrow(0, h * d, d).to(at::kDouble);
          at::Tensor s = at::matmul(query, all_k[h / 2].narrow(1, begin, end - begin)) * 0.2;
          s = at::cat({at::tanh(s / 5) * 5, sinks[h].to(at::kDouble).view({1})});
          const at::Tensor p = at::softmax(s, 0).narrow(0, 0, end - begin);
          const at::Tensor want = at::matmul(p, all_v[h / 2].narrow(0, begin, end - begin));
          EXPECT_LE((z[i].narrow(0, h * d, d) - want).abs().max().item<double>(), 2e-6);
        }
    }
}

}  // namespace
}  // namespace steer::model::detail
