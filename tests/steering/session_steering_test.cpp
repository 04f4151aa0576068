// Steering as sessions own it: opened, forked, forgotten, seen through every way to run tokens.
#include <ATen/ops/equal.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <steer/model/session.hpp>

#include "steering/reference.hpp"
#include "support.hpp"

namespace steer {
namespace {

using Ids = std::vector<std::int64_t>;
const HookPoint kPoint{Site::resid_post, 1};

class SessionSteering : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    model_ = std::make_unique<Model>(Model::load(std::filesystem::path(STEER_SOURCE_DIR) / "examples/data/demo"));
  }
  static void TearDownTestSuite() { model_.reset(); }
  static std::int64_t width() { return model_->config().d_model; }
  static at::Tensor vector(std::uint64_t seed) {
    Rng rng(seed);
    return test::random_tensor(rng, {width()});
  }
  static const Ids& prompt() {
    static const Ids ids{1, 5, 9, 30, 7, 22, 40};
    return ids;
  }
  static std::unique_ptr<Model> model_;
};
std::unique_ptr<Model> SessionSteering::model_;

double far(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

TEST_F(SessionSteering, EqualsAHookThatDoesTheSame) {
  const at::Tensor v = vector(1);
  Session hooked(*model_);
  const auto hook = hooked.hook(kPoint, [&](HookContext& at) {
    for (const TokenRun& run : at.batch.runs) at.value.slice(0, run.begin + (run.position == 0), run.end).add_(v, 2);
  });
  const at::Tensor wanted = hooked.forward(prompt());
  Session session(*model_);
  const Steering add = Steering().add(v, kPoint, 2);
  EXPECT_LT(far(session.forward(prompt(), {.steering = add}), wanted), 1e-4);
  EXPECT_GT(far(session.forward(prompt()), wanted), 1e-2);
  const SequenceId s = session.open({.steering = add});
  EXPECT_LT(far(session.step({{s, prompt(), Phase::prompt}})[0], wanted[-1]), 1e-4);
  EXPECT_EQ(session.audit(s).edits[0].edited, std::ssize(prompt()) - 1);
  // What a cache records is what the steering leaves.
  const auto cache = session.run_with_cache(prompt(), {"blocks.1.hook_resid_post"}, {.steering = add});
  const auto plain = session.run_with_cache(prompt(), {"model.layers.1"});
  EXPECT_LT(far(cache["model.layers.1"][-1], plain[kPoint][-1] + 2 * v), 1e-4);
}

TEST_F(SessionSteering, ForksInheritAndMayChangeIt) {
  Session session(*model_);
  const Steering add = Steering().add(vector(1), kPoint, 2), other = Steering().add(vector(2), kPoint, 3);
  const SequenceId a = session.open({.steering = add});
  session.step({{a, prompt(), Phase::prompt}});
  const SequenceId b = session.fork(a), c = session.fork(a, {.steering = other}),
                   d = session.fork(a, {.steering = InterventionPtr()});
  const Ids next{8};
  const at::Tensor logits = session.step({{a, next, Phase::generated},
                                          {b, next, Phase::generated},
                                          {c, next, Phase::generated},
                                          {d, next, Phase::generated}});
  EXPECT_LT(far(logits[0], logits[1]), 1e-5);
  EXPECT_GT(far(logits[0], logits[2]), 1e-2);
  EXPECT_GT(far(logits[0], logits[3]), 1e-2);
  EXPECT_EQ(session.audit(b).edits[0].edited, 7);  // six of the prompt, and its own
  EXPECT_EQ(session.audit(c).edits[0].edited, 1);
  EXPECT_TRUE(session.audit(d).edits.empty());
  session.close(a);
  EXPECT_STEER_ERROR(session.audit(a), ErrorCode::argument, "closed");
  EXPECT_EQ(session.audit(b).edits[0].edited, 7);
}

TEST_F(SessionSteering, RowsJoinAndLeaveAtAnyStep) {
  // Arrivals and departures of rows with steerings of their own: each has the bits it has alone.
  const SessionOptions options{.batch_invariant = true};
  const auto steering = [](int r) {
    return Steering().add(vector(10 + static_cast<std::uint64_t>(r)), kPoint, 1 + r % 3);
  };
  const auto alone = [&](int r) {
    Session session(*model_, options);
    const SequenceId s = session.open({.steering = steering(r)});
    std::vector<at::Tensor> logits{session.step({{s, prompt(), Phase::prompt}})[0]};
    for (std::int64_t t = 0; t < 3; ++t) logits.push_back(session.step({{s, Ids{8 + t}, Phase::generated}})[0]);
    return at::stack(logits);
  };
  Session session(*model_, options);
  struct Row {
    int number;
    SequenceId sequence;
    std::vector<at::Tensor> logits;
  };
  std::vector<Row> live;
  int finished = 0;
  for (int round = 0; round < 12 || !live.empty(); ++round) {
    if (round < 8) live.push_back({round, session.open({.steering = steering(round)}), {}});
    std::vector<Ids> ids;
    for (const Row& row : live) ids.push_back(row.logits.empty() ? prompt() : Ids{8 + std::ssize(row.logits) - 1});
    std::vector<StepInput> inputs;
    for (std::size_t i = 0; i < live.size(); ++i)
      inputs.push_back({live[i].sequence, ids[i], live[i].logits.empty() ? Phase::prompt : Phase::generated});
    if (inputs.empty()) break;
    const at::Tensor logits = session.step(inputs);
    for (std::size_t i = 0; i < live.size(); ++i) live[i].logits.push_back(logits[static_cast<std::int64_t>(i)]);
    std::erase_if(live, [&](const Row& row) {
      if (row.logits.size() < 4) return false;
      EXPECT_TRUE(at::equal(at::stack(row.logits), alone(row.number))) << "row " << row.number;
      EXPECT_EQ(session.audit(row.sequence).edits[0].edited, 9);
      session.close(row.sequence);
      ++finished;
      return true;
    });
  }
  EXPECT_EQ(finished, 8);
}

TEST_F(SessionSteering, ConditionsAndScopesFollowTheSequence) {
  Session session(*model_);
  const Steering s = Steering().add(vector(1), kPoint, 2, {.scope = {.where = Where::from_last}});
  const SequenceId whole = session.open({.steering = s}), chunks = session.open({.steering = s});
  const at::Tensor once = session.step({{whole, prompt(), Phase::prompt}});
  // The end of a prompt that comes in pieces is where its last token is, not where a piece ends.
  session.step({{chunks, std::span(prompt()).first(4), Phase::prompt, 3}}, Logits::none);
  const at::Tensor pieces = session.step({{chunks, std::span(prompt()).subspan(4), Phase::prompt}});
  EXPECT_LT(far(once, pieces), 1e-4);
  EXPECT_EQ(session.audit(whole).edits[0].edited, 1);
  EXPECT_EQ(session.audit(chunks).edits[0].edited, 1);
  // A step that fails is taken back, what conditions remember included.
  const Steering sticky =
      Steering().add(vector(1), kPoint, 2,
                     {.scope = {.include_bos = true},
                      .when = Condition::probe_above(at::zeros({width()}), 1, {.point = kPoint, .sticky = true})});
  const SequenceId c = session.open({.steering = sticky});
  {
    const auto broken = session.hook("ln_final.hook_normalized", [](HookContext&) { throw std::runtime_error("no"); });
    EXPECT_THROW(session.step({{c, prompt(), Phase::prompt}}), std::runtime_error);
  }
  EXPECT_EQ(session.length(c), 0);
  EXPECT_LT(far(session.step({{c, prompt(), Phase::prompt}}),
                session.forward(prompt(), {.steering = sticky, .logits = Logits::last})),
            1e-4);
}

TEST_F(SessionSteering, EntropyIsObservedWhateverLogitsAreAskedFor) {
  for (const Logits logits : {Logits::last, Logits::none, Logits::all}) {
    Session session(*model_);
    const SequenceId s =
        session.open({.steering = Steering().abort_when(Condition::entropy_between(0, 100), "always")});
    EXPECT_TRUE(session.needs_logits(s));
    Steering blind;
    blind.add(at::ones({session.model().config().d_model}), "blocks.1.hook_resid_post", 1);
    EXPECT_FALSE(session.needs_logits(session.open())) << "unsteered";
    EXPECT_FALSE(session.needs_logits(session.open({.steering = blind}))) << "it looks at no distribution";
    const at::Tensor out = session.step({{s, prompt(), Phase::prompt}}, logits);
    EXPECT_EQ(out.defined(), logits != Logits::none);
    EXPECT_EQ(session.abort_reason(s), "always");
  }
}

TEST_F(SessionSteering, LogitsAreThoseAskedFor) {
  Session session(*model_, {.batch_invariant = true});
  const Steering add = Steering().add(vector(1), kPoint, 2);
  const at::Tensor all = session.forward(prompt(), {.steering = add});
  EXPECT_TRUE(at::equal(session.forward(prompt(), {.steering = add, .logits = Logits::last}), all.slice(0, -1)));
  EXPECT_FALSE(session.forward(prompt(), {.steering = add, .logits = Logits::none}).defined());
  const at::Tensor some =
      session.forward(prompt(), {.steering = add, .logits = Logits::positions, .positions = {0, 3, -1}});
  EXPECT_TRUE(at::equal(some, at::stack({all[0], all[3], all[-1]})));
  EXPECT_STEER_ERROR(session.forward(prompt(), {.logits = Logits::positions, .positions = {7}}), ErrorCode::argument,
                     "[-7, 7)");
  EXPECT_STEER_ERROR(session.forward(prompt(), {.positions = {1}}), ErrorCode::argument, "Logits::positions");

  const LogProbabilities read = session.log_probabilities(prompt(), {.steering = add, .begin = 2, .end = 6, .top = 3});
  ASSERT_EQ(read.tokens.size(), 4u);
  const at::Tensor wanted = at::log_softmax(all.to(at::kDouble), -1);
  for (std::int64_t t = 2; t < 6; ++t) {
    const at::Tensor row = wanted[t - 1];
    EXPECT_NEAR(read.tokens[static_cast<std::size_t>(t - 2)], row[prompt()[static_cast<std::size_t>(t)]].item<double>(),
                1e-5);
    const auto [values, ids] = row.topk(3);
    for (std::int64_t i = 0; i < 3; ++i) {
      EXPECT_EQ(read.top[static_cast<std::size_t>(t - 2)][static_cast<std::size_t>(i)].first,
                ids[i].item<std::int64_t>());
      EXPECT_NEAR(read.top[static_cast<std::size_t>(t - 2)][static_cast<std::size_t>(i)].second,
                  values[i].item<double>(), 1e-5);
    }
  }
  const LogProbabilities whole = session.log_probabilities(prompt(), {.steering = add});
  EXPECT_EQ(whole.tokens.size(), prompt().size() - 1);
  EXPECT_EQ(session.log_probabilities(prompt(), {.steering = add, .end = std::ssize(prompt())}).tokens, whole.tokens)
      << "the text's own length is an end";
  EXPECT_STEER_ERROR(session.log_probabilities(prompt(), {.begin = 0}), ErrorCode::argument, "[1, 7)");
  EXPECT_STEER_ERROR(session.log_probabilities(prompt(), {.end = std::ssize(prompt()) + 1}), ErrorCode::argument,
                     "[1, 7)");
}

TEST_F(SessionSteering, WarningsReachThePersonOrAreErrors) {
  Rng rng(3);
  const Sae sae = test::random_sae(rng, width(), 12, SaeActivation::relu);  // trained at layer 1
  const Steering misplaced = Steering().nudge(sae, 1, 1, {.point = HookPoint{Site::resid_post, 2}});
  Session session(*model_);
  EXPECT_TRUE(session.warnings().empty());
  session.open({.steering = misplaced});
  session.open({.steering = misplaced});
  EXPECT_THAT(session.warnings(), testing::ElementsAre(testing::HasSubstr("trained at blocks.1.hook_resid_post")));
  Session strict(*model_, {.on_warning = OnWarning::error});
  EXPECT_STEER_ERROR(strict.open({.steering = misplaced}), ErrorCode::config, "trained at");
  EXPECT_STEER_ERROR(session.open({.steering = Steering().add(at::ones({3}), kPoint, 1)}), ErrorCode::shape, "edit 0");
}

TEST_F(SessionSteering, SeveralPromptsAreRecordedInOnePass) {
  Session session(*model_, {.batch_invariant = true});
  const std::vector<Ids> prompts{prompt(), {1, 8, 9}};
  const auto caches = session.run_with_cache(prompts, {"*.hook_resid_post", "hook_embed"});
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const auto one = session.run_with_cache(prompts[i], {"*.hook_resid_post", "hook_embed"});
    EXPECT_TRUE(at::equal(caches[i].logits, one.logits));
    ASSERT_EQ(caches[i].all().size(), one.all().size());
    for (std::size_t p = 0; p < one.all().size(); ++p) {
      EXPECT_EQ(caches[i].all()[p].first, one.all()[p].first);
      EXPECT_TRUE(at::equal(caches[i].all()[p].second, one.all()[p].second));
    }
  }
  EXPECT_EQ(caches[0].all().front().first.site, Site::embed);  // in order of computation
}

