#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string_view>

#include <steer/model/session.hpp>

#include "model/tiny_models.hpp"
#include "support.hpp"

namespace steer {
namespace {

using test::some_ids;

double difference(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

/// Logits of a text's last token by one uncached pass.
at::Tensor last_logits(Session& session, const std::vector<std::int64_t>& ids) { return session.forward(ids)[-1]; }

TEST(Session, CachedStepsEqualOnePassToTheBit) {
  for (const auto* family : test::kFamilies) {
    Session session(test::tiny_model(family).load(), {.batch_invariant = true, .prompt_chunk = 7});
    Session whole(session.model(), {.batch_invariant = true});
    const auto ids = some_ids(75);
    const at::Tensor reference = whole.forward(ids);
    EXPECT_TRUE(at::equal(session.forward(ids), reference)) << family << ": chunks";
    const SequenceId s = session.open();
    const std::span all(ids);
    EXPECT_TRUE(at::equal(session.step({{s, all.first(33)}}, Logits::all), reference.narrow(0, 0, 33))) << family;
    for (std::size_t i = 33; i < ids.size(); ++i)
      EXPECT_TRUE(at::equal(session.step({{s, all.subspan(i, 1), Phase::generated}})[0],
                            reference[static_cast<std::int64_t>(i)]))
          << family << " " << i;
    EXPECT_EQ(session.length(s), 75);
  }
}

/// `same(a, b)` for every row of a batch, of prompts and of a decoded token, and the row alone.
void compare_rows_with_their_own(Session& session, std::string_view family,
                                 const std::function<bool(const at::Tensor&, const at::Tensor&)>& same) {
  std::vector<std::vector<std::int64_t>> prompts;
  for (std::int64_t i = 0; i < 20; ++i) prompts.push_back(some_ids(1 + i * 3 % 40, i));
  std::vector<StepInput> inputs, next;
  for (const auto& prompt : prompts) inputs.push_back({session.open(), prompt});
  const at::Tensor together = session.step(inputs);
  const std::vector<std::int64_t> token{11};
  for (const auto& input : inputs) next.push_back({input.sequence, token, Phase::generated});
  const at::Tensor decoded = session.step(next);
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_TRUE(same(together[static_cast<std::int64_t>(i)], last_logits(session, prompts[i])))
        << family << " row " << i;
    auto longer = prompts[i];
    longer.push_back(11);
    EXPECT_TRUE(same(decoded[static_cast<std::int64_t>(i)], last_logits(session, longer)))
        << family << " decoded row " << i;
  }
}

TEST(Session, RowsDoNotDependOnTheirBatchMates) {
  for (const auto* family : test::kFamilies) {
    Session exact(test::tiny_model(family).load(), {.batch_invariant = true});
    compare_rows_with_their_own(exact, family,
                                [](const at::Tensor& a, const at::Tensor& b) { return at::equal(a, b); });
    Session fast(exact.model());
    compare_rows_with_their_own(fast, family, [](const at::Tensor& a, const at::Tensor& b) {
      return (a - b).abs().max().item<float>() <= 1e-5f * std::max(1.0f, b.abs().max().item<float>());
    });
  }
}

TEST(Session, BatchViewTellsSequencePositionAndPhase) {
  Session session(test::tiny_model("llama").load(), {.prompt_chunk = 4});
  std::vector<TokenRun> seen;
  std::vector<std::int64_t> ids;
  const auto off = session.hook("hook_embed", [&](HookContext& at) {
    for (auto run : at.batch.runs) seen.push_back(run);
    ids.insert(ids.end(), at.batch.ids.begin(), at.batch.ids.end());
  });
  const auto a = some_ids(3, 1), b = some_ids(4, 2), answer = some_ids(2, 3);
  const SequenceId first = session.open(), second = session.open();
  session.step({{first, a}, {second, b}, {first, answer, Phase::generated}});
  // Chunks of four tokens: a a a b | b b b x | x
  ASSERT_EQ(seen.size(), 5u);
  const auto check = [&](std::size_t i, SequenceId sequence, std::int64_t begin, std::int64_t end,
                         std::int64_t position, std::int64_t prompt_length, Phase phase) {
    EXPECT_EQ(seen[i].sequence, sequence) << i;
    EXPECT_EQ(seen[i].begin, begin) << i;
    EXPECT_EQ(seen[i].end, end) << i;
    EXPECT_EQ(seen[i].position, position) << i;
    EXPECT_EQ(seen[i].prompt_length, prompt_length) << i;
    EXPECT_EQ(seen[i].phase, phase) << i;
  };
  check(0, first, 0, 3, 0, 3, Phase::prompt);
  check(1, second, 3, 4, 0, 4, Phase::prompt);
  check(2, second, 0, 3, 1, 4, Phase::prompt);
  check(3, first, 3, 4, 3, 3, Phase::generated);
  check(4, first, 0, 1, 4, 3, Phase::generated);
  std::vector<std::int64_t> expected = a;
  expected.insert(expected.end(), b.begin(), b.end());
  expected.insert(expected.end(), answer.begin(), answer.end());
  EXPECT_EQ(ids, expected);
}

TEST(Session, ForksShareTheirPrefixUntilTheyGrow) {
  for (const auto* family : {"llama", "gemma3_text", "gpt2"}) {
    Session session(test::tiny_model(family).load(), {.batch_invariant = true});
    const auto prefix = some_ids(50);
    const SequenceId trunk = session.open();
    session.step({{trunk, prefix}});
    const auto bytes = session.cache_bytes();
    const SequenceId left = session.fork(trunk), right = session.fork(trunk),
                     part = session.fork(trunk, {.length = 41});
    EXPECT_EQ(session.cache_bytes(), bytes) << "a fork copies nothing";
    EXPECT_EQ(session.length(part), 41);
    const auto grow = [&](SequenceId sequence, std::size_t kept, std::int64_t seed) {
      auto text = prefix;
      text.resize(kept);
      const auto more = some_ids(20, seed);
      text.insert(text.end(), more.begin(), more.end());
      EXPECT_TRUE(at::equal(session.step({{sequence, more}})[0], last_logits(session, text)))
          << family << " " << sequence;
    };
    grow(left, 50, 7);
    grow(trunk, 50, 8);
    session.close(trunk);
    grow(right, 50, 9);
    grow(part, 41, 10);
    session.close(left), session.close(right), session.close(part);
    EXPECT_EQ(session.cache_bytes(), 0);
  }
}

/// The computation below an edited layer, shared: layers [0, b) once, then [b, end) from the recorded residual.
TEST(Session, LayersResumeFromAResidual) {
  for (const auto* family : test::kFamilies) {
    Session session(test::tiny_model(family).load(), {.batch_invariant = true});
    const auto ids = some_ids(37), more = some_ids(3, 4);
    auto text = ids;
    text.insert(text.end(), more.begin(), more.end());
    for (std::int64_t b : {1, 2}) {
      at::Tensor residual;
      const SequenceId base = session.open();
      {
        const auto off =
            session.hook(HookPoint{Site::resid_post, b - 1}, [&](HookContext& at) { residual = at.value.clone(); });
        EXPECT_FALSE(session.step({{base, ids}}, Logits::last, {.last = b}).defined());
      }
      const at::Tensor before = residual.clone();
      for (double strength : {0.0, 2.0}) {
        const auto edit =
            session.hook(HookPoint{Site::resid_pre, b}, [&](HookContext& at) { at.value.add_(strength); });
        const SequenceId arm = session.fork(base, {.below_layer = b});
        EXPECT_TRUE(at::equal(session.step({{arm, ids}}, Logits::last, {.first = b, .residual = residual})[0],
                              last_logits(session, ids)))
            << family;
        EXPECT_TRUE(at::equal(session.step({{arm, more}})[0], last_logits(session, text))) << family << " going on";
        EXPECT_EQ(session.length(arm), 40);
      }
      EXPECT_TRUE(at::equal(residual, before)) << "the caller's residual was written to";
    }
    const SequenceId bad = session.open();
    session.step({{bad, ids}}, Logits::none, {.last = 1});
    EXPECT_STEER_ERROR(session.step({{bad, more}}), ErrorCode::argument, "layer 1");
    EXPECT_STEER_ERROR(session.step({{bad, ids}}, Logits::last, {.first = 1}), ErrorCode::argument, "residual");
    EXPECT_STEER_ERROR(session.step({{bad, ids}}, Logits::last, {.first = 1, .residual = at::zeros({3, 32})}),
                       ErrorCode::shape, "[3, 32]");
    EXPECT_STEER_ERROR(session.step({{bad, ids}}, Logits::last, {.first = session.model().config().n_layers}),
                       ErrorCode::argument, "Model::unembed");
    EXPECT_STEER_ERROR(session.step({{bad, ids}}, Logits::last, {.first = 2, .last = 1}), ErrorCode::argument,
                       "[2, 1)");
    EXPECT_STEER_ERROR(session.step({{bad, ids}}, Logits::last, {.last = 9}), ErrorCode::argument, "[0, 9)");
  }
}

/// d(logit)/d(residual) by autograd against a central difference, through hooks at several depths.
TEST(Session, GradientsFlowThroughHooks) {
  for (const auto* family : test::kFamilies) {
    for (const auto format : {WeightFormat::stored, WeightFormat::bf16}) {
      Session session(test::tiny_model(family).load({.weights = format}));
      const auto ids = some_ids(9);
      for (const char* name :
           {"hook_embed", "blocks.1.hook_resid_pre", "blocks.0.attn.hook_k", "blocks.1.mlp.hook_post"}) {
        const at::AutoGradMode enable(true);
        at::Tensor leaf;
        at::Tensor logit;
        {
          const auto off = session.hook(name, [&](HookContext& at) {
            leaf = at.value.detach().clone().requires_grad_();
            at.value = leaf;
          });
          logit = session.forward(ids)[-1][5];
        }
        logit.backward();
        ASSERT_TRUE(leaf.grad().defined()) << family << " " << name;
        const at::Tensor direction = at::randn_like(leaf);
        const auto moved = [&](double by) {
          const at::NoGradGuard no_grad;
          const auto off = session.hook(name, [&](HookContext& at) { at.value.add_(direction, by); });
          return session.forward(ids)[-1][5].item<double>();
        };
        constexpr double step = 3e-3;
        const double expected = (moved(step) - moved(-step)) / (2 * step);
        const double actual = (leaf.grad() * direction).sum().item<double>();
        EXPECT_NEAR(actual, expected, 2e-2 * std::max(1.0, std::abs(expected))) << family << " " << name;
      }
    }
  }
}

TEST(Session, AGradientPassLeavesLaterPassesAlone) {
  Session session(test::tiny_model("llama").load());
  const auto ids = some_ids(9);
  const at::Tensor plain = session.forward(ids);
  const at::AutoGradMode enable(true);
  const at::Tensor v = at::ones({32}).requires_grad_();
  at::Tensor first;
  {
    const auto off = session.hook("blocks.0.hook_resid_post", [&](HookContext& at) { at.value.add_(v); });
    first = session.forward(ids);
  }
  EXPECT_TRUE(at::equal(session.forward(ids), plain));  // reuses no buffer of the graph
  first.sum().backward();
  EXPECT_TRUE(v.grad().defined());
  EXPECT_TRUE(v.grad().isfinite().all().item<bool>());
}

TEST(Session, KnowsWhatGrowingWillTake) {
  Session session(test::tiny_model("llama").load());
  const SequenceId trunk = session.open();
  session.step({{trunk, some_ids(50)}});
  const SequenceId fork = session.fork(trunk);
  for (const auto& [sequence, tokens] :
       {std::pair{trunk, 1}, {fork, 1}, {trunk, 13}, {fork, 1}, {trunk, 40}, {fork, 13}}) {
    const auto before = session.cache_bytes(), more = session.cache_bytes(sequence, tokens);
    session.step({{sequence, some_ids(tokens)}});
    EXPECT_EQ(session.cache_bytes(), before + more) << sequence << " by " << tokens;
  }
  EXPECT_EQ(session.cache_bytes(trunk, 0), 0);
}

TEST(Session, RefusesBadInputAndKeepsItsState) {
  Session session(test::tiny_model("llama").load(), {.max_cache_bytes = 3 * 2 * 2 * 8 * 32 * 4 * 3});
  const auto ids = some_ids(10);
  const SequenceId s = session.open();
  session.step({{s, ids}});
  const std::vector<std::int64_t> none, negative{-1}, large{97}, too_long = some_ids(119), one{1};
  EXPECT_STEER_ERROR(session.step({{s, none}}), ErrorCode::argument, "empty prompt");
  EXPECT_STEER_ERROR(session.step(std::span<const StepInput>()), ErrorCode::argument, "at least one input");
  EXPECT_STEER_ERROR(session.forward(none), ErrorCode::argument, "empty prompt");
  EXPECT_STEER_ERROR(session.step({{s, negative}}), ErrorCode::argument, "-1");
  EXPECT_STEER_ERROR(session.step({{s, one}, {s, large}}), ErrorCode::argument, "97");
  EXPECT_STEER_ERROR(session.step({{s, too_long}}), ErrorCode::shape, "128");
  EXPECT_STEER_ERROR(session.step({{s + 1, one}}), ErrorCode::argument, "never opened");
  EXPECT_STEER_ERROR(session.step({{s, one, Phase::generated}, {s, one, Phase::prompt}}), ErrorCode::argument,
                     "prompt tokens");
  EXPECT_STEER_ERROR(session.fork(s, {.length = 11}), ErrorCode::argument, "11");
  EXPECT_STEER_ERROR(session.fork(s, {.below_layer = 4}), ErrorCode::argument, "4");
  EXPECT_STEER_ERROR(session.close(9), ErrorCode::argument, "9");
  EXPECT_STEER_ERROR(session.length(9), ErrorCode::argument, "9");
  EXPECT_STEER_ERROR(session.step({{s, some_ids(100)}}), ErrorCode::argument, "max_cache_bytes");
  EXPECT_STEER_ERROR(session.run_with_cache(ids, {"hook_embed"}, 3), ErrorCode::argument, "stop_after_layer");
  {
    const auto off = session.hook("blocks.2.hook_resid_post", [](HookContext&) { throw std::runtime_error("stop"); });
    EXPECT_THROW(session.step({{s, one}}), std::runtime_error);
  }
  EXPECT_EQ(session.length(s), 10);
  auto text = ids;
  text.push_back(1);
  EXPECT_TRUE(at::equal(session.step({{s, one}})[0], last_logits(session, text)));
  EXPECT_STEER_ERROR(Session(session.model(), {.prompt_chunk = 0}), ErrorCode::argument, "prompt_chunk");
  EXPECT_STEER_ERROR(Session(session.model(), {.max_cache_bytes = -1}), ErrorCode::argument, "max_cache_bytes");
}

TEST(Session, StopsAfterALayer) {
  Session session(test::tiny_model("qwen3").load());
  const auto ids = some_ids(6);
  const auto cache = session.run_with_cache(ids, {"blocks.*.hook_resid_post"}, 1);
  EXPECT_FALSE(cache.logits.defined());
  EXPECT_EQ(cache.all().size(), 2u);
  EXPECT_LT(
      difference(cache["blocks.1.hook_resid_post"], session.run_with_cache(ids, {"*"})["blocks.1.hook_resid_post"]),
      1e-5);
}

}  // namespace
}  // namespace steer
