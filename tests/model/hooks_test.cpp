#include <ATen/ops/einsum.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/ones_like.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include <steer/model/session.hpp>

#include "model/tiny_models.hpp"
#include "support.hpp"

namespace steer {
namespace {

using test::some_ids;

TEST(HookPoints, NamesGoBothWays) {
  for (const auto& name : test::all_points(test::tiny_model("llama").load().config()))
    EXPECT_EQ(HookPoint::parse(name).name(), name);
  EXPECT_EQ(HookPoint::parse("model.layers.6"), (HookPoint{Site::resid_post, 6}));
  EXPECT_EQ(HookPoint::parse("transformer.h.3"), (HookPoint{Site::resid_post, 3}));
  EXPECT_EQ(HookPoint::parse("gpt_neox.layers.0.mlp"), (HookPoint{Site::mlp_out, 0}));
  EXPECT_EQ(HookPoint::parse("model.layers.2.self_attn.o_proj.input"), (HookPoint{Site::attn_z, 2}));
  EXPECT_EQ(HookPoint::parse("model.language_model.layers.2.mlp"), (HookPoint{Site::mlp_out, 2}));
  EXPECT_EQ(HookPoint::parse("language_model.model.layers.2"), (HookPoint{Site::resid_post, 2}));
  EXPECT_EQ(HookPoint::parse("gpt_neox.embed_in"), (HookPoint{Site::embed, 0}));
  const HookPoint by_name = "model.layers.6";  // what takes a point takes its name
  EXPECT_EQ(by_name.name(), "blocks.6.hook_resid_post");
  for (const char* bad : {"", "blocks", "blocks.", "blocks.1", "blocks.-1.hook_resid_post", "blocks.+1.hook_resid_post",
                          "blocks.1.hook_embed", "hook_resid_post", "blocks.99999999999999999999.hook_resid_post",
                          "blocks.1.hook_resid_post ", "model.layers.", "model.layers.1.nothing"})
    EXPECT_STEER_ERROR(HookPoint::parse(bad), ErrorCode::argument, std::string("\"") + bad + "\"");
}

/// Every site of every family fires once a pass with all its tokens, in the prompt and in every decode step.
TEST(Hooks, FireOnEveryStepAtEverySiteOfEveryFamily) {
  constexpr int decode_steps = 3;
  constexpr std::int64_t prompt = 5;
  for (const auto* family : test::kFamilies) {
    const Model model = test::tiny_model(family).load();
    Session session(model);
    struct Count {
      int prompt = 0, generated = 0;
      std::int64_t tokens = 0;
    };
    std::map<std::string, Count> counts;
    std::vector<HookHandle> handles;
    const auto names = test::all_points(model.config());
    for (const auto& name : names)
      handles.push_back(session.hook(name, [&, name](HookContext& at) {
        auto& count = counts[name];
        EXPECT_EQ(at.point.name(), name);
        ++(at.batch.runs[0].phase == Phase::prompt ? count.prompt : count.generated);
        count.tokens += at.batch.size();
        EXPECT_EQ(at.value.size(at.point.site == Site::attn_pattern ? 1 : 0), at.batch.size());
      }));
    const SequenceId sequence = session.open();
    session.step({{sequence, some_ids(prompt)}});
    for (int i = 0; i < decode_steps; ++i) session.step({{sequence, some_ids(1, i), Phase::generated}});
    for (const auto& name : names) {
      EXPECT_EQ(counts[name].prompt, 1) << family << " " << name;
      EXPECT_EQ(counts[name].generated, decode_steps) << family << " " << name;
      EXPECT_EQ(counts[name].tokens, prompt + decode_steps) << family << " " << name;
    }
  }
}

/// An edit at any site, in place or by assignment, changes what follows; both ways give the same.
TEST(Hooks, EditsReachTheLogitsAtEverySiteOfEveryFamily) {
  for (const auto* family : test::kFamilies) {
    const Model model = test::tiny_model(family).load();
    Session session(model);
    const auto ids = some_ids(7);
    const at::Tensor plain = session.forward(ids);
    // Not one factor for all: norms would undo it.
    const auto factors = [](const at::Tensor& value) { return at::linspace(0.2, 1.8, value.size(-1)); };
    for (const auto& name : test::all_points(model.config())) {
      at::Tensor in_place, assigned, kept, copy;
      {
        const auto off = session.hook(name, [&](HookContext& at) { at.value.mul_(factors(at.value)); });
        in_place = session.forward(ids);
      }
      {
        const auto off = session.hook(name, [&](HookContext& at) {
          kept = at.value * factors(at.value);
          copy = kept.clone();
          at.value = kept;
        });
        assigned = session.forward(ids);
      }
      EXPECT_TRUE(at::equal(kept, copy)) << family << " " << name << ": the hook's own tensor was written to";
      EXPECT_GT((in_place - plain).abs().max().item<float>(), 1e-4) << family << " " << name;
      EXPECT_LT((in_place - assigned).abs().max().item<float>(), 1e-6) << family << " " << name;
    }
    EXPECT_TRUE(at::equal(session.forward(ids), plain)) << family << ": hooks stayed after their handles were gone";
  }
}

TEST(Hooks, ReadingEveryPointChangesNothing) {
  for (const auto* family : test::kFamilies) {
    Session session(test::tiny_model(family).load());
    const auto ids = some_ids(40);
    const at::Tensor plain = session.forward(ids);
    EXPECT_TRUE(at::equal(session.run_with_cache(ids, {"*"}).logits, plain)) << family;
  }
}

/// A pattern is what the values are mixed by, so z follows from both, whoever looks.
TEST(Hooks, PatternAndValuesMakeZ) {
  for (const auto* family : test::kFamilies) {
    Session session(test::tiny_model(family).load());
    const ModelConfig& c = session.model().config();
    const auto cache = session.run_with_cache(some_ids(70), {"blocks.1.attn.*"});
    const at::Tensor v = cache["blocks.1.attn.hook_v"].view({70, c.n_kv_heads, c.d_head});
    const at::Tensor z = at::einsum(
        "hqk,khd->qhd", {cache["blocks.1.attn.hook_pattern"], v.repeat_interleave(c.n_heads / c.n_kv_heads, 1)});
    EXPECT_LT((z.reshape({70, -1}) - cache["blocks.1.attn.hook_z"]).abs().max().item<float>(), 1e-5) << family;
  }
}

/// What a hook that may edit leaves as it was stays as it was, up to rounding: mixing is done elsewhere then.
TEST(Hooks, APatternMayBeEditedRunByRun) {
  for (const auto* family : test::kFamilies) {
    Session session(test::tiny_model(family).load());
    const auto a = some_ids(9, 1), b = some_ids(5, 2);
    const at::Tensor alone = session.forward(a)[-1], other = session.forward(b)[-1];
    const SequenceId first = session.open(), second = session.open();
    const auto off = session.hook("blocks.1.attn.hook_pattern", [&](HookContext& at) {
      if (at.batch.runs[0].sequence == second) at.value = at::ones_like(at.value) / at.value.size(2);
    });
    const at::Tensor both = session.step({{first, a}, {second, b}});
    EXPECT_LT((both[0] - alone).abs().max().item<float>(), 1e-5) << family;
    EXPECT_GT((both[1] - other).abs().max().item<float>(), 1e-4) << family;
  }
}

TEST(Hooks, PatternRowsAreProbabilitiesWithinTheWindow) {
  Session session(test::tiny_model("mistral").load());
  const auto pattern =
      session.run_with_cache(some_ids(12), {"blocks.1.attn.hook_pattern"})["blocks.1.attn.hook_pattern"];
  ASSERT_EQ(pattern.sizes(), (std::vector<std::int64_t>{4, 12, 12}));
  EXPECT_LT((pattern.sum(-1) - 1).abs().max().item<float>(), 1e-5);
  for (std::int64_t q = 0; q < 12; ++q)
    for (std::int64_t k = 0; k < 12; ++k)
      EXPECT_EQ(pattern[0][q][k].item<float>() > 0, k <= q && k > q - 6) << q << " " << k;
}

TEST(Hooks, OrderIsByNumberThenRegistration) {
  Session session(test::tiny_model("llama").load());
  std::string calls;
  const auto note = [&](char c) { return [&calls, c](HookContext&) { calls += c; }; };
  const auto c = session.hook("blocks.0.hook_resid_post", note('c'), {.order = 1});
  const auto a = session.hook("blocks.0.hook_resid_post", note('a'), {.order = -1});
  auto b = session.hook("blocks.0.hook_resid_post", note('b'));
  const auto d = session.hook("blocks.0.hook_resid_post", note('d'), {.order = 1});
  session.forward(some_ids(2));
  EXPECT_EQ(calls, "abcd");
  b.remove();
  calls.clear();
  session.forward(some_ids(2));
  EXPECT_EQ(calls, "acd");
}

TEST(Hooks, HandlesMoveAndOutliveTheirSession) {
  const Model model = test::tiny_model("llama").load();
  int calls = 0;
  HookHandle outer;
  {
    Session session(model);
    outer = session.hook("hook_embed", [&](HookContext&) { ++calls; });
    HookHandle moved = std::move(outer);
    session.forward(some_ids(2));
    EXPECT_EQ(calls, 1);
    outer = std::move(moved);
    session.forward(some_ids(2));
    EXPECT_EQ(calls, 2);
    outer = session.hook("hook_embed", [](HookContext&) {});
    session.forward(some_ids(2));
    EXPECT_EQ(calls, 2) << "assigning over a handle removes its hook";
  }
  outer.remove();
}

TEST(Hooks, AHookMayRemoveItself) {
  Session session(test::tiny_model("llama").load());
  int calls = 0;
  HookHandle handle;
  handle = session.hook("hook_embed", [&](HookContext&) {
    ++calls;
    handle.remove();
  });
  session.forward(some_ids(2));
  session.forward(some_ids(2));
  EXPECT_EQ(calls, 1);
}

TEST(Hooks, WhatCannotFireOrFitIsRefused) {
  Session session(test::tiny_model("gpt_neox").load());
  const auto nothing = [](HookContext&) {};
  EXPECT_STEER_ERROR((void)session.hook("blocks.3.hook_resid_post", nothing), ErrorCode::argument,
                     "blocks.3.hook_resid_post");
  EXPECT_STEER_ERROR((void)session.hook(HookPoint{Site::mlp_out, -1}, nothing), ErrorCode::argument, "blocks.-1");
  EXPECT_STEER_ERROR((void)session.hook("blocks.1.hook_resid_mid", nothing), ErrorCode::argument, "hook_resid_mid");
  EXPECT_STEER_ERROR((void)session.hook("hook_embed", {}), ErrorCode::argument, "hook_embed");
  {
    const auto off = session.hook("hook_embed", [](HookContext& at) { at.value = at.value.narrow(0, 0, 1); });
    EXPECT_STEER_ERROR(session.forward(some_ids(3)), ErrorCode::shape, "hook_embed");
  }
  {
    const auto off = session.hook("hook_embed", [](HookContext& at) { at.value = at.value.to(at::kDouble); });
    EXPECT_STEER_ERROR(session.forward(some_ids(3)), ErrorCode::shape, "Double");
  }
  {
    const auto off = session.hook("hook_embed", [](HookContext& at) { at.value.add_(1); }, {.read_only = true});
    EXPECT_STEER_ERROR(session.forward(some_ids(3)), ErrorCode::argument, "read-only");
  }
  EXPECT_STEER_ERROR(session.run_with_cache(some_ids(3), {"blocks.*.hook_resid_mid"}), ErrorCode::argument,
                     "hook_resid_mid");
  EXPECT_STEER_ERROR(session.run_with_cache(some_ids(3), {"blocks.2.*"}, 1), ErrorCode::argument, "up to layer 1");
  const auto cache = session.run_with_cache(some_ids(3), {"hook_embed"});
  EXPECT_STEER_ERROR(cache["blocks.0.hook_resid_pre"], ErrorCode::argument, "hook_embed)");
  EXPECT_STEER_ERROR(cache["hook_embedd"], ErrorCode::argument, "hook_embedd");
}

TEST(Hooks, HuggingFaceNamesNameOneLayerOrAll) {
  const Model model = test::tiny_model("llama").load();
  Session session(model);
  const auto names = [&](std::string_view pattern) {
    std::vector<std::string> out;
    const auto cache = session.run_with_cache(some_ids(3), {pattern});
    for (const auto& [point, value] : cache.all()) out.push_back(point.name());
    return out;
  };
  EXPECT_EQ(names("model.layers.1.mlp"), names("blocks.1.hook_mlp_out"));
  EXPECT_EQ(names("model.layers.*"), names("blocks.*.hook_resid_post"));
  EXPECT_EQ(names("model.layers.*.self_attn").size(), static_cast<std::size_t>(model.config().n_layers));
  EXPECT_EQ(names("model.layers.*.self_attn"), names("blocks.*.hook_attn_out"));
  EXPECT_EQ(names("*.hook_mlp_out"), names("blocks.*.hook_mlp_out"));
  EXPECT_STEER_ERROR(names("model.layers.*.nothing"), ErrorCode::argument, "nothing");
}

TEST(Hooks, ASessionRefusesASecondCaller) {
  Session session(test::tiny_model("llama").load());
  std::atomic<bool> inside{false}, done{false};
  const auto off = session.hook("hook_embed", [&](HookContext&) {
    EXPECT_STEER_ERROR(session.forward(some_ids(2)), ErrorCode::argument, "one thread at a time");
    inside = true;
    while (!done) std::this_thread::yield();
  });
  std::thread worker([&] { session.forward(some_ids(2)); });
  while (!inside) std::this_thread::yield();
  EXPECT_STEER_ERROR(session.open(), ErrorCode::argument, "one thread at a time");
  EXPECT_STEER_ERROR(session.forward(some_ids(2)), ErrorCode::argument, "one thread at a time");
  done = true;
  worker.join();
  EXPECT_EQ(session.open(), 1) << "the refused calls left nothing behind";
}

TEST(Hooks, SessionsOfOneModelRunAtOnceWithTheirOwnHooks) {
  const Model model = test::tiny_model("gemma3_text").load();
  const auto ids = some_ids(20);
  std::vector<at::Tensor> alone(3), together(3);
  const auto work = [&](int i, at::Tensor& out) {
    Session session(model);
    const auto off = session.hook("blocks.1.hook_resid_post", [i](HookContext& at) { at.value.add_(i); });
    for (int repeat = 0; repeat < 3; ++repeat) out = session.forward(ids);
  };
  for (int i = 0; i < 3; ++i) work(i, alone[i]);
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) threads.emplace_back([&, i] { work(i, together[i]); });
  for (auto& thread : threads) thread.join();
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(at::equal(alone[i], together[i]));
}

}  // namespace
}  // namespace steer