TEST_F(SessionSteering, CustomEditsReachAttentionPatterns) {
  Session session(*model_);
  const HookPoint point{Site::attn_pattern, 1};
  // Every query looks at itself alone.
  const auto diagonal = [](const CustomContext& at) {
    at::Tensor p = at::zeros_like(at.h);
    for (std::int64_t q = 0; q < p.size(1); ++q) p.select(1, q).select(1, at.position[q].item<std::int64_t>()).fill_(1);
    return p;
  };
  const SequenceId s = session.open({.steering = Steering().custom(diagonal, point)});
  session.step({{s, prompt(), Phase::prompt}});
  session.step({{s, Ids{8}, Phase::generated}});
  EXPECT_EQ(session.audit(s).edits[0].in_scope, 7);
  EXPECT_EQ(session.audit(s).edits[0].edited, 7);
  const auto cache = session.run_with_cache(prompt(), {"blocks.1.attn.hook_v", "blocks.1.attn.hook_z"},
                                            {.steering = Steering().custom(diagonal, point)});
  const auto& config = model_->config();
  const at::Tensor v = cache["blocks.1.attn.hook_v"], z = cache["blocks.1.attn.hook_z"];
  const at::Tensor repeated =
      v.view({v.size(0), config.n_kv_heads, 1, config.d_head})
          .expand({v.size(0), config.n_kv_heads, config.n_heads / config.n_kv_heads, config.d_head})
          .reshape(z.sizes());
  EXPECT_LT(far(z.slice(0, 1), repeated.slice(0, 1)), 1e-4);
}

