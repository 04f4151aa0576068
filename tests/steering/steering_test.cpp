// Scopes, tags, conditions, audit, bad input, JSON and the formats of others, on made-up activations.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_cholesky.h>
#include <ATen/ops/linalg_inv.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include <steer/steering/interop.hpp>
#include <steer/steering/vectors.hpp>

#include "steering/reference.hpp"
#include "support.hpp"

namespace steer {
namespace {

using nlohmann::json;
using test::FakeStep;

constexpr std::int64_t kWidth = 16;
const HookPoint kPoint{Site::resid_post, 1};

at::Tensor ones(std::int64_t n = kWidth) { return at::ones({n}); }

Sae sae_of(SaeActivation activation = SaeActivation::relu, std::int64_t width = kWidth) {
  Rng rng(7);
  return test::random_sae(rng, width, 12, activation);
}

test::Rows rows_of(const Steering& s, std::optional<Tokenizer> tokenizer = {}) {
  return {test::small_model(kWidth), tokenizer, std::span(&s, 1)};
}

/// Positions that a steering which adds ones changes, over a prompt of 5 tokens in two chunks and 4 decode steps.
std::vector<std::int64_t> positions_hit(const Scope& scope) {
  Steering s;
  s.add(ones(), kPoint, 1, {.scope = scope});
  auto rows = rows_of(s);
  std::vector<std::int64_t> hit;
  const auto run = [&](std::int64_t position, std::int64_t count, Phase phase) {
    FakeStep step;
    step.add(0, position, count, 5, phase);
    const at::Tensor got = rows.apply(kPoint, step, at::zeros({count, kWidth}));
    for (std::int64_t t = 0; t < count; ++t)
      if (got[t][0].item<float>() != 0) hit.push_back(position + t);
  };
  run(0, 3, Phase::prompt);
  run(3, 2, Phase::prompt);
  for (std::int64_t p = 5; p < 9; ++p) run(p, 1, Phase::generated);
  EXPECT_EQ(rows.audit(0).edits[0].seen, 9);
  EXPECT_EQ(rows.audit(0).edits[0].edited, static_cast<std::int64_t>(hit.size()));
  return hit;
}

TEST(Scopes, SelectTheirPositions) {
  using V = std::vector<std::int64_t>;
  EXPECT_EQ(positions_hit({}), (V{1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(positions_hit({.include_bos = true}), (V{0, 1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(positions_hit({.where = Where::prompt}), (V{1, 2, 3, 4}));
  EXPECT_EQ(positions_hit({.where = Where::generated}), (V{5, 6, 7, 8}));
  EXPECT_EQ(positions_hit({.where = Where::onset, .count = 2}), (V{5, 6}));
  EXPECT_EQ(positions_hit({.where = Where::last}), (V{4}));
  EXPECT_EQ(positions_hit({.where = Where::span, .begin = 2, .end = 7}), (V{2, 3, 4, 5, 6}));
  EXPECT_EQ(positions_hit({.where = Where::from_last}), (V{4, 5, 6, 7, 8}));
  EXPECT_EQ(positions_hit({.where = Where::span, .begin = -2}), (V{3, 4}));
  EXPECT_EQ(positions_hit({.where = Where::span, .begin = -1, .end = 2}), (V{4, 5, 6}));
  EXPECT_EQ(positions_hit({.except = {{.where = Where::onset, .count = 2}, {.where = Where::last}}}),
            (V{1, 2, 3, 7, 8}));
}

TEST(Scopes, SelectTokensByTheirId) {
  Steering s;
  s.add(ones(), kPoint, 1, {.scope = {.tokens = {5, 9}, .except = {{.tokens = {9}}}}});
  auto rows = rows_of(s);
  FakeStep step;
  step.add(0, 0, 6, 6, Phase::prompt);
  step.ids = {5, 5, 9, 7, 5, 9};
  const at::Tensor got = rows.apply(kPoint, step, at::zeros({6, kWidth})).select(1, 0);
  EXPECT_TRUE(at::equal(got, at::tensor({0.f, 1.f, 0.f, 0.f, 1.f, 0.f})));
}

/// A byte-level tokenizer without merges: one token a character.
Tokenizer letter_tokenizer(const test::TempDir& folder) {
  json vocab = json::object();
  std::int64_t id = 0;
  for (char c = '!'; c <= '~'; ++c) vocab[std::string(1, c)] = id++;
  vocab["\u0120"] = id++;  // a space, as GPT-2 spells it
  const json byte_level{
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  const json file{{"version", "1.0"},
                  {"added_tokens", json::array()},
                  {"normalizer", nullptr},
                  {"pre_tokenizer", byte_level},
                  {"post_processor", nullptr},
                  {"decoder", byte_level},
                  {"model",
                   {{"type", "BPE"},
                    {"dropout", nullptr},
                    {"unk_token", nullptr},
                    {"continuing_subword_prefix", nullptr},
                    {"end_of_word_suffix", nullptr},
                    {"fuse_unk", false},
                    {"byte_fallback", false},
                    {"vocab", vocab},
                    {"merges", json::array()}}}};
  std::ofstream(folder / "tokenizer.json") << file.dump();
  return Tokenizer::load(folder / "tokenizer.json");
}

TEST(Scopes, FollowTagsThroughPromptAndGeneratedText) {
  const test::TempDir folder;
  const Tokenizer tokenizer = letter_tokenizer(folder);
  const std::string text = "ab<t>cd</t>e<t>f";
  const auto ids = tokenizer.encode(text);
  ASSERT_EQ(ids.size(), text.size());
  // The token that completes a tag already counts as behind it.
  std::vector<bool> wanted;
  bool in = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text.substr(0, i + 1).ends_with("<t>")) in = true;
    if (text.substr(0, i + 1).ends_with("</t>")) in = false;
    wanted.push_back(in);
  }
  for (const Where where : {Where::inside_tag, Where::outside_tag}) {
    Steering s;
    Scope scope{.where = where, .include_bos = true};
    scope.tag = "t";
    s.add(ones(), kPoint, 1, {.scope = scope});
    auto rows = rows_of(s, tokenizer);
    std::size_t at = 0;
    for (std::size_t chunk : {std::size_t{4}, std::size_t{6}, std::size_t{6}}) {
      FakeStep step;
      step.add(0, static_cast<std::int64_t>(at), static_cast<std::int64_t>(chunk), 10, Phase::prompt);
      std::copy_n(ids.begin() + static_cast<std::ptrdiff_t>(at), chunk, step.ids.begin());
      const at::Tensor got = rows.apply(kPoint, step, at::zeros({static_cast<std::int64_t>(chunk), kWidth}));
      for (std::size_t i = 0; i < chunk; ++i)
        EXPECT_EQ(got[static_cast<std::int64_t>(i)][0].item<float>() != 0,
                  wanted[at + i] == (where == Where::inside_tag))
            << to_string(where) << " at " << at + i;
      at += chunk;
    }
  }
  Steering s;
  Scope scope{.where = Where::inside_tag};
  scope.tag = "t";
  s.add(ones(), kPoint, 1, {.scope = scope});
  EXPECT_STEER_ERROR(rows_of(s), ErrorCode::config, "tokenizer");
}

/// What a conditional edit does as the probe's value moves: '*' where it acts.
std::string acts(const Condition& condition, const std::vector<float>& values) {
  Steering s;
  s.add(ones(), kPoint, 1, {.scope = {.include_bos = true}, .when = condition});
  auto rows = rows_of(s);
  std::string result;
  for (std::size_t i = 0; i < values.size(); ++i) {
    FakeStep step;
    step.add(0, static_cast<std::int64_t>(i), 1, 1, i == 0 ? Phase::prompt : Phase::generated);
    at::Tensor h = at::zeros({1, kWidth});
    h[0][0] = values[i];
    result += rows.apply(kPoint, step, h)[0][1].item<float>() != 0 ? '*' : '.';
  }
  return result;
}

TEST(Metrics, BothFormsGiveTheLeastChangeThatReachesTheTarget) {
  Rng rng(8);
  const at::Tensor a = test::random_tensor(rng, {kWidth, kWidth}), v = test::random_tensor(rng, {kWidth});
  const at::Tensor s = at::matmul(a, a.t()) + at::eye(kWidth);
  const at::Tensor inverse = at::linalg_inv(s.to(at::kDouble)), w = at::linalg_cholesky(inverse).t();  // S^-1 = W' W
  const at::Tensor d = at::mv(inverse, v.to(at::kDouble));
  const at::Tensor wanted = d / at::dot(v.to(at::kDouble), d);
  for (const ActivationMetric& metric : {ActivationMetric::of(s), ActivationMetric::from_inverse_factor(w)}) {
    const Steering steering = Steering().set_along_metric(v, metric, kPoint, 2.5, {.scope = {.include_bos = true}});
    EXPECT_LT((steering.edits()[0].vector("along") - wanted).abs().max().item<double>(), 1e-5);
    auto rows = rows_of(steering);
    FakeStep step;
    step.add(0, 0, 4, 4, Phase::prompt);
    const at::Tensor moved = rows.apply(kPoint, step, test::random_tensor(rng, {4, kWidth}));
    EXPECT_LT((at::mv(moved, v) - 2.5).abs().max().item<double>(), 1e-4);
  }
}

TEST(Conditions, HoldInTheirBandWithHysteresisAndStickiness) {
  at::Tensor w = at::zeros({kWidth});
  w[0] = 1;
  const std::vector<float> values{0, 1.5, 0.8, 0.2, 0.9, 2, 0};
  EXPECT_EQ(acts(Condition::probe_above(w, -1, {.point = kPoint}), values), ".*...*.");
  EXPECT_EQ(acts(Condition::probe_above(w, -1, {.point = kPoint, .release = 0.5}), values), ".**..*.");
  EXPECT_EQ(acts(Condition::probe_above(w, -1, {.point = kPoint, .sticky = true}), values), ".******");
  const Condition high = Condition::probe_above(w, -1, {.point = kPoint}),
                  low = Condition::probe_above(-w, 0.5, {.point = kPoint});
  EXPECT_EQ(acts(Condition::any_of({high, low}), values), "**.*.**");
  EXPECT_EQ(acts(Condition::all_of({high, low}), values), ".......");
}

TEST(Conditions, ReadFeaturesOfEveryKindOfSae) {
  for (const auto kind : {SaeActivation::relu, SaeActivation::jumprelu, SaeActivation::gated, SaeActivation::topk}) {
    const Sae sae = sae_of(kind);
    Rng rng(3);
    const at::Tensor h = test::random_tensor(rng, {40, kWidth});
    const at::Tensor f = sae.encode(h).select(1, 5);
    Steering s;
    s.add(ones(), kPoint, 1, {.scope = {.include_bos = true}, .when = Condition::feature_above(sae, 5, 0.1)});
    auto rows = rows_of(s);
    FakeStep step;
    step.add(0, 0, 40, 40, Phase::prompt);
    const at::Tensor changed = (rows.apply(kPoint, step, h) != h).any(1);
    EXPECT_TRUE(at::equal(changed, f > 0.1)) << to_string(kind);
    EXPECT_GT(changed.sum().item<std::int64_t>(), 0) << to_string(kind);
  }
}

TEST(Conditions, ThatNeverHoldKeepEveryBit) {
  const Sae sae = sae_of();
  Steering s;
  s.pin(sae, 3, 5, {.when = Condition::feature_above(sae, 2, 1e9)});
  auto rows = rows_of(s);
  FakeStep step;
  step.add(0, 0, 6, 6, Phase::prompt);
  Rng rng(5);
  const at::Tensor h = test::random_tensor(rng, {6, kWidth});
  EXPECT_TRUE(at::equal(rows.apply(kPoint, step, h), h));
  EXPECT_FALSE(rows.audit(0).fired());
  EXPECT_STEER_ERROR(rows.audit(0).require_fired("generate"), ErrorCode::config, "no token was edited");
}

TEST(Conditions, EntropyOfTheDistributionATokenWasDrawnFrom) {
  Steering s;
  s.add(ones(), kPoint, 1, {.when = Condition::entropy_between(0.5, 2)});
  s.abort_when(Condition::entropy_between(3, 10), "too unsure");
  auto rows = rows_of(s);
  ASSERT_TRUE(rows.program(0).needs_logits());
  FakeStep prompt;
  prompt.add(0, 0, 3, 3, Phase::prompt);
  EXPECT_TRUE(at::equal(rows.apply(kPoint, prompt, at::zeros({3, kWidth})), at::zeros({3, kWidth})));
  const auto decode = [&](std::int64_t position, const at::Tensor& logits) {
    rows.observe(0, logits);
    FakeStep step;
    step.add(0, position, 1, 3, Phase::generated);
    return rows.apply(kPoint, step, at::zeros({1, kWidth}))[0][0].item<float>();
  };
  EXPECT_EQ(decode(3, at::zeros({4})), 1);            // ln 4 = 1.39
  EXPECT_EQ(decode(4, at::tensor({0.f, -50.f})), 0);  // 0
  EXPECT_FALSE(rows.memory(0).abort_reason().has_value());
  EXPECT_EQ(decode(5, at::zeros({64})), 0);  // ln 64 = 4.16
  EXPECT_EQ(rows.memory(0).abort_reason(), "too unsure");
}

TEST(Conditions, HandlersAreCalledOnEachRise) {
  at::Tensor w = at::zeros({kWidth});
  w[0] = 1;
  std::vector<std::int64_t> positions;
  Steering s;
  s.on(Condition::probe_above(w, -1, {.point = kPoint}),
       [&](const SteeringEvent& e) { positions.push_back(e.position); });
  auto rows = rows_of(s);
  FakeStep step;
  step.add(0, 0, 5, 5, Phase::prompt);
  at::Tensor h = at::zeros({5, kWidth});
  for (int i : {1, 2, 4}) h[i][0] = 2;
  EXPECT_TRUE(at::equal(rows.apply(kPoint, step, h), h));
  EXPECT_EQ(positions, (std::vector<std::int64_t>{1, 4}));
}

TEST(Audit, CountsAreExact) {
  Steering s;
  s.add(ones(), kPoint, 2, {.name = "push"}).project_to(ones(), kPoint, -100, TargetSide::below, {.name = "floor"});
  auto rows = rows_of(s);
  FakeStep step;
  step.add(0, 0, 4, 4, Phase::prompt);
  rows.apply(kPoint, step, at::full({4, kWidth}, 3.0));
  const auto audit = rows.audit(0);
  EXPECT_EQ(audit.edits[0].edit, "push");
  EXPECT_EQ(audit.edits[0].seen, 4);
  EXPECT_EQ(audit.edits[0].in_scope, 3);
  EXPECT_EQ(audit.edits[0].edited, 3);
  EXPECT_NEAR(audit.edits[0].mean_change, 2.0 / 3.0, 1e-6);  // |2 v| / |3 v|
  EXPECT_NEAR(audit.edits[0].max_change, 2.0 / 3.0, 1e-6);
  EXPECT_EQ(audit.edits[1].in_scope, 3);
  EXPECT_EQ(audit.edits[1].edited, 0);
  EXPECT_NO_THROW(audit.require_fired("x"));
}

TEST(Compiled, CostsOneDotAPinnedFeatureAndNoneANudge) {
  const Sae sae = sae_of(SaeActivation::jumprelu), full = sae_of(SaeActivation::topk);
  Steering pins, nudges, top;
  pins.pin(sae, 1, 2).ablate(sae, 4).cap(sae, 5, 1);
  nudges.nudge(sae, 1, 2).nudge(sae, 3, 1);
  top.pin(full, 1, 2);
  const test::Rows rows(test::small_model(kWidth), std::nullopt, std::vector{pins, nudges, top, {}});
  EXPECT_EQ(rows.dots(0, kPoint), 3);
  EXPECT_EQ(rows.dots(1, kPoint), 0);
  EXPECT_EQ(rows.dots(2, kPoint), 12);  // every feature competes
  EXPECT_EQ(rows.program(0).points(), std::vector<HookPoint>{kPoint});
  EXPECT_TRUE(rows.program(3).points().empty());
}

/// Every kind against the table of docs/steering-schema.md: the units it may be measured in, and vectors of no
/// direction.
TEST(BadInput, UnitsThatAKindHasNotAndVectorsOfNoDirectionAreRefused) {
  const Sae sae = sae_of();
  const at::Tensor v = ones(), w = at::arange(kWidth, at::kFloat), zero = at::zeros({kWidth});
  using Build = std::function<void(Steering&, const at::Tensor&, StrengthUnit)>;
  struct Kind {
    const char* name;
    Build build;  ///< with the vector that needs a direction, if it has one
    bool norm, activation, direction;
  };
  const auto with = [](StrengthUnit unit) { return EditOptions{.unit = unit}; };
  const auto feature = [](StrengthUnit unit) {
    return EditOptions{.unit = unit, .max_activation = unit == StrengthUnit::max_activation ? 2.0 : 0.0};
  };
  const std::vector<Kind> kinds{
      {"add", [&](auto& s, auto& x, auto u) { s.add(x, kPoint, 1, with(u)); }, true, false, false},
      {"nudge", [&](auto& s, auto&, auto u) { s.nudge(sae, 1, 1, feature(u)); }, true, true, false},
      {"pin", [&](auto& s, auto&, auto u) { s.pin(sae, 1, 1, feature(u)); }, true, true, false},
      {"mul", [&](auto& s, auto&, auto u) { s.mul(sae, 1, 2, feature(u)); }, false, false, false},
      {"project_out", [&](auto& s, auto& x, auto u) { s.project_out(x, kPoint, with(u)); }, false, false, true},
      {"scale_along", [&](auto& s, auto& x, auto u) { s.scale_along(x, kPoint, 2, with(u)); }, false, false, true},
      {"project_to", [&](auto& s, auto& x, auto u) { s.project_to(x, kPoint, 1, TargetSide::both, with(u)); }, true,
       false, true},
      {"set_along_metric",
       [&](auto& s, auto& x, auto u) {
         s.set_along_metric(x, ActivationMetric::of(at::eye(kWidth)), kPoint, 1, with(u));
       },
       false, false, true},
      {"swap", [&](auto& s, auto& x, auto u) { s.swap(x, w, kPoint, with(u)); }, false, false, true},
      {"rotate", [&](auto& s, auto& x, auto u) { s.rotate(x, w, kPoint, 1, with(u)); }, false, false, true},
      {"gated_add", [&](auto& s, auto& x, auto u) { s.gated_add(x, 0, w, kPoint, 1, with(u)); }, false, false, false},
      {"splice", [&](auto& s, auto&, auto u) { s.splice(sae, false, with(u)); }, false, false, false},
      {"cap_norm", [&](auto& s, auto&, auto u) { s.cap_norm(kPoint, 1, with(u)); }, true, false, false},
      {"keep_norm", [&](auto& s, auto&, auto u) { s.keep_norm(kPoint, with(u)); }, false, false, false},
      {"custom", [&](auto& s, auto&, auto u) { s.custom([](const CustomContext& c) { return c.h; }, kPoint, with(u)); },
       false, false, false},
  };
  for (const Kind& kind : kinds) {
    SCOPED_TRACE(kind.name);
    for (const auto& [unit, takes] :
         {std::pair(StrengthUnit::raw, true), std::pair(StrengthUnit::residual_norm, kind.norm),
          std::pair(StrengthUnit::max_activation, kind.activation)}) {
      Steering s;
      if (takes) {
        EXPECT_NO_THROW(kind.build(s, v, unit)) << to_string(unit);
        EXPECT_EQ(s.edits().size(), 1u);
      } else {
        EXPECT_STEER_ERROR(kind.build(s, v, unit), ErrorCode::argument, "unit");
        EXPECT_TRUE(s.empty());
      }
    }
    if (kind.direction) {
      Steering s;
      EXPECT_STEER_ERROR(kind.build(s, zero, StrengthUnit::raw), ErrorCode::argument, "zero vector");
    }
  }
}

TEST(BadInput, IsRefusedWhenTheEditIsMade) {
  const Sae sae = sae_of();
  const double nan = std::nan("");
  Steering s;
  EXPECT_STEER_ERROR(s.nudge(sae, 12, 1), ErrorCode::argument, "[0, 12)");
  EXPECT_STEER_ERROR(s.nudge(sae, -1, 1), ErrorCode::argument, "[0, 12)");
  EXPECT_STEER_ERROR(s.nudge(sae, 1, nan), ErrorCode::argument, "finite");
  EXPECT_STEER_ERROR(s.add(ones(), kPoint, nan), ErrorCode::argument, "finite strength");
  EXPECT_STEER_ERROR(s.add(at::empty({0}), kPoint, 1), ErrorCode::shape, "width");
  EXPECT_STEER_ERROR(s.add(at::Tensor(), kPoint, 1), ErrorCode::argument, "undefined");
  EXPECT_STEER_ERROR(s.add(ones() * nan, kPoint, 1), ErrorCode::argument, "finite");
  EXPECT_STEER_ERROR(s.add(ones(), "blocks.1.hook_nothing", 1), ErrorCode::argument, "hook_nothing");
  EXPECT_STEER_ERROR(s.project_out(at::zeros({4}), kPoint), ErrorCode::argument, "zero vector");
  EXPECT_STEER_ERROR(s.rotate(ones(), ones() * 2, kPoint, 1), ErrorCode::argument, "parallel");
  EXPECT_STEER_ERROR(s.clamp(sae, 1, 2, 1), ErrorCode::argument, "low <= high");
  EXPECT_STEER_ERROR(s.cap_norm(kPoint, 0), ErrorCode::argument, "above 0");
  EXPECT_STEER_ERROR(s.nudge(sae, 1, 1, {.unit = StrengthUnit::max_activation}), ErrorCode::argument,
                     "maximum activation");
  EXPECT_STEER_ERROR(s.mul(sae, 1, 1, {.unit = StrengthUnit::residual_norm}), ErrorCode::argument, "unit");
  EXPECT_STEER_ERROR(s.add(ones(), kPoint, 1, {.scope = {.where = Where::onset}}), ErrorCode::argument,
                     "match nothing");
  EXPECT_STEER_ERROR(s.add(ones(), kPoint, 1, {.scope = {.where = Where::span, .begin = 3, .end = 3}}),
                     ErrorCode::argument, "match nothing");
  EXPECT_STEER_ERROR(s.add(ones(), kPoint, 1, {.scope = {.where = Where::span, .begin = 0, .end = 1}}),
                     ErrorCode::argument, "match nothing");
  EXPECT_STEER_ERROR(s.add(ones(), kPoint, 1, {.scope = {.where = Where::inside_tag}}), ErrorCode::argument, "tag");
  EXPECT_STEER_ERROR(Condition::feature_above(sae, 99, 1), ErrorCode::argument, "[0, 12)");
  EXPECT_STEER_ERROR(Condition::entropy_between(2, 1), ErrorCode::argument, "low <= high");
  EXPECT_STEER_ERROR(Condition::entropy_between(1, 2, {.point = kPoint}), ErrorCode::argument, "hook point");
  EXPECT_STEER_ERROR(s.add(ones(), kPoint, 1, {.point = kPoint}), ErrorCode::argument, "EditOptions");
  EXPECT_STEER_ERROR(s.add(ones(), kPoint, 1, {.max_activation = 2}), ErrorCode::argument, "EditOptions");
  EXPECT_STEER_ERROR(s.splice(sae, false, {.max_activation = 2}), ErrorCode::argument, "EditOptions");
  const auto scoped = [&](const Scope& scope) { s.add(ones(), kPoint, 1, {.scope = scope}); };
  EXPECT_STEER_ERROR(scoped({.where = Where::generated, .count = 3}), ErrorCode::argument, "without count");
  EXPECT_STEER_ERROR(scoped({.where = Where::prompt, .begin = -3}), ErrorCode::argument, "without begin and end");
  EXPECT_STEER_ERROR(scoped({.end = 3}), ErrorCode::argument, "without begin and end");
  EXPECT_STEER_ERROR(scoped({.where = Where::last, .tag = "thinking"}), ErrorCode::argument, "without a tag");
  EXPECT_STEER_ERROR(scoped({.except = {{.where = Where::last, .count = 2}}}), ErrorCode::argument, "without count");
  EXPECT_STEER_ERROR(s.swap(ones(), ones() * 2, kPoint), ErrorCode::argument, "parallel");
  EXPECT_STEER_ERROR(s.set_along_metric(ones(), ActivationMetric::of(at::ones({3, 3})), kPoint, 1), ErrorCode::shape,
                     "[16, 16]");
  EXPECT_STEER_ERROR(s.set_along_metric(ones(), ActivationMetric::of(-at::eye(kWidth)), kPoint, 1), ErrorCode::argument,
                     "positive definite");
  EXPECT_STEER_ERROR(s.scaled(nan), ErrorCode::argument, "finite");
  EXPECT_TRUE(s.empty());
}

TEST(BadInput, IsRefusedWhenItIsCompiled) {
  const auto compile = [](const Steering& s) {
    ModelConfig config = test::small_model(kWidth);
    config.name = "acme/tiny-1b";
    return steering::detail::CompiledSteering(config, std::nullopt, s);
  };
  EXPECT_STEER_ERROR(compile(Steering().add(ones(), "blocks.3.hook_resid_post", 1)), ErrorCode::argument, "[0, 3)");
  EXPECT_STEER_ERROR(compile(Steering().add(ones(8), kPoint, 1)), ErrorCode::shape, "width 16");
  EXPECT_STEER_ERROR(compile(Steering().nudge(sae_of(SaeActivation::relu, 8), 1, 1)), ErrorCode::shape, "edit 0");
  EXPECT_STEER_ERROR(compile(Steering().add(ones(), "blocks.1.attn.hook_pattern", 1)), ErrorCode::unsupported,
                     "hook_pattern");
  EXPECT_STEER_ERROR(compile(Steering().custom([](const auto& at) { return at.h; }, "blocks.3.attn.hook_pattern")),
                     ErrorCode::argument, "[0, 3)");
  EXPECT_STEER_ERROR(
      compile(Steering().add(ones(), kPoint, 1, {.scope = {.where = Where::span, .begin = 600, .end = 700}})),
      ErrorCode::argument, "context");
  const auto late = Condition::probe_above(ones(), 0, {.point = HookPoint{Site::resid_post, 2}});
  EXPECT_STEER_ERROR(compile(Steering().add(ones(), kPoint, 1, {.when = late})), ErrorCode::argument, "behind");
  SaeConfig config = sae_of().config();
  config.model_name = "other-7b";
  const Sae base = sae_of();
  SaeWeights weights;
  weights.W_enc = base.W_enc();
  weights.b_enc = base.b_enc();
  weights.W_dec = base.W_dec();
  weights.b_dec = base.b_dec();
  const Sae other = Sae::from_weights(config, weights);
  EXPECT_EQ(compile(Steering().nudge(other, 1, 1)).warnings().size(), 1u);
  EXPECT_THAT(compile(Steering().nudge(other, 1, 1)).warnings()[0], testing::HasSubstr("other-7b"));
  EXPECT_THAT(compile(Steering().nudge(base, 1, 1, {.point = HookPoint{Site::resid_post, 2}})).warnings(),
              testing::ElementsAre(testing::HasSubstr("trained at blocks.1.hook_resid_post")));
}

Steering of_every_kind(const Sae& sae) {
  const at::Tensor v = at::arange(1, kWidth + 1, at::kFloat);
  Scope tag{.where = Where::inside_tag};
  tag.tag = "thinking";
  Steering s;
  s.add(v, kPoint, 0.1,
        {.scope = {.where = Where::onset, .count = 4}, .unit = StrengthUnit::residual_norm, .name = "push"})
      .nudge(sae, 1, 0.25, {.scope = tag})
      .pin(sae, 2, 0.1, {.unit = StrengthUnit::max_activation, .max_activation = 3})
      .mul(sae, 3, 1.5, {.when = Condition::feature_above(sae, 5, 0.3, {.release = 0.1, .sticky = true})})
      .clamp(sae, 4, -1, 2)
      .cap(sae, 5, 0.7,
           {.when = Condition::all_of(
                {Condition::entropy_between(0.1, 2), Condition::probe_above(v, 0.5, {.point = kPoint})})})
      .ablate(sae, 6)
      .project_out(v, kPoint)
      .scale_along(v, kPoint, -0.5, {.scope = {.where = Where::span, .begin = 2, .end = 9, .include_bos = true}})
      .project_to(v, kPoint, 0.5, TargetSide::above)
      .rotate(v, ones(), kPoint, 0.3)
      .swap(v, ones(), kPoint,
            {.scope = {.where = Where::from_last, .tokens = {3, 4}, .except = {{.where = Where::onset, .count = 2}}}})
      .set_along_metric(v, ActivationMetric::of(at::eye(kWidth)), kPoint, 0.4,
                        {.scope = {.where = Where::span, .begin = -3}})
      .gated_add(v, 0.1, ones(), kPoint, 2)
      .splice(sae, true)
      .cap_norm(kPoint, 1.1, {.unit = StrengthUnit::residual_norm})
      .keep_norm(kPoint)
      .abort_when(Condition::feature_at_most(sae, 7, 0.2), "gone");
  return s.scaled(0.3);
}

TEST(SteeringJson, RoundTrips) {
  const Sae sae = sae_of();
  const Steering s = of_every_kind(sae);
  EXPECT_EQ(Steering::from_json(json::parse(s.to_json().dump()), {.saes = {sae}}), s);
  const test::TempDir folder;
  sae.save(folder / "sae");
  const Sae saved = Sae::load(folder / "sae");
  const Steering t = of_every_kind(saved);
  t.save(folder / "s.json", {.sae_paths = {{saved.hash(), "sae"}}});
  EXPECT_TRUE(std::filesystem::exists(folder / "s.safetensors"));
  EXPECT_EQ(Steering::load(folder / "s.json"), t);
  t.save(folder / "elsewhere.json");
  EXPECT_EQ(Steering::load(folder / "elsewhere.json"), t) << "an SAE that was loaded is found again";
  EXPECT_FALSE(t.to_json().at("saes").front().contains("path")) << "and what is compared does not say where";
  s.save(folder / "memory.json");
  EXPECT_STEER_ERROR(Steering::load(folder / "memory.json"), ErrorCode::config, "SteeringLoadOptions::saes");
}

TEST(SteeringJson, RefusesWhatItDoesNotKnow) {
  const Sae sae = sae_of();
  const json good = of_every_kind(sae).to_json();
  const auto read = [&](const json& j) { return Steering::from_json(j, {.saes = {sae}}); };
  json bad = good;
  bad["edits"][0]["strenght"] = 2;
  EXPECT_STEER_ERROR(read(bad), ErrorCode::format, "strenght");
  bad = good;
  bad["version"] = 2;
  EXPECT_STEER_ERROR(read(bad), ErrorCode::format, "version");
  bad = good;
  bad["edits"][0]["kind"] = "shove";
  EXPECT_STEER_ERROR(read(bad), ErrorCode::format, "shove");
  bad = good;
  bad["edits"][1]["feature"] = 12;
  EXPECT_STEER_ERROR(read(bad), ErrorCode::argument, "[0, 12)");
  EXPECT_STEER_ERROR(Steering::from_json(good), ErrorCode::config, "SteeringLoadOptions::saes");
  Steering custom;
  custom.custom([](const CustomContext& at) { return at.h; }, kPoint);
  EXPECT_STEER_ERROR(custom.to_json(), ErrorCode::unsupported, "edit 0 (custom at");
}

TEST(SteeringValue, ComposesScalesAndDiffs) {
  const Sae sae = sae_of();
  const Steering a = Steering().nudge(sae, 1, 0.5).pin(sae, 2, 1), b = Steering().nudge(sae, 1, 0.5).pin(sae, 2, 2);
  EXPECT_TRUE(a.diff(a).empty());
  EXPECT_EQ(a.diff(b), (std::vector<std::string>{"- pin 2 to 1 at blocks.1.hook_resid_post",
                                                 "+ pin 2 to 2 at blocks.1.hook_resid_post"}));
  EXPECT_EQ((a + b).edits().size(), 4u);
  EXPECT_EQ(a.scaled(0.5).edits()[0].strength, 0.5);
  EXPECT_EQ(a.first_layer(), 1);
}

TEST(SteeringInterop, HostedVariants) {
  const Sae sae = sae_of();
  const json variant = json::parse(R"({"base_model":"m","edits":[
      {"feature_id":"u","feature_label":"funny","max_activation_strength":4.0,"index_in_sae":3,"mode":"nudge","value":0.5},
      {"feature_id":"u","feature_label":"","max_activation_strength":2.0,"index_in_sae":4,"mode":"pin","value":-0.25}],
    "scopes":[{"condition":{"conditionals":[{"left_hand":{"features":[{"uuid":"u","label":"","max_activation_strength":1.0,"index_in_sae":5}]},
      "right_hand":0.3,"operator":">"}],"operator":"AND"},
      "nested_variant":{"base_model":"m","edits":[{"feature_id":"","feature_label":"","max_activation_strength":1.0,"index_in_sae":6,"mode":"mul","value":2.0}],"scopes":[]}}]})");
  const Steering wanted = Steering()
                              .nudge(sae, 3, 0.5, {.max_activation = 4})
                              .pin(sae, 4, -0.25, {.max_activation = 2})
                              .mul(sae, 6, 2, {.when = Condition::feature_above(sae, 5, 0.3), .max_activation = 1});
  const Steering got = from_hosted_variant(variant, sae);
  EXPECT_EQ(got, wanted) << got.describe();
  EXPECT_EQ(from_hosted_variant(to_hosted_variant(got, "m"), sae), got);
  const json controller =
      json::parse(R"({"name":"c","interventions":[{"mode":"nudge","value":0.5,"features":{"features":[{"uuid":"u",
      "label":"l","max_activation_strength":1.0,"index_in_sae":3}]}}],"scopes":[],"nonzero_strength_threshold":null,
      "min_nudge_entropy":0.5,"max_nudge_entropy":null})");
  const Steering nudge = from_hosted_variant(controller, sae);
  ASSERT_EQ(nudge.edits().size(), 1u);
  EXPECT_EQ(nudge.edits()[0].when->source, ConditionSource::entropy);
  // a & (b | c), as the SDK writes it.
  const auto above = [](int feature) {
    return json{{"left_hand", {{"features", {{{"index_in_sae", feature}}}}}}, {"right_hand", 0.5}, {"operator", ">"}};
  };
  json nested = controller;
  nested["scopes"] = {{{"conditionals",
                        {{"operator", "AND"},
                         {"conditionals", {above(5), {{"operator", "OR"}, {"conditionals", {above(6), above(7)}}}}}}},
                       {"controller", controller}}};
  const Steering scoped = from_hosted_variant(nested, sae);
  ASSERT_EQ(scoped.edits().size(), 2u);
  EXPECT_EQ(scoped.edits()[1].when->parts[0],
            Condition::all_of(
                {Condition::feature_above(sae, 5, 0.5),
                 Condition::any_of({Condition::feature_above(sae, 6, 0.5), Condition::feature_above(sae, 7, 0.5)})}));
  json deep = above(1);
  for (int i = 0; i < 40; ++i) deep = {{"operator", "OR"}, {"conditionals", {deep}}};
  nested["scopes"][0]["conditionals"] = deep;
  EXPECT_STEER_ERROR(from_hosted_variant(nested, sae), ErrorCode::format, "nested less than");
  json bad = controller;
  bad["nonzero_strength_threshold"] = 0.1;
  EXPECT_STEER_ERROR(from_hosted_variant(bad, sae), ErrorCode::unsupported, "nonzero_strength_threshold");
  bad = variant;
  bad["edits"][0]["mode"] = "boost";
  EXPECT_STEER_ERROR(from_hosted_variant(bad, sae), ErrorCode::format, "boost");
  EXPECT_STEER_ERROR(to_hosted_variant(Steering().nudge(sae, 1, 1).ablate(sae, 2), "m"), ErrorCode::unsupported,
                     "edit 1 (ablate 2");
}

