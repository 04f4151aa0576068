#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ATen/ops/cosine_similarity.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include <steer/core/random.hpp>
#include <steer/eval/answer.hpp>
#include <steer/eval/experiment.hpp>
#include <steer/eval/model_judge.hpp>
#include <steer/eval/rules.hpp>
#include <steer/features/strength.hpp>
#include <steer/io/journal.hpp>
#include <steer/model/session.hpp>

#include "core/format_text.hpp"
#include "eval/run/answers.hpp"
#include "support.hpp"

namespace steer {
namespace {

Sae small_sae() {
  Rng rng(3);
  const auto random = [&](std::initializer_list<std::int64_t> shape) {
    at::Tensor t = at::empty(shape, at::kFloat);
    for (std::int64_t i = 0; i < t.numel(); ++i) t.data_ptr<float>()[i] = static_cast<float>(rng.normal());
    return t;
  };
  SaeConfig config;
  config.hook_in = config.hook_out = HookPoint{Site::resid_post, 1};
  return Sae::from_weights(
      config, {.W_enc = random({8, 20}), .b_enc = random({20}), .W_dec = random({20, 8}), .b_dec = random({8})});
}

/// What an edit adds at every token: its vector times all its factors.
at::Tensor added(const Edit& edit, const Sae& sae) {
  if (edit.kind() == "add") return edit.strength * edit.vector("vector");
  const auto feature = static_cast<std::int64_t>(edit.number("feature"));
  return edit.strength * edit.number("value") * sae.decoder_rows(std::span(&feature, 1))[0];
}

TEST(Arms, VariantsChangeAsMuchElsewhere) {
  const Sae sae = small_sae();
  Steering steering;
  steering.nudge(sae, 4, 0.7).add(at::ones({8}), "blocks.1.hook_resid_post", -2);
  const Behaviour& behaviour = study_behaviours()[0];
  const Arm base = Arm::steered("steer", {{"", steering}});
  EXPECT_EQ(base.apply(steering, behaviour), steering);
  const Steering turned = base.flipped().apply(steering, behaviour);
  for (const Arm& arm : {base.random_features(), base.noise()}) {
    const Steering other = arm.apply(steering, behaviour);
    ASSERT_EQ(other.edits().size(), 2u);
    EXPECT_EQ(arm.apply(steering, behaviour), other) << "drawn by seed";
    EXPECT_NE(arm.apply(steering, study_behaviours()[1]), other) << "another draw for another behaviour";
    for (std::size_t i = 0; i < 2; ++i) {
      const at::Tensor was = added(steering.edits()[i], sae), is = added(other.edits()[i], sae);
      EXPECT_NEAR(is.norm().item<double>(), was.norm().item<double>(), 1e-5) << arm.name;
      EXPECT_LT(at::cosine_similarity(was, is, 0).item<double>(), 0.99);
      EXPECT_NEAR(at::cosine_similarity(was, added(turned.edits()[i], sae), 0).item<double>(), -1, 1e-5);
    }
  }
  const auto sweep = base.strength_sweep({0.5, 2}, 3);
  EXPECT_NEAR(added(sweep[1].apply(steering, behaviour).edits()[0], sae).norm().item<double>(),
              2 * added(steering.edits()[0], sae).norm().item<double>(), 1e-5);
  EXPECT_EQ(sweep[0].family, "steer");
  EXPECT_EQ(sweep[0].every, 3);
  Steering pinned;
  pinned.splice(sae);
  EXPECT_STEER_ERROR(base.noise().apply(pinned, behaviour), ErrorCode::unsupported, "splice");
  EXPECT_STEER_ERROR(Arm::control().with_prompt(), ErrorCode::argument, "control");
  EXPECT_STEER_ERROR(Arm::control().draw(2), ErrorCode::argument, "control");
}

/// The demo's model: small, in the repository.
class OnTheDemo : public testing::Test {
 protected:
  void SetUp() override {
    const auto demo = test::outside_data("STEER_DEMO", "examples/data/demo");
    if (!std::filesystem::exists(demo.path / "config.json")) GTEST_SKIP() << "no demo model at " << demo.path;
    if (!model_) model_ = Model::load(demo.path);
    questions_ = load_questions(demo.path / "questions.jsonl");
    questions_.resize(6);
  }

