// Steps that a card does again from a recording: bits, audits and conditions as without. On the card that
// STEER_TEST_DEVICE names where the build has its kernels, else emulated, where what was recorded is counted too.
#include <ATen/ops/equal.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <steer/model/session.hpp>

#include "model/tiny_models.hpp"
#include "steering/on_card.hpp"
#include "steering/reference.hpp"
#include "support.hpp"

#ifndef STEER_CUDA
#include "model/cuda/backend_cuda.hpp"
#include "model/emulated_card.hpp"
#endif

namespace steer {
namespace {

#ifdef STEER_CUDA
struct OnACard {
  static std::int64_t& recordings() { return nothing; }
  static std::int64_t& replays() { return nothing; }
  inline static std::int64_t nothing = 0;
};
#else
/// While it lives, sessions compute and steer by the card's kernels.
class OnACard : test::OnEmulatedCard {
 public:
  OnACard() {
    model::detail::kernel_backend_for_testing = [](const auto& model, auto& cache, bool invariant) {
      return std::unique_ptr<model::detail::Backend>(new model::detail::CudaBackend(model, cache, invariant));
    };
    steering::detail::pass_edits_for_testing = steering::detail::card_pass_edits;
  }
  ~OnACard() {
    model::detail::kernel_backend_for_testing = nullptr;
    steering::detail::pass_edits_for_testing = nullptr;
  }
  static std::int64_t& recordings() { return model::detail::cuda::recordings; }
  static std::int64_t& replays() { return model::detail::cuda::replays; }
};
#endif

const HookPoint kPoint{Site::resid_post, 1};

/// Sequences with steerings of their own that come and go, some of which change with the position.
class Steps {
 public:
  Steps(const Model& model, bool graphs) : session_(model, {.batch_invariant = true, .graphs = graphs}) {
    Rng rng(11);
    const std::int64_t d = model.config().d_model;
    const Sae sae = test::random_sae(rng, d, 24, SaeActivation::relu, SaeNormalization::layer_norm);
    const at::Tensor v = test::random_tensor(rng, {d}), w = test::random_tensor(rng, {d});
    const HookPoint first{Site::resid_post, 0}, normed{Site::ln2, 1};
    steerings_ = {
        Steering().nudge(sae, 3, 2).pin(sae, 7, 1).add(v, normed, 2),
        Steering().project_out(v, first).keep_norm(first).cap(sae, 5, 0.1),
        Steering()
            .add(w, first, 3, {.scope = {.where = Where::onset, .count = 4}})
            .rotate(v, w, HookPoint{Site::attn_out, 0}, 0.4),
        Steering().pin(sae, 2, 3).add(w, first, 1),
        Steering(),
        Steering().custom([](const CustomContext& at) { return at.h * 2; }, first),  // called in the pass
    };
  }

  void open(std::size_t steering) {
    rows_.push_back({session_.open({.steering = steerings_[steering]}), 3});
    const auto ids = test::some_ids(3, static_cast<std::int64_t>(steering));
    logits.push_back(session_.step({{rows_.back().first, ids}}));
  }
  void close(std::size_t row) {
    audits.push_back(session_.audit(rows_[row].first));
    session_.close(rows_[row].first);
    rows_.erase(rows_.begin() + static_cast<std::ptrdiff_t>(row));
  }
  void step(int count) {
    for (int i = 0; i < count; ++i) {
      std::vector<std::vector<std::int64_t>> ids;
      for (auto& [sequence, length] : rows_) ids.push_back({(length++ * 5 + sequence) % 60});
      std::vector<StepInput> inputs;
      for (std::size_t r = 0; r < rows_.size(); ++r) inputs.push_back({rows_[r].first, ids[r], Phase::generated});
      logits.push_back(session_.step(inputs));
    }
  }
  Session& session() { return session_; }

  std::vector<at::Tensor> logits;
  std::vector<SteeringAudit> audits;

