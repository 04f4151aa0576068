#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <steer/generate/generate.hpp>

#include <gtest/gtest.h>

#include <numeric>

#include <steer/core/random.hpp>

#include "generate/misplaced.hpp"
#include "support.hpp"
#include "tiny_model.hpp"

namespace steer {
namespace {

std::vector<std::int64_t> random_prompt(Rng& rng, std::size_t length) {
  std::vector<std::int64_t> ids{1};
  while (ids.size() < length) ids.push_back(3 + static_cast<std::int64_t>(rng.below(60)));
  return ids;
}

Steering some_steering(double strength, std::int64_t layer, Where where = Where::generated) {
  at::manual_seed(11 + static_cast<std::uint64_t>(layer));
  Steering steering;
  steering.add(at::randn({32}), HookPoint{Site::resid_post, layer}, strength,
               {.scope = {.where = where, .count = where == Where::onset ? 3 : 0}});
  return steering;
}

/// The slow, obviously right version: the whole text again for every token, one row, no cache.
std::vector<std::int64_t> greedy_by_forward(const Model& model, std::vector<std::int64_t> ids, std::int64_t tokens) {
  Session session(model);
  std::vector<std::int64_t> generated;
  for (std::int64_t t = 0; t < tokens; ++t) {
    const auto next = session.forward(ids)[-1].argmax().item<std::int64_t>();
    if (next == 2) break;
    generated.push_back(next);
    ids.push_back(next);
  }
  return generated;
}

TEST(Generate, GreedyEqualsRepeatedForwardPasses) {
  const Model model = test::tiny_model();
  Rng rng(1);
  std::vector<GenerateRequest> requests;
  for (std::size_t length : {1, 5, 17, 40}) requests.push_back({random_prompt(rng, length)});
  const auto results = generate(model, requests, {.max_tokens = 12});
  for (std::size_t r = 0; r < requests.size(); ++r)
    EXPECT_EQ(results[r].ids, greedy_by_forward(model, requests[r].ids, 12)) << r;
}

// Rows with shared prefixes, own steerings and own seeds, in batches of several sizes: always what the row gives alone.
TEST(Invariance, AGeneratedRowDoesNotDependOnItsBatchMates) {
  const Model model = test::tiny_model();
  Rng rng(2);
  const auto prefix = random_prompt(rng, 30);
  std::vector<GenerateRequest> requests;
  for (int r = 0; r < 14; ++r) {
    GenerateRequest request{.ids = prefix, .steering = {}, .seed = 100 + static_cast<std::uint64_t>(r)};
    for (std::size_t extra = 0; extra < rng.below(12); ++extra)
      request.ids.push_back(3 + static_cast<std::int64_t>(rng.below(60)));
    if (r % 3 == 1) request.steering = some_steering(2.0, r % 2);
    if (r % 3 == 2) request.steering = some_steering(1.0, 1, r % 2 ? Where::all : Where::onset);
    if (r == 5) request.ids = requests[0].ids;
    requests.push_back(request);
  }
  const GenerateOptions options{.sampling = {.temperature = 0.9, .top_p = 0.95}, .max_tokens = 10};
  std::vector<GenerateResult> alone;
  for (const auto& request : requests) alone.push_back(generate(model, {&request, 1}, options).front());
  for (std::int64_t batch : {1, 3, 8, 64}) {
    GenerateOptions batched = options;
    batched.batch = batch;
    const auto together = generate(model, requests, batched);
    for (std::size_t r = 0; r < requests.size(); ++r) {
      EXPECT_EQ(together[r].ids, alone[r].ids) << "row " << r << " in batches of " << batch;
      EXPECT_EQ(together[r].log_probabilities, alone[r].log_probabilities) << "row " << r << " in batches of " << batch;
      EXPECT_EQ(together[r].audit.edited(), alone[r].audit.edited()) << "row " << r << " in batches of " << batch;
    }
  }
}

TEST(Generate, SeedsDecideAndRowsDiffer) {
  const Model model = test::tiny_model();
  const std::vector<GenerateRequest> requests(3, GenerateRequest{{1, 4, 5}, {}, {}});
  const GenerateOptions options{.sampling = {.temperature = 1.5}, .max_tokens = 20, .seed = 9};
  const auto first = generate(model, requests, options), again = generate(model, requests, options);
  for (int r = 0; r < 3; ++r) EXPECT_EQ(first[r].ids, again[r].ids);
  EXPECT_NE(first[0].ids, first[1].ids);
}

TEST(Generate, SteeringReachesEveryGeneratedTokenAndIsCounted) {
  const Model model = test::tiny_model();
  const GenerateRequest request{{1, 7, 8, 9}, some_steering(0.5, 1), {}};
  const auto result = generate(model, {&request, 1}, {.max_tokens = 9, .stop_ids = {}}).front();
  // The last token drawn is never fed back, so one less than was generated passes the hook.
  const auto fed = static_cast<std::int64_t>(result.ids.size()) - (result.finish == FinishReason::length ? 1 : 0);
  EXPECT_EQ(result.audit.edited(), fed);
  const GenerateRequest zero{request.ids, some_steering(0.0, 1), {}};
  EXPECT_EQ(generate(model, {&zero, 1}, {.max_tokens = 9}).front().ids,
            generate(model, std::vector<GenerateRequest>{{request.ids}}, {.max_tokens = 9}).front().ids);
}

TEST(Generate, RequireFiredRefusesSilentSteering) {
  const Model model = test::tiny_model();
  Steering beyond = some_steering(1.0, 1);
  Steering span;
  span.add(at::ones({32}), "blocks.1.hook_resid_post", 1, {.scope = {.where = Where::span, .begin = 100, .end = 110}});
  const GenerateRequest request{{1, 7, 8, 9}, span, {}};
  EXPECT_STEER_ERROR(generate(model, {&request, 1}, {.max_tokens = 3, .require_fired = true}), ErrorCode::config,
                     "generate");
}

TEST(Generate, FinishReasons) {
  const Model model = test::tiny_model();
  const GenerateRequest request{{1, 7, 8, 9}};
  const auto full = generate(model, {&request, 1}, {.max_tokens = 8}).front();
  ASSERT_EQ(full.finish, FinishReason::length);
  ASSERT_EQ(full.ids.size(), 8u);
  // Stop at the first occurrence of some token it is known to generate.
  const auto stop = full.ids[4];
  const auto expected = std::vector<std::int64_t>(full.ids.begin(), std::find(full.ids.begin(), full.ids.end(), stop));
  const auto stopped = generate(model, {&request, 1}, {.max_tokens = 8, .stop_ids = {stop}}).front();
  EXPECT_EQ(stopped.finish, FinishReason::stop_token);
  EXPECT_EQ(stopped.ids, expected);
  int events = 0;
  const auto ended = generate(model, {&request, 1},
                              {.max_tokens = 8,
                               .on_token =
                                   [&](const TokenEvent& event) {
                                     EXPECT_EQ(event.id, full.ids[events]);
                                     EXPECT_NEAR(event.log_probability, full.log_probabilities[events], 1e-6);
                                     return ++events < 3;
                                   }})
                         .front();
  EXPECT_EQ(ended.finish, FinishReason::aborted);
  EXPECT_EQ(ended.ids.size(), 3u);
  std::vector<std::int64_t> long_prompt(120, 5);
  long_prompt[0] = 1;
  const GenerateRequest near_end{long_prompt};
  const auto cut = generate(model, {&near_end, 1}, {.max_tokens = 50}).front();
  if (cut.finish != FinishReason::stop_token) {
    EXPECT_EQ(cut.finish, FinishReason::context);
    EXPECT_EQ(cut.ids.size(), 8u);
  }
}

TEST(Generate, AbortWhenEndsTheRowWithItsReason) {
  const Model model = test::tiny_model();
  Steering steering;
  steering.abort_when(Condition::probe_above(at::zeros({32}), 1.0, {.point = HookPoint{Site::resid_post, 1}}),
                      "always");
  const GenerateRequest request{{1, 7, 8, 9}, steering, {}};
  const auto result = generate(model, {&request, 1}, {.max_tokens = 5}).front();
  EXPECT_EQ(result.finish, FinishReason::aborted);
  EXPECT_EQ(result.abort_reason, "always");
}

TEST(Generate, EndsMayBeIgnoredOrPutOff) {
  const Model model = test::tiny_model();
  const GenerateRequest request{{1, 7, 8, 9}};
  const auto full = generate(model, {&request, 1}, {.max_tokens = 8}).front();
  const auto stop = full.ids[2];
  const auto late = generate(model, {&request, 1}, {.max_tokens = 8, .min_tokens = 5, .stop_ids = {stop}}).front();
  ASSERT_GE(late.ids.size(), 5u);
  EXPECT_EQ(std::count(late.ids.begin(), late.ids.begin() + 5, stop), 0);
  EXPECT_EQ(std::vector(late.ids.begin(), late.ids.begin() + 2), std::vector(full.ids.begin(), full.ids.begin() + 2));
  // A row pushed onto the end of sequence (2) at every token.
  Steering ending;
  ending.add(model.unembedding()[2] * 50, "blocks.1.hook_resid_post", 1, {.scope = {.where = Where::from_last}});
  const GenerateRequest ends{{1, 7, 8, 9}, ending, {}};
  EXPECT_TRUE(generate(model, {&ends, 1}, {.max_tokens = 6}).front().ids.empty());
  EXPECT_EQ(generate(model, {&ends, 1}, {.max_tokens = 6, .ignore_eos = true}).front().ids,
            std::vector<std::int64_t>(6, 2));
  EXPECT_STEER_ERROR(generate(model, {&request, 1}, {.max_tokens = 3, .min_tokens = 4}), ErrorCode::argument,
                     "min_tokens");
}

TEST(Generate, GivesTheLikeliestAlternativesOfEachToken) {
  const Model model = test::tiny_model();
  const GenerateRequest request{{1, 7, 8, 9}};
  const auto result = generate(model, {&request, 1}, {.max_tokens = 5, .top = 4}).front();
  ASSERT_EQ(result.top.size(), result.ids.size());
  auto ids = request.ids;
  Session session(model);
  for (std::size_t t = 0; t < result.ids.size(); ++t) {
    const auto [values, order] = at::log_softmax(session.forward(ids)[-1].to(at::kDouble), 0).topk(4);
    for (std::int64_t i = 0; i < 4; ++i) {
      EXPECT_EQ(result.top[t][static_cast<std::size_t>(i)].first, order[i].item<std::int64_t>());
      EXPECT_NEAR(result.top[t][static_cast<std::size_t>(i)].second, values[i].item<double>(), 1e-4);
    }
    EXPECT_EQ(result.top[t][0].first, result.ids[t]);
    ids.push_back(result.ids[t]);
  }
}

TEST(Generate, RunsOnASessionWithItsHooksAndKeepsSequencesForTheNextTurn) {
  const Model model = test::tiny_model();
  Session session(model, {.batch_invariant = true});
  std::int64_t seen = 0;
  const auto hook =
      session.hook("blocks.1.hook_resid_post", [&](HookContext& at) { seen += at.value.size(0); }, {.read_only = true});
  const GenerateRequest first{{1, 7, 8, 9}, some_steering(0.5, 1), {}};
  const auto turn = generate(session, {&first, 1}, {.max_tokens = 6, .keep_sequences = true}).front();
  ASSERT_GE(turn.sequence, 0);
  EXPECT_EQ(session.length(turn.sequence), 4 + std::ssize(turn.ids));
  EXPECT_EQ(seen, 4 + std::ssize(turn.ids));
  // The next turn computes what is new and nothing else, and gives what the whole text gives.
  seen = 0;
  const GenerateRequest next{.ids = {11, 12}, .steering = {}, .seed = {}, .after = turn.sequence};
  const auto answer = generate(session, {&next, 1}, {.max_tokens = 5}).front();
  EXPECT_LE(seen, 2 + std::ssize(answer.ids));
  // The first turn's tokens were computed under its steering: so they are here.
  const SequenceId whole = session.open({.steering = some_steering(0.5, 1)});
  session.step({{whole, first.ids, Phase::prompt}});
  session.step({{whole, turn.ids, Phase::generated}});
  const SequenceId on = session.fork(whole, {.next_turn = true, .steering = InterventionPtr()});
  std::vector<std::int64_t> wanted;
  at::Tensor logits = session.step({{on, next.ids, Phase::prompt}});
  for (std::size_t t = 0; t < answer.ids.size(); ++t) {
    wanted.push_back(logits[0].argmax().item<std::int64_t>());
    logits = session.step({{on, std::span(wanted).last(1), Phase::generated}});
  }
  EXPECT_EQ(answer.ids, wanted);
  EXPECT_STEER_ERROR(generate(model, {&next, 1}), ErrorCode::argument, "Session");
}

TEST(Generate, WarningsAreInTheResult) {
  const Model model = test::tiny_model();
  const GenerateRequest request{{1, 7, 8}, test::misplaced_nudge(), {}};
  EXPECT_EQ(generate(model, {&request, 1}, {.max_tokens = 2}).front().warnings.size(), 1u);
  EXPECT_STEER_ERROR(generate(model, {&request, 1}, {.max_tokens = 2, .on_warning = OnWarning::error}),
                     ErrorCode::config, "trained at");
}

TEST(Generate, BadInputIsNamed) {
  const Model model = test::tiny_model();
  const auto run = [&](std::vector<std::int64_t> ids, GenerateOptions options = {}) {
    const GenerateRequest request{std::move(ids)};
    return generate(model, {&request, 1}, options);
  };
  EXPECT_STEER_ERROR(run({}), ErrorCode::argument, "row 0 is empty");
  EXPECT_STEER_ERROR(run({1, 64}), ErrorCode::argument, "holds 64");
  EXPECT_STEER_ERROR(run({1, -1}), ErrorCode::argument, "holds -1");
  EXPECT_STEER_ERROR(run(std::vector<std::int64_t>(128, 5)), ErrorCode::shape, "row 0 has 128");
  EXPECT_STEER_ERROR(run({1}, {.max_tokens = 0}), ErrorCode::argument, "max_tokens");
  EXPECT_STEER_ERROR(run({1}, {.batch = 0}), ErrorCode::argument, "batch");
  EXPECT_STEER_ERROR(run({1}, {.stop = {"x"}}), ErrorCode::config, "tokenizer");
  EXPECT_STEER_ERROR(generate(model, "hello"), ErrorCode::config, "tokenizer");
}

}  // namespace
}  // namespace steer