  Experiment experiment() const {
    Rng rng(1);
    at::Tensor direction = at::empty({model_->config().d_model}, at::kFloat);
    for (std::int64_t i = 0; i < direction.numel(); ++i)
      direction.data_ptr<float>()[i] = static_cast<float>(rng.normal());
    Steering push;
    push.add(direction, HookPoint{Site::resid_post, 2}, 0.4);
    const Arm arm = Arm::steered("push", {{"", push}});
    Experiment study;
    study.questions = questions_;
    study.behaviours = select_behaviours(study_behaviours(), {"funny", "technical"});
    study.arms = {Arm::control(), Arm::prompt(), arm, arm.with_prompt(), arm.noise()};
    for (auto& swept : arm.strength_sweep({0.5, 1, 2}, 2)) study.arms.push_back(swept);
    study.max_tokens = 24;
    return study;
  }

  static std::optional<Model> model_;
  std::vector<Question> questions_;
};

std::optional<Model> OnTheDemo::model_;

TEST_F(OnTheDemo, WarningsOfSteeringsAreInTheReportOrErrors) {
  Rng rng(2);
  const std::int64_t width = model_->config().d_model;
  SaeConfig config;
  config.hook_in = config.hook_out = HookPoint{Site::resid_post, 1};
  const Sae sae = Sae::from_weights(config, {.W_enc = at::randn({width, 8}),
                                             .b_enc = at::zeros({8}),
                                             .W_dec = at::randn({8, width}),
                                             .b_dec = at::zeros({width})});
  Experiment study = experiment();
  study.questions.resize(1);
  study.arms = {
      Arm::control(),
      Arm::steered("nudged", {{"", Steering().nudge(sae, 1, 0.1, {.point = HookPoint{Site::resid_post, 2}})}})};
  study.max_tokens = 4;
  const Report report = run_experiment(*model_, study, {});
  ASSERT_EQ(report.warnings.size(), 1u) << "once, whatever how many rows have it";
  EXPECT_NE(report.warnings[0].find("trained at"), std::string::npos);
  EXPECT_NE(report.markdown().find("Mind: " + report.warnings[0] + "."), std::string::npos);
  EXPECT_STEER_ERROR(run_experiment(*model_, study, {.on_warning = OnWarning::error}), ErrorCode::config, "trained at");
}

/// Scores that tell the rubrics, and texts, apart.
class LengthJudge : public Judge {
 public:
  static double behaviour(const std::string& text) { return 1 + static_cast<double>(text.size() % 7) / 3; }
  static double coherence(const std::string& text) { return 4 + static_cast<double>(text.size() % 5) / 5; }
  std::string identity() const override { return "length"; }
  std::vector<Judgement> judge(Rubric rubric, std::span<const JudgeRequest> requests) override {
    std::vector<Judgement> judgements;
    for (const auto& request : requests)
      judgements.push_back(
          {.score = rubric == Rubric::behaviour ? behaviour(request.response) : coherence(request.response)});
    return judgements;
  }
};

TEST_F(OnTheDemo, EveryArmAnswersEveryQuestion) {
  Experiment study = experiment();
  study.kl = true;
  const Report report = run_experiment(*model_, study, {.judge = std::make_shared<LengthJudge>(), .batch = 16});
  EXPECT_EQ(report.results.size(), 5u * 2 * 6 + 3 * 2 * 3);
  std::map<std::string, const ResultRow*> by_key;
  for (const auto& result : report.results) by_key[result.key()] = &result;
  int control_differs = 0;
  for (const auto& question : questions_) {
    const ResultRow &funny = *by_key.at("control|funny|" + question.id),
                    &technical = *by_key.at("control|technical|" + question.id);
    control_differs += funny.response != technical.response;
    for (const auto* row : {&funny, by_key.at("push|funny|" + question.id)}) {
      EXPECT_EQ(row->scores.at("behaviour"), LengthJudge::behaviour(row->response));
      EXPECT_EQ(row->scores.at("coherence"), LengthJudge::coherence(row->response));
      EXPECT_EQ(row->answer,
                parse_answer(row->response).strict ? std::string(1, *parse_answer(row->response).strict) : "");
      EXPECT_EQ(row->gold, question.gold());
    }
    EXPECT_NE(by_key.at("push|funny|" + question.id)->edits.at("edited"), 0);
    EXPECT_GT(by_key.at("push|funny|" + question.id)->scores.at("kl"), 0);
    // The whole strength is the arm itself; the sweep asks every second question.
    const auto swept = by_key.find("push x 1|funny|" + question.id);
    if (swept != by_key.end()) {
      EXPECT_EQ(swept->second->response, by_key.at("push|funny|" + question.id)->response);
    }
  }
  EXPECT_GE(control_differs, 2) << "control is drawn afresh for every behaviour";
  EXPECT_EQ(report.arms[5].family, "push");
  EXPECT_NE(report.html().find("Strength"), std::string::npos);
}

// Measured apart from the run: placebo and what it stands for change next-token distributions equally.
TEST_F(OnTheDemo, PlacebosHaveTheEffectOfWhatTheyStandFor) {
  Experiment study = experiment();
  const Arm push = study.arms[2], placebo = push.noise();
  study.arms = {Arm::control(), push, placebo, push.flipped()};
  const Report report = run_experiment(*model_, study);
  const auto settings = nlohmann::json::parse(report.settings);
  for (const auto& behaviour : study.behaviours) {
    const std::string note = settings["steerings"][placebo.name][behaviour.name]["note"];
    EXPECT_NE(note.find("brought to the same KL"), std::string::npos) << note;
    EXPECT_EQ(settings["steerings"]["push flipped"][behaviour.name]["note"].get<std::string>().find("KL"),
              std::string::npos)
        << "the flipped arm is no placebo";
    // The factor is what the rows' edits say: the mean change of the placebo's rows over that of an unmatched one.
    const Steering given = push.source->find(*model_, behaviour).steering;
    const auto texts = neutral_texts(*model_, given);
    const double effect = steering_effect(*model_, given, texts).quantile;
    const Steering unmatched = placebo.apply(given, behaviour);
    const auto ladder = calibrate_strength(*model_, unmatched, effect, {.texts = texts});
    ASSERT_TRUE(ladder.reached);
    EXPECT_NEAR(steering_effect(*model_, ladder.steering, texts).quantile, effect, 0.06 * effect);
    const std::string edits = settings["steerings"][placebo.name][behaviour.name]["edits"];
    EXPECT_EQ(edits, unmatched.scaled(ladder.factor).describe()) << "what was run is what has that effect";
  }
}

TEST_F(OnTheDemo, WithoutSamplingControlIsAnsweredOnce) {
  Experiment study = experiment();
  study.arms = {Arm::control(), Arm::prompt()};
  study.sampling.temperature = 0;
  EXPECT_FALSE(study.answers_each_behaviour(study.arms[0]));
  const Report report = run_experiment(*model_, study);
  std::map<std::string, std::string> responses;
  for (const auto& r : report.results)
    if (r.arm == "control") {
      const auto [first, is_new] = responses.try_emplace(r.question, r.response);
      EXPECT_EQ(first->second, r.response);
    }
}

TEST_F(OnTheDemo, CutOffAnswersCanBeForcedToALetter) {
  Experiment study = experiment();
  study.arms.resize(3);
  study.max_tokens = 12;  // the demo's answers are longer: none of these has its letter
  study.force_answers = true;
  const Report cut = run_experiment(*model_, study);
  study.max_tokens = 200;
  const Report whole = run_experiment(*model_, study);
  int truncated = 0;
  for (const auto& r : cut.results) {
    truncated += r.truncated;
    ASSERT_TRUE(r.scores.contains("forced_correct")) << r.key();
    if (!r.answer.empty()) {
      EXPECT_EQ(r.scores.at("forced_correct") != 0, r.correct()) << r.key();
    }
  }
  EXPECT_GT(truncated, 20);
  const auto &forced = cut.analysis.cell("control").accuracy_forced, &strict = cut.analysis.cell("control").accuracy;
  EXPECT_EQ(strict.hits, 0) << "a budget of 12 tokens is too small for the strict rule";
  EXPECT_GT(forced.hits, 0) << "but not for what the model knows";
  for (const auto& r : whole.results)
    if (!r.truncated) {
      EXPECT_EQ(r.scores.at("forced_correct") != 0, r.correct()) << r.key();
    }
  EXPECT_NE(cut.html().find("letter forced where cut off"), std::string::npos);
  EXPECT_EQ(run_experiment(*model_, experiment()).results[0].scores.count("forced_correct"), 0u);
}

TEST_F(OnTheDemo, ResumedRunsGiveTheSameBytes) {
  test::TempDir dir;
  const Experiment study = experiment();
  const auto judge = request_evidence(*model_);
  run_experiment(*model_, study, {.judge = judge, .journal = dir / "whole.jsonl", .batch = 4})
      .write(dir / "whole" / "report.html");
  const std::string journal = test::read_file(dir / "whole.jsonl");
  for (const double part : {0.2, 0.6, 0.95}) {
    const auto cut = static_cast<std::size_t>(part * static_cast<double>(journal.size()));
    std::ofstream(dir / "cut.jsonl", std::ios::binary | std::ios::trunc) << journal.substr(0, cut);
    run_experiment(*model_, study, {.judge = judge, .journal = dir / "cut.jsonl", .batch = 4})
        .write(dir / "cut" / "report.html");
    for (const char* file : {"report.html", "report.md", "results.csv", "results.jsonl"})
      EXPECT_EQ(test::read_file(dir / "cut" / file), test::read_file(dir / "whole" / file))
          << file << " cut at " << part;
  }
  // In memory alone, where no record is written and read on its way.
  run_experiment(*model_, study, {.judge = judge, .batch = 4}).write(dir / "kept" / "report.html");
  for (const char* file : {"report.html", "report.md", "results.csv", "results.jsonl"})
    EXPECT_EQ(test::read_file(dir / "kept" / file), test::read_file(dir / "whole" / file)) << file;
  Experiment other = study;
  other.seed = 43;
  EXPECT_STEER_ERROR(run_experiment(*model_, other, {.judge = judge, .journal = dir / "cut.jsonl", .batch = 4}),
                     ErrorCode::config, "seed was 42, is 43");
}

/// Gives the length of an answer, until it is down.
class FailingJudge : public Judge {
 public:
  explicit FailingJudge(int good_calls) : left_(good_calls) {}
  std::string identity() const override { return "length"; }
  std::vector<Judgement> judge(Rubric, std::span<const JudgeRequest> requests) override {
    require(left_-- > 0, ErrorCode::io, "FailingJudge",
            "expected the judge to answer but it is down; start again when it is up");
    std::vector<Judgement> judgements;
    for (const auto& request : requests)
      judgements.push_back({1 + static_cast<double>(request.response.size() % 5), ""});
    return judgements;
  }