TEST(SteeringInterop, VllmJson) {
  const json source = json::parse(
      R"({"vectors":{"post_mlp":{"1":[1,2,3]}},"decode_vectors":{"post_mlp":{"2":{"vector":[0,0,1],"scale":-2}}}})");
  const Steering s = from_vllm_json(source);
  ASSERT_EQ(s.edits().size(), 2u);
  EXPECT_EQ(s.edits()[0].point, (HookPoint{Site::resid_post, 1}));
  EXPECT_TRUE(s.edits()[0].scope.include_bos);
  EXPECT_EQ(s.edits()[1].scope.where, Where::generated);
  EXPECT_EQ(s.edits()[1].strength, -2);
  EXPECT_EQ(to_vllm_json(s),
            json::parse(
                R"({"vectors":{"post_mlp":{"1":[1.0,2.0,3.0]}},"decode_vectors":{"post_mlp":{"2":[0.0,0.0,-2.0]}}})"));
  EXPECT_STEER_ERROR(from_vllm_json(json::parse(R"({"vectors":{"pre_attn":{}}})")), ErrorCode::unsupported, "pre_attn");
  EXPECT_STEER_ERROR(from_vllm_json(json::parse(R"({"vektors":{}})")), ErrorCode::format, "vektors");
  EXPECT_STEER_ERROR(to_vllm_json(Steering().add(ones(), kPoint, 1)), ErrorCode::unsupported, "BOS");
  EXPECT_STEER_ERROR(
      to_vllm_json(Steering().rotate(ones(), at::arange(16, at::kFloat), kPoint, 1, {.scope = {.include_bos = true}})),
      ErrorCode::unsupported, "rotate");
}

