// Steering by a card's kernel on the CPU, thread by thread: that a step's rows are one launch, and that a row's bits do
// not depend on the others. What it computes plan_property_test.cpp tells, of recorded steps recorded_test.cpp.
#include <ATen/ops/equal.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <steer/model/session.hpp>

#include "steering/on_card.hpp"
#include "steering/reference.hpp"
#include "support.hpp"

namespace steer {
namespace {

const HookPoint kPoint{Site::resid_post, 1};
const std::vector<std::int64_t> kPrompt{1, 5, 9, 30, 7, 22, 40};

Model demo() { return Model::load(std::filesystem::path(STEER_SOURCE_DIR) / "examples/data/demo"); }

at::Tensor vector(const Model& model, std::uint64_t seed) {
  Rng rng(seed);
  return test::random_tensor(rng, {model.config().d_model});
}

/// What run_card was called with.
std::vector<std::size_t>& jobs_run() {
  static std::vector<std::size_t> counts;
  return counts;
}

TEST(SteeringOnACard, RowsWithSteeringsOfTheirOwnAreOneLaunchOnACard) {
  const Model model = demo();
  std::vector<Steering> steerings;
  for (int r = 0; r < 5; ++r)
    steerings.push_back(Steering().add(vector(model, 20 + static_cast<std::uint64_t>(r)), kPoint, 1 + r % 3));
  steerings.push_back(
      Steering().custom([](const CustomContext& at) { return at.h * 2; }, kPoint));  // not by the kernel
  steerings.push_back(Steering());
  const auto run = [&] {
    Session session(model, {.batch_invariant = true});
    std::vector<StepInput> inputs;
    for (const Steering& s : steerings) inputs.push_back({session.open({.steering = s}), kPrompt, Phase::prompt});
    at::Tensor logits = session.step(inputs);
    for (std::size_t r = 0; r < 6; ++r) EXPECT_EQ(session.audit(inputs[r].sequence).edits[0].edited, 6) << r;
    return logits;
  };
  const at::Tensor wanted = run();
  jobs_run().clear();
  steering::detail::card_runner_for_testing = [](HookContext& at, std::span<const steering::detail::CardJob> jobs) {
    jobs_run().push_back(jobs.size());
    steering::detail::run_card(at, jobs);
  };
  const at::Tensor got = run();
  steering::detail::card_runner_for_testing = nullptr;
  EXPECT_THAT(jobs_run(), testing::ElementsAre(5));
  EXPECT_LT((got - wanted).abs().max().item<double>(), 1e-4);
}

TEST(SteeringOnACard, ARowsBitsOnACardDoNotDependOnItsBatchMates) {
  const test::OnEmulatedCard card;
  const Model model = demo();
  const auto steering = [&](int r) {
    return Steering().add(vector(model, 30 + static_cast<std::uint64_t>(r)), kPoint, 1 + r % 3).keep_norm(kPoint);
  };
  const auto run = [&](std::vector<int> rows) {
    Session session(model, {.batch_invariant = true});
    std::vector<StepInput> inputs;
    for (const int r : rows) inputs.push_back({session.open({.steering = steering(r)}), kPrompt, Phase::prompt});
    return session.step(inputs);
  };
  const at::Tensor together = run({0, 1, 2});
  for (const int r : {0, 1, 2}) EXPECT_TRUE(at::equal(together[r], run({r})[0])) << r;
}

}  // namespace
}  // namespace steer