 private:
  int left_;
};

TEST_F(OnTheDemo, AJudgeThatIsDownLosesNothing) {
  test::TempDir dir;
  Experiment study = experiment();
  study.arms.resize(3);
  const auto journal = dir / "journal.jsonl";
  const auto whole = run_experiment(*model_, study, {.judge = std::make_shared<FailingJudge>(1000), .batch = 2});
  // Two calls a batch of 8 rows: the third batch fails.
  EXPECT_STEER_ERROR(
      run_experiment(*model_, study, {.judge = std::make_shared<FailingJudge>(4), .journal = journal, .batch = 2}),
      ErrorCode::io, "start again when it is up");
  const std::string kept = test::read_file(journal);
  const auto count = [](const std::string& text, const std::string& what) {
    std::size_t n = 0;
    for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
    return n;
  };
  EXPECT_EQ(count(kept, "\"key\":\"answer|"), 3u * 2 * 6) << "every answer is on disk";
  EXPECT_EQ(count(kept, "\"key\":\"judge|"), 2u * 8);
  const auto resumed =
      run_experiment(*model_, study, {.judge = std::make_shared<FailingJudge>(1000), .journal = journal, .batch = 2});
  EXPECT_EQ(test::read_file(journal).compare(0, kept.size(), kept), 0) << "nothing was done again";
  EXPECT_EQ(resumed.results, whole.results);
}

/// Reached only from its second life on.
class BusyJudge : public LengthJudge {
 public:
  explicit BusyJudge(bool busy) : busy_(busy) {}
  std::vector<Judgement> judge(Rubric rubric, std::span<const JudgeRequest> requests) override {
    auto judgements = LengthJudge::judge(rubric, requests);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      ++asked;
      if (busy_ && requests[i].response.size() % 3 == 0) judgements[i] = {.failure = "status 503", .unanswered = true};
    }
    return judgements;
  }
  int asked = 0;

