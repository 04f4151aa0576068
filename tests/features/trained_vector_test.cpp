#include <steer/features/trained_vector.hpp>

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

#include <steer/core/random.hpp>
#include <steer/generate/generate.hpp>
#include <steer/generate/score.hpp>

#include "support.hpp"
#include "tiny_model.hpp"

namespace steer {
namespace {

const HookPoint point = HookPoint::parse("blocks.1.hook_resid_post");

Steering added(const at::Tensor& vector) {
  return Steering().add(vector, point, 1, {.scope = {.where = Where::generated}});
}

/// Answers of the model under a steering, each after a prompt of its own.
std::vector<TokenizedText> answers_under(const Model& model, const Steering& steering, std::size_t count,
                                         std::uint64_t seed) {
  Rng rng(seed);
  std::vector<GenerateRequest> requests;
  for (std::size_t i = 0; i < count; ++i) {
    std::vector<std::int64_t> prompt = {1};
    for (int t = 0; t < 4; ++t) prompt.push_back(3 + static_cast<std::int64_t>(rng.below(61)));
    requests.push_back({prompt, steering, derive_seed(seed, "row", i)});
  }
  std::vector<TokenizedText> texts;
  const auto results = generate(model, requests, {.sampling = {.temperature = 1}, .max_tokens = 24});
  for (std::size_t i = 0; i < count; ++i) {
    if (results[i].ids.size() < 4) continue;
    TokenizedText text{.ids = requests[i].ids, .begin = std::ssize(requests[i].ids)};
    text.ids.insert(text.ids.end(), results[i].ids.begin(), results[i].ids.end());
    texts.push_back(text);
  }
  return texts;
}

/// Nats a token under a steering, as the scorer sees it.
double nll(const Model& model, std::span<const TokenizedText> texts, const Steering& steering) {
  std::vector<ScoreRequest> requests;
  for (const auto& text : texts) requests.push_back({text.ids, text.begin, steering});
  double sum = 0, tokens = 0;
  for (const auto& score : score_texts(model, requests)) {
    sum -= score.log_probability;
    tokens += static_cast<double>(score.tokens);
  }
  return sum / tokens;
}

double kl(const Model& model, std::span<const TokenizedText> texts, const Steering& steering) {
  std::vector<ScoreRequest> requests;
  for (const auto& text : texts) requests.push_back({text.ids, text.begin, steering});
  double sum = 0, tokens = 0;
  for (const auto& text : divergence_from_unsteered(model, requests))
    for (double value : text.values) sum += value, ++tokens;
  return sum / tokens;
}

// The answers were drawn under a planted vector, so that vector's own NLL is what can be had on new answers.
TEST(TrainedVector, ComesNearToAPlantedOne) {
  const Model model = test::tiny_model();
  at::manual_seed(31);
  const at::Tensor planted = 1.5 * at::randn({32});
  const auto answers = answers_under(model, added(planted), 40, 1), fresh = answers_under(model, added(planted), 40, 2),
             neutral = answers_under(model, {}, 10, 3);
  Session session(model);
  const auto trained = train_vector(session, point, answers, neutral,
                                    {.max_kl = 50, .steps = 80, .texts_a_step = 3, .learning_rate = 0.06});
  EXPECT_NEAR(trained.nll_after, nll(model, answers, added(trained.vector)), 1e-3);
  EXPECT_NEAR(trained.nll_before, nll(model, answers, {}), 1e-3);
  const double without = nll(model, fresh, {}), with = nll(model, fresh, added(trained.vector)),
               best = nll(model, fresh, added(planted));
  EXPECT_LT(best, without - 0.3) << "the planted vector must matter for this test to say something";
  EXPECT_LT(with, without - 0.85 * (without - best)) << without << " " << with << " " << best;
  const double cosine = (trained.vector.dot(planted) / trained.vector.norm() / planted.norm()).item<double>();
  EXPECT_GT(cosine, 0.8);
}

TEST(TrainedVector, KeepsToItsBound) {
  const Model model = test::tiny_model();
  at::manual_seed(31);
  const at::Tensor planted = 1.5 * at::randn({32});
  const auto answers = answers_under(model, added(planted), 30, 1), neutral = answers_under(model, {}, 10, 3);
  Session session(model);
  double last = 1e9;
  for (double bound : {0.02, 0.2}) {
    const auto trained = train_vector(session, point, answers, neutral,
                                      {.max_kl = bound, .steps = 60, .texts_a_step = 3, .learning_rate = 0.04});
    EXPECT_LE(kl(model, neutral, added(trained.vector)), bound * 1.01);
    EXPECT_GT(trained.kl, 0.3 * bound) << "the bound is used";
    EXPECT_LT(trained.nll_after, trained.nll_before);
    EXPECT_LT(trained.nll_after, last) << "a looser bound gains more";
    last = trained.nll_after;
    // Better than the planted direction itself, shortened to the same KL.
    double low = 0, high = 1;
    for (int i = 0; i < 20; ++i) {
      const double middle = (low + high) / 2;
      (kl(model, neutral, added(middle * planted)) <= trained.kl ? low : high) = middle;
    }
    EXPECT_LT(trained.nll_after, nll(model, answers, added(low * planted)) + 0.05) << bound;
  }
}

// Trained as if there were no bound, from a start that breaks it: what comes back keeps to it all the same.
TEST(TrainedVector, IsShortenedUntilTheBoundHolds) {
  const Model model = test::tiny_model();
  at::manual_seed(31);
  const at::Tensor start = 3 * at::randn({32});
  const auto neutral = answers_under(model, {}, 6, 3), answers = answers_under(model, added(start), 6, 5);
  Session session(model);
  const auto trained =
      train_vector(session, point, answers, neutral,
                   {.max_kl = 0.05, .steps = 3, .texts_a_step = 1, .multiplier_rate = 1e-9, .start = start});
  const double found = kl(model, neutral, added(trained.vector));
  EXPECT_GT(kl(model, neutral, added(start)), 0.5);
  EXPECT_LE(found, 0.05 * 1.01);
  EXPECT_GT(found, 0.05 * 0.9) << "no shorter than need be";
}

TEST(TrainedVector, TheSameSeedTrainsTheSame) {
  const Model model = test::tiny_model();
  const auto neutral = answers_under(model, {}, 6, 3), answers = answers_under(model, {}, 6, 5);
  Session session(model);
  const VectorTraining options{.steps = 5};
  EXPECT_TRUE(at::equal(train_vector(session, point, answers, neutral, options).vector,
                        train_vector(session, point, answers, neutral, options).vector));
}

TEST(TrainedVector, BadInputIsNamed) {
  const Model model = test::tiny_model();
  Session session(model);
  const std::vector<TokenizedText> fine = {{{1, 2, 3, 4}, 1}}, whole = {{{1, 2, 3}}};
  EXPECT_STEER_ERROR(train_vector(session, point, {}, fine), ErrorCode::argument, "answers but got none");
  EXPECT_STEER_ERROR(train_vector(session, point, fine, whole), ErrorCode::argument, "text 0 of the neutral texts");
  EXPECT_STEER_ERROR(train_vector(session, point, fine, fine, {.max_kl = 0}), ErrorCode::argument, "above 0");
  EXPECT_STEER_ERROR(train_vector(session, point, fine, fine, {.start = at::zeros({3})}), ErrorCode::shape, "[32]");
}

}  // namespace
}  // namespace steer