TEST(SteeringInterop, ControlVectorsOfLlamaCpp) {
  const Sae sae = sae_of();
  Steering s;
  s.add(ones(), kPoint, 2, {.scope = {.include_bos = true}}).nudge(sae, 3, 0.5, {.scope = {.include_bos = true}});
  const test::TempDir folder;
  save_control_vector(folder / "v.gguf", to_control_vector(s, "llama"));
  const Steering back = from_control_vector(load_control_vector(folder / "v.gguf"));
  ASSERT_EQ(back.edits().size(), 1u);
  EXPECT_EQ(back.edits()[0].point, kPoint);
  const std::int64_t feature = 3;
  const at::Tensor wanted = 2 * ones() + 0.5 * sae.decoder_rows(std::span(&feature, 1))[0];
  EXPECT_LT((back.edits()[0].vector("vector") - wanted).abs().max().item<double>(), 1e-6);
  EXPECT_STEER_ERROR(
      to_control_vector(Steering().add(ones(), "blocks.0.hook_resid_post", 1, {.scope = {.include_bos = true}})),
      ErrorCode::unsupported, "layer 0");
  EXPECT_STEER_ERROR(to_control_vector(Steering().pin(sae, 1, 1, {.scope = {.include_bos = true}})),
                     ErrorCode::unsupported, "pin 1");
}

