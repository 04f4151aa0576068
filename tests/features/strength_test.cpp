#include <steer/features/strength.hpp>

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include <steer/core/random.hpp>

#include "support.hpp"
#include "tiny_model.hpp"

namespace steer {
namespace {

std::vector<TokenizedText> random_texts(std::size_t count) {
  Rng rng(11);
  std::vector<TokenizedText> texts(count);
  for (auto& text : texts) {
    for (int i = 0; i < 30; ++i) text.ids.push_back(static_cast<std::int64_t>(rng.below(64)));
    text.begin = 6 + static_cast<std::int64_t>(rng.below(8));
  }
  return texts;
}

Steering shift(double strength, Scope scope = {.where = Where::generated}) {
  at::manual_seed(8);
  Steering steering;
  steering.add(at::randn({32}), "blocks.1.hook_resid_post", strength, {.scope = scope});
  return steering;
}

/// NumPy's percentile of the tokens' KL, the slow way: hooks of the test's own and p log(p / q) in f64.
double slow_quantile(const Model& model, const at::Tensor& added, std::span<const TokenizedText> texts, double q) {
  Session session(model);
  std::vector<double> all;
  for (const auto& text : texts) {
    const at::Tensor base = at::log_softmax(session.forward(text.ids).to(at::kDouble), -1);
    const auto hook =
        session.hook("blocks.1.hook_resid_post", [&](HookContext& at) { at.value.slice(0, text.begin).add_(added); });
    const at::Tensor other = at::log_softmax(session.forward(text.ids).to(at::kDouble), -1);
    const at::Tensor kl = (base.exp() * (base - other)).sum(-1);
    for (auto t = text.begin - 1; t + 1 < std::ssize(text.ids); ++t) all.push_back(kl[t].item<double>());
  }
  std::ranges::sort(all);
  const double place = q * static_cast<double>(all.size() - 1);
  const auto i = static_cast<std::size_t>(place);
  return all[i] + (place - static_cast<double>(i)) * (all[std::min(i + 1, all.size() - 1)] - all[i]);
}

TEST(Strength, EffectIsTheQuantileOfTokenKl) {
  const Model model = test::tiny_model();
  const auto texts = random_texts(6);
  at::manual_seed(8);
  const at::Tensor vector = at::randn({32});
  for (double q : {0.5, 0.95, 1.0}) {
    const auto effect = steering_effect(model, shift(0.6), texts, q);
    EXPECT_NEAR(effect.quantile, slow_quantile(model, 0.6 * vector, texts, q), 2e-3 * effect.quantile) << q;
  }
  EXPECT_EQ(steering_effect(model, shift(0), texts).quantile, 0);
}

TEST(Strength, ReachesTheTargetWhateverItStartsFrom) {
  const Model model = test::tiny_model();
  const auto texts = random_texts(6);
  at::manual_seed(8);
  const at::Tensor vector = at::randn({32});
  for (double target : {0.03, 0.1, 0.3, 1.0})
    for (double start : {1e-3, 0.5, 300.0}) {
      const auto found = calibrate_strength(model, shift(start), target, {.texts = texts});
      ASSERT_TRUE(found.reached) << target << " " << start << ": " << found.reason;
      EXPECT_EQ(found.steering, shift(start).scaled(found.factor));
      EXPECT_LE(found.measured, 20) << target << " " << start;
      EXPECT_NEAR(slow_quantile(model, found.factor * start * vector, texts, 0.95), target, 0.06 * target)
          << start << ": " << found.reason;
    }
}

TEST(Strength, ALadderCostsLittleMoreThanOneRung) {
  const Model model = test::tiny_model();
  const auto texts = random_texts(6);
  at::manual_seed(8);
  const at::Tensor vector = at::randn({32});
  const std::vector<double> targets = {0.3, 0.03, 1, 0.1};
  std::int64_t measured = 0;
  const auto ladder = calibrate_strengths(model, shift(7), targets, {.texts = texts});
  for (std::size_t i = 0; i < targets.size(); ++i) {
    ASSERT_TRUE(ladder[i].reached) << ladder[i].reason;
    EXPECT_NEAR(slow_quantile(model, ladder[i].factor * 7 * vector, texts, 0.95), targets[i], 0.06 * targets[i]);
    measured += ladder[i].measured;
  }
  EXPECT_LE(measured, 20);
}

// Opposite, random and given directions disturb equally once each is brought to one KL, however unequal their lengths.
TEST(Strength, TwoSteeringsOfOneTargetDisturbEqually) {
  const Model model = test::tiny_model();
  const auto texts = random_texts(6);
  at::manual_seed(21);
  Steering other;
  other.add(40 * at::randn({32}), "blocks.0.hook_resid_post", 1, {.scope = {.where = Where::generated}});
  const auto a = calibrate_strength(model, shift(1), 0.2, {.texts = texts}),
             b = calibrate_strength(model, other, 0.2, {.texts = texts});
  EXPECT_NEAR(steering_effect(model, a.steering, texts).quantile, steering_effect(model, b.steering, texts).quantile,
              0.02);
}

TEST(Strength, SaysWhenTheTargetIsOutOfReach) {
  const Model model = test::tiny_model();
  const auto texts = random_texts(4);
  // A final norm and 64 tokens: no edit changes distributions by that much.
  const auto far = calibrate_strength(model, shift(1), 1e4, {.texts = texts});
  EXPECT_FALSE(far.reached);
  EXPECT_NE(far.reason.find("out of reach"), std::string::npos) << far.reason;
  EXPECT_GT(far.kl, 0);
  const auto idle =
      calibrate_strength(model, shift(1, {.where = Where::span, .begin = 60, .end = 70}), 0.1, {.texts = texts});
  EXPECT_FALSE(idle.reached);
  EXPECT_NE(idle.reason.find("no edit acts on the texts"), std::string::npos) << idle.reason;
  const auto hasty = calibrate_strength(model, shift(1e-4), 0.1, {.texts = texts, .max_measured = 2});
  EXPECT_FALSE(hasty.reached);
  EXPECT_LE(hasty.kl, 0.1) << "what is returned does not pass the target";
}

TEST(Strength, NeutralTextsFitTheModelsChatAndTheSteeringsTag) {
  const Model model = Model::load(std::filesystem::path(STEER_SOURCE_DIR) / "examples/data/demo");
  for (const auto& text : neutral_texts(model)) {
    ASSERT_GT(text.begin, 1);
    ASSERT_LT(text.begin + 8, std::ssize(text.ids));
  }
  Steering inside;
  inside.add(at::ones({128}), "blocks.1.hook_resid_post", 1,
             {.scope = {.where = Where::inside_tag, .tag = "thinking"}});
  const auto texts = neutral_texts(model, inside);
  const auto ids = std::span(texts[0].ids).subspan(static_cast<std::size_t>(texts[0].begin));
  const auto reply = model.tokenizer().decode(ids);
  EXPECT_NE(reply.find("<thinking>"), std::string::npos) << reply;
  EXPECT_TRUE(calibrate_strength(model, inside, 0.1).reached);
  EXPECT_STEER_ERROR(neutral_texts(test::tiny_model()), ErrorCode::config, "StrengthOptions::texts");
}

TEST(Strength, BadInputIsNamed) {
  const Model model = test::tiny_model();
  const auto texts = random_texts(2);
  EXPECT_STEER_ERROR(calibrate_strength(model, {}, 0.1, {.texts = texts}), ErrorCode::argument, "it has none");
  EXPECT_STEER_ERROR(calibrate_strength(model, shift(1), 0, {.texts = texts}), ErrorCode::argument, "above 0 nats");
  EXPECT_STEER_ERROR(calibrate_strength(model, shift(1), 1, {.texts = texts, .tolerance = 0}), ErrorCode::argument,
                     "tolerance in (0, 1)");
  EXPECT_STEER_ERROR(steering_effect(model, shift(1), {}), ErrorCode::argument, "at least one text");
  EXPECT_STEER_ERROR(steering_effect(model, shift(1), texts, 0), ErrorCode::argument, "quantile");
  const std::vector<TokenizedText> whole = {{{1, 2, 3}}};
  EXPECT_STEER_ERROR(steering_effect(model, shift(1), whole), ErrorCode::argument, "text 0 says [0, 3)");
}

}  // namespace
}  // namespace steer
