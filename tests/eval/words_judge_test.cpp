#include <steer/eval/words_judge.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include <steer/core/random.hpp>
#include <steer/eval/experiment.hpp>
#include <steer/eval/rules.hpp>
#include <steer/io/journal.hpp>

#include "core/format_text.hpp"
#include "support.hpp"

namespace steer {
namespace {

const std::filesystem::path demo = std::filesystem::path(STEER_SOURCE_DIR) / "examples/data/demo";

/// Texts that have one word of their label with probability `share`, besides words of their question.
std::vector<LabelledText> made_up(double share, int groups, std::uint64_t seed) {
  std::vector<LabelledText> texts;
  for (int g = 0; g < groups; ++g)
    for (const char* label : {"", "cold", "warm"}) {
      Rng rng(derive_seed(seed, label, static_cast<std::uint64_t>(g)));
      std::string text = format_text("<thinking>the river of q{} is long and ", g);
      if (rng.uniform() < share) text += label;
      texts.push_back({text + " indeed</thinking><answer>B</answer>", label, format_text("q{}", g)});
    }
  return texts;
}

// By hand: two labels, two texts each, smoothing 0.1 of texts + 0.2, all terms present.
TEST(WordClassifiers, AreBernoulliNaiveBayesOfWhatIsPresent) {
  const std::vector<LabelledText> texts{{"red", "a", "1"}, {"red", "a", "2"}, {"red", "b", "1"}, {"blue", "b", "2"}};
  const WordClassifier classifier(texts);
  EXPECT_EQ(classifier.labels(), (std::vector<std::string>{"a", "b"}));
  const double t = classifier.temperature();
  // "red" and " red" (it begins the text) each count once: (2.1 / 2.2) against (1.1 / 2.2), twice.
  const double odds = 2 * std::log(2.1 / 1.1) / t;
  EXPECT_NEAR(classifier.probabilities("Red!")[0], 1 / (1 + std::exp(-odds)), 1e-12);
  EXPECT_NEAR(classifier.probabilities("green")[0], 0.5, 1e-12) << "a word that was in no text tells nothing";
  EXPECT_NEAR(classifier.probabilities("<answer>red</answer>")[0], 0.5, 1e-12) << "answer tags are not prose";
  EXPECT_EQ(classifier.classify("blue"), "b");
}

TEST(WordClassifiers, HeldOutFiguresAreThoseOfNewTexts) {
  for (const double share : {1.0, 0.6, 0.0}) {
    const WordClassifier classifier(made_up(share, 60, 1));
    const auto fresh = made_up(share, 400, 2);
    std::map<std::string, double> right, all;
    for (const auto& text : fresh) {
      ++all[text.label];
      right[text.label] += classifier.classify(text.text) == text.label;
    }
    double accuracy = 0;
    for (const auto& [label, n] : all) accuracy += right[label] / n / static_cast<double>(all.size());
    EXPECT_NEAR(classifier.held_out().accuracy, accuracy, 0.12) << share;
  }
  const WordClassifier clear(made_up(1, 60, 1)), blind(made_up(0, 60, 1));
  EXPECT_NEAR(clear.held_out().auroc.at("cold"), 1, 1e-9);
  EXPECT_NEAR(blind.held_out().auroc.at("cold"), 0.5, 0.15);
  for (const double p : blind.probabilities(made_up(0, 1, 5)[0].text)) EXPECT_NEAR(p, 1.0 / 3, 0.1) << "not sure of it";
}

TEST(WordClassifiers, BadInputIsAnError) {
  const std::vector<LabelledText> one{{"x", "a", "1"}, {"y", "a", "2"}}, together{{"x", "a", "1"}, {"y", "b", "1"}};
  EXPECT_STEER_ERROR(WordClassifier{std::span(one)}, ErrorCode::argument, "2 labels");
  EXPECT_STEER_ERROR(WordClassifier{std::span(together)}, ErrorCode::argument, "2 groups");
}

TEST(WordsJudges, TellAskedForAnswersOfTheDemo) {
  const Model model = Model::load(demo);
  auto questions = load_questions(demo / "questions_dev.jsonl");
  questions.resize(12);
  auto behaviours = select_behaviours(study_behaviours(), {"funny", "technical"});
  behaviours.push_back(rule_behaviours()[0]);
  test::TempDir dir;
  const WordsJudgeOptions options{.max_tokens = 64, .journal = dir / "words.jsonl"};
  const auto judge = words_judge(model, questions, behaviours, options);
  EXPECT_EQ(judge->measure(Rubric::behaviour), "behaviour");
  EXPECT_EQ(judge->measure(Rubric::coherence), "");
  EXPECT_EQ(judge->unfit(Rubric::behaviour), "") << judge->caveat();
  // The journal has all answers: the same judge again, without a model's work.
  const auto records = Journal::read(dir / "words.jsonl");
  EXPECT_EQ(records.size(), 12u * 3);
  EXPECT_EQ(words_judge(model, questions, behaviours, options)->identity(), judge->identity());

  // In a study it finds what is known by construction: the demo answers in the style that it is asked for.
  auto asked = load_questions(demo / "questions.jsonl");
  asked.resize(8);
  Experiment study;
  study.questions = asked;
  study.behaviours = select_behaviours(study_behaviours(), {"funny", "technical"});
  study.arms = {Arm::control(), Arm::prompt()};
  study.max_tokens = 64;
  const Report report = run_experiment(model, study, {.judge = judge, .off_target = 4});
  EXPECT_FALSE(report.withheld.contains("behaviour"));
  EXPECT_GT(report.analysis.comparison("prompt", "behaviour")->difference.interval.low, 1) << report.verdict();
  EXPECT_LT(report.analysis.cell("control").scores.at("behaviour").summary.mean, 2.5);
  ASSERT_EQ(report.off_target.size(), 1u);
  EXPECT_GT(report.off_target[0].rise[0][0].mean, 1) << "asked to be funny, funny";
  EXPECT_LT(report.off_target[0].rise[0][1].mean, 1) << "and not technical";
  EXPECT_NE(report.markdown().find("Which other behaviours rose"), std::string::npos);
  EXPECT_EQ(report.headline().find("There is no verdict"), std::string::npos) << report.headline();
}

/// A judge that knows it is no good.
class UnfitJudge : public Judge {
 public:
  std::string identity() const override { return "unfit"; }
  std::string unfit(Rubric rubric) const override { return rubric == Rubric::behaviour ? "it is blind" : ""; }
  std::vector<Judgement> judge(Rubric, std::span<const JudgeRequest> requests) override {
    return std::vector<Judgement>(requests.size(), {.score = 3.0});
  }
};

TEST(WordsJudges, AJudgeThatIsUnfitGivesNoVerdict) {
  const Model model = Model::load(demo);
  auto asked = load_questions(demo / "questions.jsonl");
  asked.resize(2);
  Experiment study;
  study.questions = asked;
  study.behaviours = select_behaviours(study_behaviours(), {"funny"});
  study.arms = {Arm::control(), Arm::prompt()};
  study.max_tokens = 8;
  const Report report = run_experiment(model, study, {.judge = std::make_shared<UnfitJudge>()});
  ASSERT_TRUE(report.withheld.contains("behaviour"));
  EXPECT_NE(report.verdict().find("No verdict on behaviour: it is blind"), std::string::npos) << report.verdict();
  EXPECT_STEER_ERROR(words_judge(model, std::span(asked), study.behaviours), ErrorCode::argument, "at least 4");
}

}  // namespace
}  // namespace steer
