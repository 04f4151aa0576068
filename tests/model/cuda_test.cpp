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

#include <array>
#include <cmath>
#include <tuple>

#include <steer/model/compare.hpp>

#include "core/format_text.hpp"
#include "model/cuda/backend_cuda.hpp"
#include "model/cuda/kernels.hpp"
#include "model/emulated_card.hpp"
#include "model/tiny_models.hpp"
#include "support.hpp"

namespace steer::model::detail {

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

cuda::Multiplied into(const Linear& weight, at::Tensor& y) {
  return {weight.view(), weight.bias().defined() ? weight.bias().const_data_ptr<float>() : nullptr,
          y.data_ptr<float>()};
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
      const cuda::Multiplied one = into(weight, y);
      cuda::multiply(nullptr, {&one, 1}, x.const_data_ptr<float>(), rows);
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

TEST(CudaKernels, EmbeddingsOfEveryTypeAndLearnedPositions) {
  at::manual_seed(4);
  const std::vector<std::int64_t> ids{10, 0, 3, 3}, positions{2, 0, 5, 1};
  std::vector<cuda::Embedded> tokens;
  for (std::size_t i = 0; i < ids.size(); ++i) tokens.push_back({ids[i], positions[i]});
  for (const auto& [name, kept] : weights_of_every_type(11)) {
    const Linear& weight = kept;  // no structured binding: clang with OpenMP captures none
    const std::int64_t width = weight.in_features();
    const at::Tensor learned = at::randn({6, width}), rows = weight.gather(ids) * 1.5f;
    at::Tensor out = at::full({4, width}, std::nan(""));
    const auto embed = [&](const float* positions_of) {
      cuda::embed(nullptr, weight.view(), tokens.data(), 4, 1.5f, positions_of, out.data_ptr<float>());
    };
    embed(nullptr);
    EXPECT_LE((out - rows).abs().max().item<float>(), 1e-6) << name;
    embed(learned.const_data_ptr<float>());
    for (std::int64_t r = 0; r < 4; ++r)
      EXPECT_LE((out[r] - (rows[r] + learned[positions[static_cast<std::size_t>(r)]])).abs().max().item<float>(), 1e-6)
          << name;
  }
}

TEST(CudaKernels, NumbersAreScaledAndCapped) {
  const at::Tensor x = at::randn({3, 150}) * 4;
  at::Tensor scaled = x.clone(), capped = x.clone();
  cuda::scale(nullptr, scaled.data_ptr<float>(), x.numel(), 0.25f, 0);
  cuda::scale(nullptr, capped.data_ptr<float>(), x.numel(), 2, 3);
  EXPECT_TRUE(at::equal(scaled, x * 0.25));
  EXPECT_LE((capped - at::tanh(x * 2 / 3) * 3).abs().max().item<float>(), 1e-6);
}

/// Weights of one x in as few launches as there are types, whatever their sizes: the bits of each alone.
TEST(CudaKernels, WeightsTogetherGiveTheBitsOfEachAlone) {
  at::manual_seed(5);
  constexpr std::int64_t k = 96, rows = 7;
  const at::Tensor x = at::randn({rows, k});
  std::vector<Linear> weights;
  for (const std::int64_t n : {40, 3, 17, 1, 33})
    weights.push_back(Linear::dense(at::randn({n, k}).to(at::kHalf), at::randn({n})));
  for (const std::int64_t n : {5, 18}) weights.push_back(Linear::int8(at::randn({n, k})));
  std::vector<at::Tensor> together;
  std::vector<cuda::Multiplied> all;
  for (const Linear& w : weights) {
    together.push_back(at::full({rows, w.out_features()}, std::nan("")));
    all.push_back(into(w, together.back()));
  }
  const std::int64_t before = Block::now().launches;
  cuda::multiply(nullptr, all, x.const_data_ptr<float>(), rows);
  EXPECT_EQ(Block::now().launches - before, 3 * 3) << "four weights, one, and two of another type; 4, 2 and 1 rows";
  for (std::size_t i = 0; i < weights.size(); ++i) {
    at::Tensor alone = at::empty_like(together[i]);
    const cuda::Multiplied one = into(weights[i], alone);
    cuda::multiply(nullptr, {&one, 1}, x.const_data_ptr<float>(), rows);
    EXPECT_TRUE(at::equal(together[i], alone)) << i;
  }
}

TEST(CudaKernels, ANormThatAddsGivesTheBitsOfBoth) {
  at::manual_seed(6);
  for (const std::int64_t width : {40, 300, 1030})
    for (const bool centred : {false, true}) {
      at::Tensor x = at::randn({3, width}), out = at::empty_like(x), want = at::empty_like(x);
      const at::Tensor y = at::randn({3, width}), gain = at::randn({width});
      at::Tensor sum = x.clone();
      cuda::add(nullptr, sum.data_ptr<float>(), y.const_data_ptr<float>(), sum.numel());
      cuda::norm(nullptr, want.data_ptr<float>(), sum.data_ptr<float>(), nullptr, gain.const_data_ptr<float>(), nullptr,
                 3, width, 1e-5f, centred);
      cuda::norm(nullptr, out.data_ptr<float>(), x.data_ptr<float>(), y.const_data_ptr<float>(),
                 gain.const_data_ptr<float>(), nullptr, 3, width, 1e-5f, centred);
      EXPECT_TRUE(at::equal(x, sum) && at::equal(out, want)) << width << " " << centred;
    }
}

/// Keys that are turned on their way into the cache, and queries beside them, against turning first and storing then.
TEST(CudaKernels, StoringTurnsAsRotateDoes) {
  at::manual_seed(7);
  constexpr std::int64_t rows = 3, heads = 4, kv_heads = 2, d = 10;
  for (const std::int64_t half : {5, 3})  // all of a head, and a part
    for (const auto& kind : {std::pair{cuda::CacheType::f32, at::kFloat},
                             {cuda::CacheType::bf16, at::kBFloat16},
                             {cuda::CacheType::f16, at::kHalf}}) {
      const auto type = kind.second;
      const at::Tensor q = at::randn({rows, heads * d}), k = at::randn({rows, kv_heads * d}),
                       v = at::randn({rows, kv_heads * d}), cos = at::randn({rows, half}),
                       sin = at::randn({rows, half});
      const auto turned = [&](const at::Tensor& x, std::int64_t n) {
        at::Tensor y = x.clone();
        cuda::rotate(nullptr, y.data_ptr<float>(), cos.const_data_ptr<float>(), sin.const_data_ptr<float>(), rows, n, d,
                     half);
        return y;
      };
      const auto stored = [&](const at::Tensor& keys, const cuda::Rotation& rotation) {
        at::Tensor block = at::zeros({2, kv_heads, d, cuda::kBlock}, type);
        std::vector<cuda::CacheSlot> slots;
        for (const std::int64_t slot : {31, 0, 7}) slots.push_back({{block[0].data_ptr(), block[1].data_ptr()}, slot});
        cuda::store(nullptr, slots.data(), keys.const_data_ptr<float>(), v.const_data_ptr<float>(), rotation, rows,
                    kv_heads, d, kind.first);
        return block;
      };
      at::Tensor query = q.clone();
      const at::Tensor at_once =
          stored(k, {cos.const_data_ptr<float>(), sin.const_data_ptr<float>(), query.data_ptr<float>(), heads, half});
      EXPECT_TRUE(at::equal(at_once, stored(turned(k, kv_heads), {}))) << half;
      EXPECT_TRUE(at::equal(query, turned(q, heads))) << half;
      for (std::int64_t row = 0; row < rows; ++row)
        for (std::int64_t h = 0; h < kv_heads; ++h) {
          const std::int64_t slot = std::array{31, 0, 7}[static_cast<std::size_t>(row)];
          EXPECT_TRUE(at::equal(at_once[0][h].select(1, slot), turned(k, kv_heads)[row].narrow(0, h * d, d).to(type)));
          EXPECT_TRUE(at::equal(at_once[1][h].view({cuda::kBlock, d})[slot], v[row].narrow(0, h * d, d).to(type)));
        }
    }
}

/// What a card does for a token is what it is told to in launches: norms with the sums before them, q with k and v,
/// rope with the cache, attention, o, norm, gate with up, their product, down.
TEST(CudaBackend, ALayerOfADecodedTokenIsNineLaunches) {
  const OnEmulatedCard card;
  std::vector<std::int64_t> launches;
  for (const std::int64_t layers : {1, 2, 4}) {
    const Model model = test::tiny_model("llama", layers).load();
    Session session(model);
    const SequenceId s = session.open();
    session.step({{s, some_ids(5)}}, Logits::last);
    const std::vector<std::int64_t> next{9};
    const std::int64_t before = Block::now().launches;
    session.step({{s, next, Phase::generated}}, Logits::last);
    launches.push_back(Block::now().launches - before);
  }
  EXPECT_EQ(launches[1] - launches[0], 9);
  EXPECT_EQ(launches[2] - launches[1], 18);
}

/// Sequences of several lengths that grow over blocks' ends, come and go: the logits of every step.
std::vector<at::Tensor> steps_of(Session& session) {
  std::vector<SequenceId> open;
  const auto begin = [&](std::int64_t prompt, int seed) {
    open.push_back(session.open());
    return session.step({{open.back(), some_ids(prompt, static_cast<std::uint64_t>(seed))}});
  };
  std::vector<at::Tensor> logits{begin(29, 1), begin(1, 2), begin(4, 3)};
  for (std::int64_t step = 0; step < 13; ++step) {
    if (step == 6) {
      session.close(open[1]);
      open.erase(open.begin() + 1);
    }
    if (step == 9)
      for (int i = 0; i < 2; ++i) logits.push_back(begin(2 + i, 4 + i));
    std::vector<std::vector<std::int64_t>> ids;
    for (const SequenceId s : open) ids.push_back({(7 * step + s) % 60});
    std::vector<StepInput> inputs;
    for (std::size_t i = 0; i < open.size(); ++i) inputs.push_back({open[i], ids[i], Phase::generated});
    logits.push_back(session.step(inputs));
  }
  return logits;
}

TEST(CudaBackend, AStepFromARecordingHasTheBitsOfOneWithout) {
  const OnEmulatedCard card;
  const std::tuple<const char*, std::int64_t, bool> models[] = {
      {"llama", 2, false}, {"gemma2", 2, true}, {"gpt2", 1, false}, {"gpt_neox", 1, true}};
  for (const auto& [family, layers, invariant] : models) {
    const Model model = test::tiny_model(family, layers).load();
    Session plain(model, {.batch_invariant = invariant, .graphs = false}),
        tested(model, {.batch_invariant = invariant});
    const auto wanted = steps_of(plain);
    const std::int64_t made = cuda::recordings, done = cuda::replays;
    const auto got = steps_of(tested);
    ASSERT_EQ(got.size(), wanted.size());
    for (std::size_t i = 0; i < got.size(); ++i) EXPECT_TRUE(at::equal(got[i], wanted[i])) << family << ", step " << i;
    // Places for 4 rows of one block and of two, then for 2 rows of two: met, recorded, done again. Then 4 again.
    EXPECT_EQ(cuda::recordings - made, 3) << family;
    EXPECT_EQ(cuda::replays - done, 1 + 1 + 1 + 4) << family;
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
