#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>

#include <steer/generate/score.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include <steer/core/random.hpp>
#include <steer/generate/generate.hpp>

#include "generate/divergence.hpp"
#include "generate/misplaced.hpp"
#include "model/log_probability.hpp"
#include "support.hpp"
#include "tiny_model.hpp"

namespace steer {
namespace {

std::vector<ScoreRequest> random_requests(std::size_t count) {
  Rng rng(4);
  std::vector<ScoreRequest> requests;
  for (std::size_t r = 0; r < count; ++r) {
    ScoreRequest request;
    const std::size_t length = 2 + rng.below(40);
    while (request.ids.size() < length) request.ids.push_back(static_cast<std::int64_t>(rng.below(64)));
    request.begin = 1 + static_cast<std::int64_t>(rng.below(length - 1));
    requests.push_back(request);
  }
  return requests;
}

Steering shift(double strength, Where where) {
  at::manual_seed(8);
  Steering steering;
  steering.add(at::randn({32}), "blocks.1.hook_resid_post", strength, {.scope = {.where = where}});
  return steering;
}

TEST(Score, IsTheSumOfLogSoftmaxOverTheTail) {
  const Model model = test::tiny_model();
  Session session(model);
  const auto requests = random_requests(60);
  const auto scores = score_texts(model, requests);
  ASSERT_EQ(scores.size(), requests.size());
  for (std::size_t r = 0; r < requests.size(); ++r) {
    const at::Tensor logits = session.forward(requests[r].ids);
    double expected = 0;
    for (std::size_t t = static_cast<std::size_t>(requests[r].begin); t < requests[r].ids.size(); ++t)
      expected += at::log_softmax(logits[static_cast<std::int64_t>(t) - 1].to(at::kDouble), -1)[requests[r].ids[t]]
                      .item<double>();
    EXPECT_NEAR(scores[r].log_probability, expected, 1e-3) << r;
    EXPECT_EQ(scores[r].tokens, static_cast<std::int64_t>(requests[r].ids.size()) - requests[r].begin);
  }
}

// What a row scored while it was generated is what it scores afterwards, under the same steering.
TEST(Score, EqualsWhatGenerationSaw) {
  const Model model = test::tiny_model();
  const GenerateRequest request{{1, 9, 10, 11}, shift(0.7, Where::generated), {}};
  const auto generated = generate(model, {&request, 1}, {.sampling = {.temperature = 1}, .max_tokens = 12}).front();
  ASSERT_FALSE(generated.ids.empty());
  ScoreRequest again{request.ids, 4, request.steering};
  again.ids.insert(again.ids.end(), generated.ids.begin(), generated.ids.end());
  double sum = 0;
  for (double value : generated.log_probabilities) sum += value;
  EXPECT_NEAR(score_texts(model, {&again, 1})[0].log_probability, sum, 1e-3);
  again.steering.reset();
  EXPECT_GT(std::abs(score_texts(model, {&again, 1})[0].log_probability - sum), 1e-3);
}

TEST(Score, WarningsAreInTheResultOfTheirText) {
  const Model model = test::tiny_model();
  auto requests = random_requests(2);
  requests[1].steering = test::misplaced_nudge();
  const auto scores = score_texts(model, requests);
  EXPECT_TRUE(scores[0].warnings.empty());
  ASSERT_EQ(scores[1].warnings.size(), 1u);
  EXPECT_NE(scores[1].warnings[0].find("trained at"), std::string::npos) << scores[1].warnings[0];
  const auto apart = divergence_from_unsteered(model, requests);
  EXPECT_TRUE(apart[0].warnings.empty());
  EXPECT_EQ(apart[1].warnings, scores[1].warnings);
  const ScoreOptions strict{.on_warning = OnWarning::error};
  EXPECT_STEER_ERROR(score_texts(model, requests, strict), ErrorCode::config, "trained at");
  EXPECT_STEER_ERROR(divergence_from_unsteered(model, requests, strict), ErrorCode::config, "trained at");
}

TEST(Score, KlIsZeroWithoutAnEditAndPositiveWithOne) {
  const Model model = test::tiny_model();
  auto requests = random_requests(10);
  for (auto& request : requests) request.steering = shift(0.0, Where::all);
  for (const auto& text : divergence_from_unsteered(model, requests)) EXPECT_EQ(text.mean, 0);
  for (auto& request : requests) request.steering = shift(1.0, Where::all);
  for (const auto& text : divergence_from_unsteered(model, requests)) EXPECT_GT(text.mean, 0);
}

TEST(Score, GivesEachTokenAndEndsWhereAsked) {
  const Model model = test::tiny_model();
  auto requests = random_requests(20);
  const auto whole = score_texts(model, requests);
  const auto divergence = [&] {
    auto steered = requests;
    for (auto& request : steered) request.steering = shift(1.0, Where::all);
    return divergence_from_unsteered(model, steered);
  };
  const auto far = divergence();
  for (std::size_t r = 0; r < requests.size(); ++r) requests[r].end = requests[r].begin + 1;
  const auto first = score_texts(model, requests);
  const auto near = divergence();
  for (std::size_t r = 0; r < requests.size(); ++r) {
    ASSERT_EQ(static_cast<std::int64_t>(whole[r].token_log_probabilities.size()), whole[r].tokens);
    double sum = 0;
    for (double value : whole[r].token_log_probabilities) sum += value;
    EXPECT_NEAR(sum, whole[r].log_probability, 1e-9);
    ASSERT_EQ(first[r].token_log_probabilities.size(), 1u);
    EXPECT_NEAR(first[r].token_log_probabilities[0], whole[r].token_log_probabilities[0], 1e-5);
    EXPECT_EQ(far[r].values.size(), whole[r].token_log_probabilities.size());
    EXPECT_NEAR(near[r].mean, far[r].values[0], 1e-5);
    if (requests[r].begin > 1) {
      EXPECT_GT(near[r].mean, 0);  // position 0 is left alone
    }
  }
}

TEST(Score, BrokenLogitsAreAnErrorThatNamesTheText) {
  const Model model = test::tiny_model();
  Steering broken;
  broken.custom([](const CustomContext& at) { return at.h * std::nan(""); }, "blocks.1.hook_resid_post");
  const std::vector<ScoreRequest> requests{{{1, 2, 3}, 1, {}}, {{1, 2, 3}, 1, broken}};
  EXPECT_STEER_ERROR(score_texts(model, requests), ErrorCode::argument, "text 1");
  EXPECT_STEER_ERROR(divergence_from_unsteered(model, requests), ErrorCode::argument, "text 1");
}

/// Against the definition in f64, at lengths that end in all parts of the loop.
TEST(Score, KlOfTwoRowsIsItsDefinition) {
  Rng rng(9);
  const float ruled_out = -std::numeric_limits<float>::infinity();
  for (const std::int64_t n : {1, 2, 15, 16, 17, 31, 1023, 1024, 1025, 1041, 5000}) {
    std::vector<float> x, y;
    for (std::int64_t i = 0; i < n; ++i) {
      x.push_back(static_cast<float>(-500 + 3 * rng.normal()));
      y.push_back(static_cast<float>(x.back() + 40 + rng.normal()));
      if (i > 0 && i % 7 == 0) x.back() = ruled_out;   // adds nothing
      if (i > 0 && i % 14 == 0) y.back() = ruled_out;  // nor where both rule it out
    }
    const auto log_sum = [&](const std::vector<float>& a) {
      double sum = 0;
      for (float v : a) sum += std::exp(static_cast<double>(v) + 500);
      return std::log(sum) - 500;
    };
    const double of_x = log_sum(x), of_y = log_sum(y);
    double kl = 0;
    for (std::int64_t i = 0; i < n; ++i)
      if (x[i] != ruled_out) kl += std::exp(x[i] - of_x) * (x[i] - of_x - y[i] + of_y);
    EXPECT_NEAR(model::detail::kl_divergence(x.data(), y.data(), n), kl, 2e-5) << n;
    EXPECT_EQ(model::detail::kl_divergence(x.data(), x.data(), n), 0) << n;
    y[0] = ruled_out;  // where x is possible
    EXPECT_FALSE(std::isfinite(model::detail::kl_divergence(x.data(), y.data(), n))) << n;
    x[0] = std::nanf("");
    EXPECT_TRUE(std::isnan(model::detail::kl_divergence(x.data(), y.data(), n))) << n;
  }
}

/// What a meter keeps between steerings (unsteered logits, prompts) changes nothing, and a failure leaves nothing
/// behind.
TEST(Score, AMeterSaysOfEachSteeringWhatTheDirectWayDoes) {
  const Model model = test::tiny_model();
  auto requests = random_requests(12);
  generation::detail::DivergenceMeter meter(model, requests);
  Steering broken;
  broken.custom([](const CustomContext& at) { return at.h * std::nan(""); }, "blocks.1.hook_resid_post");
  const std::vector<Steering> steerings{
      shift(1.0, Where::generated), broken, shift(0.5, Where::all), {}, shift(1.0, Where::generated)};
  for (const Steering& steering : steerings) {
    for (auto& request : requests) request.steering = steering;
    if (steering == broken) {
      EXPECT_STEER_ERROR(meter.of(steering), ErrorCode::argument, "text ");
      continue;
    }
    const auto kept = meter.of(steering), direct = divergence_from_unsteered(model, requests);
    ASSERT_EQ(kept.size(), direct.size());
    for (std::size_t r = 0; r < kept.size(); ++r) EXPECT_EQ(kept[r].values, direct[r].values) << "text " << r;
  }
}

/// A text's bits do not depend on the texts scored beside it.
TEST(Invariance, ScoresAndDivergencesOfATextAreItsOwn) {
  const Model model = test::tiny_model();
  test::CaseCounter cases("invariance (scores)");
  auto requests = random_requests(40);
  for (std::size_t r = 0; r < requests.size(); r += 2) requests[r].steering = shift(0.5, Where::all);
  const auto together = score_texts(model, requests);
  const auto apart = divergence_from_unsteered(model, requests);
  for (std::size_t r = 0; r < requests.size(); ++r) {
    const bool same =
        score_texts(model, {&requests[r], 1})[0].token_log_probabilities == together[r].token_log_probabilities &&
        divergence_from_unsteered(model, {&requests[r], 1})[0].values == apart[r].values;
    cases.count(same);
    EXPECT_TRUE(same) << "text " << r;
  }
}

TEST(Score, BadInputIsNamed) {
  const Model model = test::tiny_model();
  const auto run = [&](ScoreRequest request) { return score_texts(model, {&request, 1}); };
  EXPECT_STEER_ERROR(run({{1, 2}, 0}), ErrorCode::argument, "text 0 says 0");
  EXPECT_STEER_ERROR(run({{1, 2}, 2}), ErrorCode::argument, "text 0 says 2");
  EXPECT_STEER_ERROR(run({.ids = {1, 2}, .begin = 1, .end = 3}), ErrorCode::argument, "text 0 says 3");
  EXPECT_STEER_ERROR(run({std::vector<std::int64_t>(129, 1), 1}), ErrorCode::shape, "129");
}

/// What generation says of the tokens it draws, scoring says of them when they are given, conditions on the
/// distribution included.
TEST(Score, AgreesWithGenerationUnderAnySteering) {
  const Model model = test::tiny_model();
  Steering unsure, sure = shift(0.5, Where::generated);
  unsure.add(at::ones({32}), "blocks.1.hook_resid_post", 1, {.when = Condition::entropy_between(2, 5)});
  for (const Steering& steering : {Steering(), sure, unsure}) {
    const GenerateRequest request{{1, 7, 8, 9}, steering};
    const auto drawn = generate(model, {&request, 1}, {.max_tokens = 12, .ignore_eos = true}).front();
    ScoreRequest text{request.ids, 4, steering};
    text.ids.insert(text.ids.end(), drawn.ids.begin(), drawn.ids.end());
    EXPECT_EQ(score_texts(model, {&text, 1}).front().token_log_probabilities, drawn.log_probabilities);
  }
}

}  // namespace
}  // namespace steer