 private:
  Session session_;
  std::vector<Steering> steerings_;
  std::vector<std::pair<SequenceId, std::int64_t>> rows_;
};

TEST(RecordedSteps, SteerAsOthersDo) {
  [[maybe_unused]] const OnACard card;
  const Model model = test::tiny_model("llama", 2).load({.device = test::card_device()});
  std::vector<std::int64_t> replays, recordings;
  std::vector<std::string> warnings;
  const auto run = [&](bool graphs) {
    Steps all(model, graphs);
    const auto note = [&] {
      replays.push_back(std::exchange(OnACard::replays(), 0));
      recordings.push_back(std::exchange(OnACard::recordings(), 0));
    };
    note();
    for (const std::size_t s : {0, 1, 4}) all.open(s);
    all.step(4);  // met, recorded, twice done again
    note();
    all.close(1);
    all.open(3);  // at points that the one before had
    all.step(3);
    note();
    all.close(2);
    all.open(2);  // at another point too; and the scope of its first edit ends in the middle
    all.step(6);
    note();
    all.open(5);
    all.step(2);
    note();
    all.close(3);
    {
      const auto hook = all.session().hook(kPoint, [](HookContext&) {});
      all.step(1);
    }
    all.step(1);
    note();
    for (int i = 0; i < 3; ++i) all.close(0);
    warnings = all.session().warnings();
    return std::pair(all.logits, all.audits);
  };
  const auto [wanted, wanted_audits] = run(false);
  EXPECT_THAT(replays, testing::Each(0));
  EXPECT_THAT(warnings, testing::IsEmpty());
  replays.clear(), recordings.clear();
  const auto [got, audits] = run(true);
  // Another steering at the same points needs no recording of its own; one at others does; what calls a function or is
  // hooked has none, and once that is gone there is one again.
  if (test::kEmulatesCard) {
    EXPECT_THAT(recordings, testing::ElementsAre(0, 1, 0, 1, 0, 0));
    EXPECT_THAT(replays, testing::ElementsAre(0, 2, 3, 4, 0, 1));
    EXPECT_THAT(warnings, testing::ElementsAre(testing::HasSubstr("calls a function"),
                                               testing::HasSubstr("hooks of your own")));  // once each
  }
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_TRUE(at::equal(got[i], wanted[i])) << "step " << i;
  ASSERT_EQ(audits.size(), wanted_audits.size());
  for (std::size_t i = 0; i < audits.size(); ++i)
    for (std::size_t e = 0; e < audits[i].edits.size(); ++e) {
      const EditAudit &a = audits[i].edits[e], &b = wanted_audits[i].edits[e];
      EXPECT_EQ(std::tuple(a.seen, a.in_scope, a.edited), std::tuple(b.seen, b.in_scope, b.edited)) << i << " " << e;
      EXPECT_EQ(std::pair(a.mean_change, a.max_change), std::pair(b.mean_change, b.max_change)) << i << " " << e;
    }
}

/// Conditions that depend on others, on the entropy, and on what they were before.
TEST(RecordedSteps, DecideConditionsOnTheCard) {
  [[maybe_unused]] const OnACard card;
  const Model model = test::tiny_model("llama", 2).load({.device = test::card_device()});
  const std::int64_t d = model.config().d_model;
  Rng rng(12);
  const Sae sae = test::random_sae(rng, d, 24, SaeActivation::jumprelu, SaeNormalization::layer_norm);
  const at::Tensor v = test::random_tensor(rng, {d}), w = test::random_tensor(rng, {d}),
                   u = test::random_tensor(rng, {d});
  const HookPoint first{Site::resid_post, 0}, normed{Site::ln2, 1};
  const auto probe = [&](const at::Tensor& x, double b, double release = 0, bool sticky = false) {
    return Condition::probe_above(x, b, {.point = first, .release = release, .sticky = sticky});
  };
  const auto feature = [&](std::int64_t i, double above) {
    return Condition::feature_above(sae, i, above, {.point = first});
  };
  const Steering steerings[] = {
      Steering().add(w, kPoint, 2, {.when = probe(v, -1, 2)}).add(u, kPoint, 1, {.when = probe(w, -2, 0, true)}),
      Steering().add(u, first, 3, {.when = feature(3, 0.1)}).project_out(v, normed, {.when = feature(9, 0.2)}),
      Steering()
          .add(v, kPoint, 2, {.when = Condition::all_of({probe(u, 0), Condition::entropy_between(0, 3.9)})})
          .cap_norm(normed, 0.5, {.when = Condition::any_of({feature(5, 0.3), probe(v, -2)})}),
      Steering().add(v, first, 2, {.scope = {.where = Where::onset, .count = 6}, .when = probe(w, 0)}),
  };
  const auto run = [&](bool graphs) {
    Session session(model, {.batch_invariant = true, .graphs = graphs});
    std::vector<SequenceId> rows;
    std::vector<at::Tensor> logits;
    for (const Steering& s : steerings) {
      rows.push_back(session.open({.steering = s}));
      logits.push_back(session.step({{rows.back(), test::some_ids(4, std::ssize(rows))}}));
    }
    const auto step = [&](std::int64_t i) {
      std::vector<std::vector<std::int64_t>> ids;
      for (const SequenceId row : rows) ids.push_back({(11 * i + 7 * row) % 60});
      std::vector<StepInput> inputs;
      for (std::size_t r = 0; r < rows.size(); ++r) inputs.push_back({rows[r], ids[r], Phase::generated});
      logits.push_back(session.step(inputs));
    };
    for (std::int64_t i = 0; i < 8; ++i) step(i);
    for (SequenceId& row : rows) {  // back to what was decided three tokens ago
      const SequenceId fork = session.fork(row, {.length = 9});
      session.close(std::exchange(row, fork));
    }
    for (std::int64_t i = 8; i < 12; ++i) step(i);
    std::vector<SteeringAudit> audits;
    for (const SequenceId row : rows) audits.push_back(session.audit(row));
    return std::pair(logits, audits);
  };
  const auto [wanted, wanted_audits] = run(false);
  OnACard::replays() = 0;
  const auto [got, audits] = run(true);
  if (test::kEmulatesCard) {
    EXPECT_EQ(OnACard::replays(), 6 + 4);
  }
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_TRUE(at::equal(got[i], wanted[i])) << "step " << i;
  for (std::size_t i = 0; i < audits.size(); ++i)
    for (std::size_t e = 0; e < audits[i].edits.size(); ++e) {
      const EditAudit &a = audits[i].edits[e], &b = wanted_audits[i].edits[e];
      EXPECT_EQ(std::tuple(a.seen, a.in_scope, a.edited), std::tuple(b.seen, b.in_scope, b.edited)) << i << " " << e;
      EXPECT_GT(a.in_scope, 0) << i << " " << e;
      EXPECT_LT(a.in_scope, a.seen) << i << " " << e;
    }
}

}  // namespace
}  // namespace steer