 private:
  bool busy_;
};

TEST_F(OnTheDemo, WhatABusyJudgeLeftIsJudgedByTheNextRun) {
  test::TempDir dir;
  Experiment study = experiment();
  study.arms.resize(3);
  const ExperimentOptions options{.journal = dir / "journal.jsonl", .batch = 4};
  ExperimentOptions busy = options, free = options, whole = {.batch = 4};
  busy.judge = std::make_shared<BusyJudge>(true);
  const auto again = std::make_shared<BusyJudge>(false);
  free.judge = whole.judge = again;
  const Report first = run_experiment(*model_, study, busy);
  int left = 0;
  for (const auto& result : first.results) left += result.failed.contains("behaviour");
  ASSERT_GT(left, 0);
  ASSERT_LT(left, std::ssize(first.results));
  EXPECT_NE(first.notes.front().find(format_text("{} answers are not judged", left)), std::string::npos)
      << first.notes.front();
  const Report second = run_experiment(*model_, study, free);
  EXPECT_EQ(again->asked, 2 * left) << "only what was left, by both rubrics";
  EXPECT_EQ(second.results, run_experiment(*model_, study, whole).results);
  EXPECT_EQ(second.journals, (std::vector<std::filesystem::path>{dir / "journal.jsonl"}));
}

TEST_F(OnTheDemo, StopsAtTheNextTokenAndGoesOn) {
  test::TempDir dir;
  Experiment study = experiment();
  study.arms.resize(2);
  ExperimentOptions options{.judge = std::make_shared<LengthJudge>(), .journal = dir / "journal.jsonl", .batch = 1};
  int asked = 0;
  options.stop = [&] { return ++asked > 300; };
  EXPECT_STEER_ERROR(run_experiment(*model_, study, options), ErrorCode::cancelled,
                     "start again with the same settings");
  const auto kept = Journal::read(dir / "journal.jsonl");
  EXPECT_GT(kept.size(), 0u);
  options.stop = {};
  EXPECT_EQ(run_experiment(*model_, study, options).results,
            run_experiment(*model_, study, {.judge = options.judge, .batch = 1}).results);
}

TEST_F(OnTheDemo, RulesAreCheckedAndNotJudged) {
  Experiment study = experiment();
  study.behaviours = select_behaviours(rule_behaviours(), {"short", "no_digits"});
  study.arms = {Arm::control(), Arm::prompt()};
  const auto judge = std::make_shared<BusyJudge>(false);
  const Report report = run_experiment(*model_, study, {.judge = judge});
  for (const auto& result : report.results) {
    EXPECT_FALSE(result.scores.contains("behaviour"));
    EXPECT_TRUE(result.scores.contains("coherence"));
    const auto rule = select_behaviours(rule_behaviours(), {result.behaviour})[0].rule;
    EXPECT_EQ(result.scores.at("rule"), keeps_rule(*rule, result.response) ? 1 : 0);
  }
  EXPECT_EQ(judge->asked, std::ssize(report.results)) << "for coherence only";
  EXPECT_NE(report.notes[0].find("Checked by a program"), std::string::npos);
}

TEST_F(OnTheDemo, NoVerdictRestsOnAJudgeThatIsNotFit) {
  Experiment study = experiment();
  study.arms.resize(3);
  ExperimentOptions options{.judge = std::make_shared<LengthJudge>()};
  options.calibration = JudgeCalibration{.judge = "length", .reference = "people", .agreement = {}};
  options.calibration->agreement["behaviour"] = {.rows = 100, .spearman = 0.12};
  options.calibration->agreement["coherence"] = {.rows = 100, .spearman = 0.9};
  const std::string verdict = run_experiment(*model_, study, options).verdict();
  EXPECT_NE(verdict.find("No verdict on behaviour: measured against people, the judge is not fit for it"),
            std::string::npos)
      << verdict;
  EXPECT_EQ(verdict.find("behaviour is gained"), std::string::npos) << verdict;
  EXPECT_EQ(verdict.find("for behaviour"), std::string::npos) << verdict;
  EXPECT_NE(verdict.find("for coherence"), std::string::npos) << verdict;
  options.calibration->judge = "another";
  EXPECT_STEER_ERROR(run_experiment(*model_, study, options), ErrorCode::config, "calibration of this judge (length)");

  // Evidence of a request is no score: no verdict on behaviour either.
  const Report evidence = run_experiment(*model_, study, {.judge = request_evidence(*model_)});
  EXPECT_NE(evidence.verdict().find("No verdict on behaviour: it was not judged"), std::string::npos)
      << evidence.verdict();
  EXPECT_TRUE(evidence.results[0].scores.contains("request_evidence"));
}

TEST_F(OnTheDemo, LettersMatchOnePassEach) {
  const Experiment study = experiment();
  std::vector<eval::detail::Task> tasks;
  for (const auto& question : questions_)
    for (const auto& arm : study.arms) {
      eval::detail::Task task{&arm, &study.behaviours[0], &question};
      if (arm.source)
        task.steering = arm.apply(arm.source->find(*model_, study.behaviours[0]).steering, study.behaviours[0]);
      tasks.push_back(std::move(task));
    }
  const auto shared = eval::detail::take_letters(*model_, tasks);
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    // The slow way: the prompt alone, through the whole model, with its steering.
    Session session(*model_);
    const auto ids = eval::detail::prompt_of(*model_, tasks[i], AnswerMode::letters);
    const auto sequence = session.open({.steering = tasks[i].steering});
    const at::Tensor p = session.step({{sequence, ids, Phase::prompt}}).softmax(-1)[0];
    double total = 0, gold = 0;
    for (char letter = 'A'; letter <= 'D'; ++letter)
      for (const std::string& text : {std::string(1, letter), std::string(" ") + letter}) {
        const auto pieces = model_->tokenizer().encode(text, {.add_special = false});
        if (pieces.size() != 1) continue;
        const double mass = p[pieces[0]].item<double>();
        total += mass;
        if (letter == questions_[i / study.arms.size()].gold()[0]) gold += mass;
      }
    EXPECT_NEAR(shared[i].scores.at("p_gold"), gold / total, 1e-4) << tasks[i].arm->name;
  }
}

