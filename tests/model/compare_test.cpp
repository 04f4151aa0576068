#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

#include <steer/model/compare.hpp>

#include "model/tiny_models.hpp"
#include "support.hpp"

namespace steer {
namespace {

using test::some_ids;

TEST(CompareBackends, KernelsEqualOperatorsInEveryFamilyAndCacheFormat) {
  for (const auto* family : test::kFamilies) {
    const Model model = test::tiny_model(family).load();
    for (const CacheFormat cache : {CacheFormat::f32, CacheFormat::bf16, CacheFormat::f16}) {
      Session tested(model, {.cache = cache}), reference(model, {.cache = cache, .backend = BackendKind::aten});
      const auto result = compare_backends(tested, reference, some_ids(70), {.tolerance = 2e-5, .decoded = 3});
      const auto points = static_cast<std::size_t>(test::all_points(model.config()).size());
      EXPECT_EQ(result.points.size(), 4 * (points + 1)) << "a prompt and three tokens, the logits too";
      // Rounding to 16 bits may tip a key to its neighbour where the backends differ in the last bit.
      const double limit = cache == CacheFormat::f32 ? 2e-5 : 5e-3;
      for (const auto& p : result.points) EXPECT_LE(p.relative(), limit) << family << " " << p.name;
    }
  }
}

TEST(CompareBackends, FindsThePointThatWasTamperedWith) {
  const Model model = test::tiny_model("qwen3").load();
  Session tested(model), reference(model, {.backend = BackendKind::aten});
  const auto off = tested.hook("blocks.1.mlp.hook_post", [](HookContext& at) { at.value[-1][7].add_(0.5); });
  const auto result = compare_backends(tested, reference, some_ids(12));
  const auto* first = result.first_difference();
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(first->name, "blocks.1.mlp.hook_post");
  EXPECT_NEAR(first->largest, 0.5, 1e-4);
  EXPECT_EQ(first->position, 0);
  EXPECT_EQ(first->at_position, 9) << "the last of ten prompt tokens";
  EXPECT_EQ(first->at_index, 7);
  EXPECT_NE(result.text().find("first difference above 0.0001: blocks.1.mlp.hook_post"), std::string::npos);
  // With layers compared one by one, layer 2 is right again.
  const auto alone = compare_backends(tested, reference, some_ids(12), {.layers_alone = true});
  for (const auto& p : alone.points)
    if (p.name.starts_with("blocks.2.")) {
      EXPECT_LE(p.relative(), 1e-4) << p.name;
    }
}

TEST(CompareBackends, NotANumberIsADifference) {
  const Model model = test::tiny_model("llama").load();
  Session tested(model), reference(model, {.backend = BackendKind::aten});
  const auto off = tested.hook("blocks.2.hook_resid_mid", [](HookContext& at) { at.value[0][3].fill_(std::nan("")); });
  const auto result = compare_backends(tested, reference, some_ids(12));
  ASSERT_NE(result.first_difference(), nullptr);
  EXPECT_EQ(result.first_difference()->name, "blocks.2.hook_resid_mid");
  EXPECT_EQ(result.first_difference()->at_index, 3);
}

TEST(CompareBackends, RefusesWhatCannotBeCompared) {
  const Model model = test::tiny_model("llama").load();
  Session one(model), two(model), short_chunks(model, {.prompt_chunk = 4}), other(test::tiny_model("llama", 2).load());
  EXPECT_STEER_ERROR(compare_backends(one, one, some_ids(9)), ErrorCode::argument, "one twice");
  EXPECT_STEER_ERROR(compare_backends(one, other, some_ids(9)), ErrorCode::argument, "one shape");
  EXPECT_STEER_ERROR(compare_backends(one, two, some_ids(2)), ErrorCode::argument, "longer prompt");
  EXPECT_STEER_ERROR(compare_backends(short_chunks, two, some_ids(9)), ErrorCode::argument, "prompt_chunk");
  EXPECT_EQ(one.cache_bytes() + two.cache_bytes() + short_chunks.cache_bytes(), 0) << "nothing stays open";
}

/// What is kept in 16 bits is each key and value rounded once, to nearest: attention over a cache whose keys and values
/// were rounded by libtorch beforehand has the same bits.
TEST(CacheFormats, RoundEachKeyAndValueOnce) {
  const Model model = test::tiny_model("gpt2").load();  // without rope: what the hooks leave is what is stored
  const auto ids = some_ids(70);
  for (const auto& [format, type] :
       {std::pair{CacheFormat::bf16, at::kBFloat16}, std::pair{CacheFormat::f16, at::kHalf}}) {
    Session exact(model, {.batch_invariant = true}), rounded(model, {.batch_invariant = true, .cache = format});
    const auto by_hand = [type = type](HookContext& at) { at.value.copy_(at.value.to(type)); };
    std::vector<HookHandle> hooks;
    for (int layer = 0; layer < 3; ++layer)
      for (const Site site : {Site::attn_k, Site::attn_v}) hooks.push_back(exact.hook({site, layer}, by_hand));
    EXPECT_TRUE(at::equal(rounded.forward(ids), exact.forward(ids))) << EnumTable<CacheFormat>::entries[0].name;
    EXPECT_GT((rounded.forward(ids) - Session(model).forward(ids)).abs().max().item<float>(), 0);
  }
}

TEST(CacheFormats, TakeHalfTheMemoryAndSurviveForks) {
  const Model model = test::tiny_model("gemma2").load();
  const auto ids = some_ids(40);
  Session wide(model), narrow(model, {.batch_invariant = true, .cache = CacheFormat::bf16});
  wide.step({{wide.open(), ids}});
  const SequenceId trunk = narrow.open();
  narrow.step({{trunk, ids}});
  EXPECT_EQ(narrow.cache_bytes() * 2, wide.cache_bytes());
  const SequenceId left = narrow.fork(trunk), right = narrow.fork(trunk);
  const std::vector<std::int64_t> one{5}, two{6};
  const at::Tensor a = narrow.step({{left, one, Phase::generated}}), b = narrow.step({{right, two, Phase::generated}});
  auto text = ids;
  text.push_back(5);
  EXPECT_TRUE(at::equal(a[0], narrow.forward(text)[-1]));
  text.back() = 6;
  EXPECT_TRUE(at::equal(b[0], narrow.forward(text)[-1]));
}

/// Values beyond the format's range and those that are no numbers.
TEST(CacheFormats, LargeAndBrokenValues) {
  const Model model = test::tiny_model("gpt2").load();
  Session session(model, {.cache = CacheFormat::f16});
  {
    const auto off = session.hook("blocks.0.attn.hook_v", [](HookContext& at) { at.value.fill_(1e6); });
    const at::Tensor z = session.run_with_cache(some_ids(9), {"blocks.0.attn.hook_z"})["blocks.0.attn.hook_z"];
    EXPECT_LT((z - 65504).abs().max().item<float>(), 1) << "clamped, not infinite";
  }
  const auto off = session.hook("blocks.0.attn.hook_v", [](HookContext& at) { at.value[2].fill_(std::nan("")); });
  const at::Tensor z = session.run_with_cache(some_ids(9), {"blocks.0.attn.hook_z"})["blocks.0.attn.hook_z"];
  EXPECT_TRUE(z[1].isfinite().all().item<bool>());
  EXPECT_TRUE(z[2].isnan().all().item<bool>());
}

/// A gradient's pass sees the same rounded keys.
TEST(CacheFormats, GradientsSeeTheSameNumbers) {
  const Model model = test::tiny_model("llama").load();
  Session session(model, {.cache = CacheFormat::bf16});
  const auto ids = some_ids(20);
  const at::Tensor plain = session.forward(ids);
  const at::AutoGradMode enable(true);
  const at::Tensor zero = at::zeros({32}).requires_grad_();
  const auto off = session.hook("hook_embed", [&](HookContext& at) { at.value = at.value + zero; });
  const at::Tensor logits = session.forward(ids);
  EXPECT_LT((logits - plain).abs().max().item<float>(), 2e-2);
  logits.sum().backward();
  EXPECT_GT(zero.grad().abs().sum().item<float>(), 0);
}

}  // namespace
}  // namespace steer
