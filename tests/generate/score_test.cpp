#include <steer/generate/score.hpp>

#include <gtest/gtest.h>

#include <steer/core/random.hpp>
#include <steer/generate/generate.hpp>

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
  const auto scores = score(model, requests);
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
  EXPECT_NEAR(score(model, {&again, 1})[0].log_probability, sum, 1e-3);
  again.steering.reset();
  EXPECT_GT(std::abs(score(model, {&again, 1})[0].log_probability - sum), 1e-3);
}

TEST(Score, KlIsZeroWithoutAnEditAndPositiveWithOne) {
  const Model model = test::tiny_model();
  auto requests = random_requests(10);
  for (auto& request : requests) request.steering = shift(0.0, Where::all);
  for (double kl : kl_from_unsteered(model, requests)) EXPECT_EQ(kl, 0);
  for (auto& request : requests) request.steering = shift(1.0, Where::all);
  for (double kl : kl_from_unsteered(model, requests)) EXPECT_GT(kl, 0);
}

TEST(Score, BadInputIsNamed) {
  const Model model = test::tiny_model();
  const auto run = [&](ScoreRequest request) { return score(model, {&request, 1}); };
  EXPECT_STEER_ERROR(run({{1, 2}, 0}), ErrorCode::argument, "text 0 says 0");
  EXPECT_STEER_ERROR(run({{1, 2}, 2}), ErrorCode::argument, "text 0 says 2");
  EXPECT_STEER_ERROR(run({std::vector<std::int64_t>(129, 1), 1}), ErrorCode::shape, "129");
  Steering entropy;
  entropy.add(at::ones({32}), "blocks.1.hook_resid_post", 1, {.when = Condition::entropy_between(0, 1)});
  EXPECT_STEER_ERROR(run({{1, 2, 3}, 1, entropy}), ErrorCode::unsupported, "entropy");
}

}  // namespace
}  // namespace steer