TEST_F(OnTheDemo, SteeringThatDoesNothingIsAnError) {
  Experiment study = experiment();
  Steering never;  // valid, and never in scope: no answer opens this tag
  never.add(at::ones({model_->config().d_model}), HookPoint{Site::resid_post, 2}, 1,
            {.scope = {.where = Where::inside_tag, .tag = "nowhere"}});
  study.arms = {Arm::control(), Arm::steered("never", {{"", never}})};
  EXPECT_STEER_ERROR(run_experiment(*model_, study), ErrorCode::config, "\"never\" to edit tokens but it edited none");
  study.arms = {Arm::prompt()};
  EXPECT_STEER_ERROR(run_experiment(*model_, study), ErrorCode::argument, "baseline");
}

TEST_F(OnTheDemo, LettersAloneAreReportedAsAccuracyAlone) {
  Experiment study = experiment();
  study.arms = {Arm::control(), Arm::prompt()};
  study.mode = AnswerMode::letters;
  const Report report = run_experiment(*model_, study);
  const bool loses = report.analysis.comparison("prompt", "accuracy")->difference.mean < 0;
  EXPECT_NE(report.verdict().find(loses ? "The least accurate arm is prompt: " : "the nearest to it is prompt: "),
            std::string::npos)
      << report.verdict();
  EXPECT_EQ(report.verdict().find("behaviour is gained"), std::string::npos) << report.verdict();
  double letters = 0;
  for (const auto& result : report.results) letters += result.scores.at("p_letters") / std::ssize(report.results);
  ASSERT_FALSE(report.notes.empty());
  EXPECT_NE(report.notes.back().find(format_text("together have {:.0f} % of the next token", 100 * letters)),
            std::string::npos)
      << report.notes.back();
}