TEST(Vectors, FindAPlantedDirection) {
  Rng rng(11);
  for (const auto& [width, count] : {std::pair<std::int64_t, std::int64_t>{6, 80}, {50, 30}}) {
    const at::Tensor direction = at::arange(1, width + 1, at::kFloat) / 10;
    const at::Tensor unit = direction / at::norm(direction);
    const at::Tensor noise = test::random_tensor(rng, {2 * count, width}, 0.3);
    const at::Tensor positive = noise.slice(0, 0, count) + 2 * unit, negative = noise.slice(0, count) - 2 * unit;
    const auto cosine = [&](const at::Tensor& v) { return at::dot(v / at::norm(v), unit).item<double>(); };
    EXPECT_GT(cosine(difference_of_means(positive, negative)), 0.98);
    EXPECT_NEAR(at::norm(difference_of_means(positive, negative)).item<double>(), 4, 0.3);
    EXPECT_GT(cosine(principal_direction(positive, negative)), 0.98);
    EXPECT_GT(cosine(principal_direction(positive, negative.slice(0, 0, count - 3))), 0.98);
    const LinearProbe probe = logistic_probe(positive, negative);
    EXPECT_GT(cosine(probe.w), 0.9);
    EXPECT_EQ(probe.accuracy, 1);
  }
  EXPECT_STEER_ERROR(difference_of_means(at::ones({2, 3}), at::ones({2, 4})), ErrorCode::shape, "one width");
  EXPECT_STEER_ERROR(logistic_probe(at::ones({2, 3}), at::ones({2, 3}), {.l2 = 0}), ErrorCode::argument, "l2");
}