/// Anyone can write an intervention: this one adds 1 to every activation of layer 0 and counts.
class AddOne final : public Intervention {
  struct Memory final : InterventionMemory {
    std::int64_t tokens = 0;
    std::unique_ptr<InterventionMemory> clone() const override { return std::make_unique<Memory>(*this); }
    void truncate(std::int64_t length) override { tokens = std::min(tokens, length); }
    void see(std::int64_t, std::span<const std::int64_t> ids) override { tokens += std::ssize(ids); }
    void observe(SequenceId, std::int64_t, const at::Tensor&) override {}
    std::optional<std::string> abort_reason() const override {
      return tokens > 3 ? std::optional<std::string>("enough") : std::nullopt;
    }
    SteeringAudit audit() const override { return {}; }
  };
  struct Compiled final : CompiledIntervention {
    std::vector<HookPoint> places{{Site::resid_post, 0}};
    std::vector<std::string> none;
    const std::vector<HookPoint>& points() const override { return places; }
    bool edits(const HookPoint&) const override { return true; }
    bool needs_logits() const override { return false; }
    const std::vector<std::string>& warnings() const override { return none; }
    std::unique_ptr<InterventionMemory> start() const override { return std::make_unique<Memory>(); }
    void run(HookContext& at, std::span<const IntervenedRun> runs) override {
      for (const IntervenedRun& own : runs) at.value.slice(0, own.run->begin, own.run->end).add_(1);
    }
  };

 public:
  std::string name() const override { return "add one"; }
  bool equals(const Intervention& other) const override { return dynamic_cast<const AddOne*>(&other) != nullptr; }
  std::shared_ptr<CompiledIntervention> compile(const Model&, const CompileOptions&) const override {
    return std::make_shared<Compiled>();
  }
};

TEST_F(SessionSteering, TakesInterventionsOfAnyKind) {
  Session session(*model_);
  const at::Tensor ones = at::ones({width()});
  const SequenceId a = session.open({.steering = std::make_shared<const AddOne>()}),
                   b = session.open({.steering = Steering().add(ones, "blocks.0.hook_resid_post", 1,
                                                                {.scope = {.include_bos = true}})}),
                   plain = session.open();
  const at::Tensor logits =
      session.step({{a, prompt(), Phase::prompt}, {b, prompt(), Phase::prompt}, {plain, prompt(), Phase::prompt}});
  EXPECT_LT(far(logits[0], logits[1]), 1e-4);
  EXPECT_GT(far(logits[0], logits[2]), 1e-2);
  EXPECT_EQ(session.abort_reason(a), "enough");
}

}  // namespace
}  // namespace steer