TEST_F(OnTheDemo, PlansFromHeaders) {
  const auto demo = test::outside_data("STEER_DEMO", "examples/data/demo");
  Experiment study = experiment();
  const ExperimentPlan plan = plan_experiment(demo.path, study, {.batch = 16});
  EXPECT_EQ(plan.rows, 5 * 2 * 6 + 3 * 2 * 3);
  EXPECT_EQ(plan.answers, plan.rows) << "control is drawn for every behaviour";
  study.sampling.temperature = 0;
  EXPECT_EQ(plan_experiment(demo.path, study, {.batch = 16}).answers, plan.rows - 6) << "control once a question";
  EXPECT_NEAR(static_cast<double>(plan.weight_bytes),
              static_cast<double>(std::filesystem::file_size(demo.path / "model.safetensors")), 1e5);
  std::int64_t longest = 0;
  for (const auto& arm : study.arms)
    for (const auto& question : questions_)
      longest = std::max<std::int64_t>(
          longest,
          static_cast<std::int64_t>(
              eval::detail::prompt_of(*model_, {&arm, &study.behaviours[0], &question}, AnswerMode::generate).size()));
  EXPECT_NEAR(static_cast<double>(plan.longest_prompt), static_cast<double>(longest),
              0.2 * static_cast<double>(longest));
  study.max_tokens = 1 << 20;
  EXPECT_STEER_ERROR(plan_experiment(demo.path, study).require_fits(), ErrorCode::config, "context");
}

}  // namespace
}  // namespace steer