TEST(Vectors, LogisticProbeSolvesItsEquations) {
  // At the optimum the gradient of the stated objective, taken by autograd, is 0.
  Rng rng(2);
  const at::Tensor p = test::random_tensor(rng, {30, 5}) + 0.4, n = test::random_tensor(rng, {20, 5}) - 0.4;
  const LinearProbe probe = logistic_probe(p, n, {.l2 = 0.05});
  const at::Tensor x = at::cat({p, n}), mean = x.mean(0), scale = (x - mean).pow(2).mean().sqrt();
  at::Tensor w = (probe.w * scale).clone().requires_grad_(true);
  at::Tensor b = at::full({}, probe.b).add(at::dot(probe.w, mean)).detach().requires_grad_(true);
  const auto side = [&](const at::Tensor& rows, double sign) {
    return at::softplus(-sign * (at::matmul((rows - mean) / scale, w) + b)).mean();
  };
  at::Tensor loss = 0.5 * side(p, 1) + 0.5 * side(n, -1) + 0.05 * w.pow(2).sum() / 2;
  loss.backward();
  EXPECT_LT(at::norm(w.grad()).item<double>(), 1e-5);
  EXPECT_LT(std::abs(b.grad().item<double>()), 1e-5);
}

TEST(Vectors, FilesRoundTrip) {
  const test::TempDir folder;
  const VectorSet set{{{Site::resid_post, 1}, at::arange(4, at::kFloat)}, {{Site::resid_post, 2}, at::ones({4})}};
  for (const char* name : {"v.safetensors", "v.gguf"}) {
    save_vectors(folder / name, set);
    const VectorSet back = load_vectors(folder / name);
    ASSERT_EQ(back.size(), 2u);
    for (const auto& [point, vector] : set) EXPECT_TRUE(at::equal(back.at(point), vector));
  }
  EXPECT_STEER_ERROR(save_vectors(folder / "w.gguf", {{{Site::mlp_out, 1}, at::ones({4})}}), ErrorCode::argument,
                     "mlp_out");
}

}  // namespace
}  // namespace steer
