// What is built on judges: comparisons of pairs, calibration, labels by people, off-target tables, ensembles.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include <steer/core/random.hpp>
#include <steer/eval/judge_calibration.hpp>
#include <steer/eval/labels.hpp>
#include <steer/eval/model_judge.hpp>
#include <steer/eval/off_target.hpp>
#include <steer/eval/pairwise.hpp>
#include <steer/eval/rules.hpp>

#include "core/format_text.hpp"
#include "paper_data.hpp"
#include "support.hpp"

namespace steer {
namespace {

/// Responses of these tests say how much they show: "funny=3 technical=1 good=4".
double level(const std::string& response, const std::string& name) {
  const auto at = response.find(name + "=");
  return at == std::string::npos ? 1 : std::stod(response.substr(at + name.size() + 1));
}

/// Reads the levels that a response states.
class ReadingJudge : public Judge {
 public:
  std::string identity() const override { return "reading"; }
  std::vector<Judgement> judge(Rubric rubric, std::span<const JudgeRequest> requests) override {
    std::vector<Judgement> judgements;
    for (const auto& r : requests) {
      asked += 1;
      judgements.push_back({.score = level(r.response, rubric == Rubric::behaviour ? r.behaviour->name : "good")});
    }
    return judgements;
  }
  int asked = 0;
};

class ReadingPairJudge : public PairJudge {
 public:
  std::string identity() const override { return "reading pairs"; }
  std::vector<PairJudgement> compare(Contest contest, std::span<const PairRequest> requests) override {
    std::vector<PairJudgement> judgements;
    for (const auto& r : requests) {
      const std::string name = contest == Contest::behaviour ? r.behaviour->name : "good";
      const double a = level(r.first, name), b = level(r.second, name);
      PairJudgement judgement;
      judgement.score = a > b ? 1.0 : a < b ? 0.0 : 0.5;
      judgements.push_back(judgement);
    }
    return judgements;
  }
};

const std::vector<Behaviour>& two() {
  static const auto behaviours = select_behaviours(study_behaviours(), {"funny", "technical"});
  return behaviours;
}

/// 12 questions; `steer` is funnier (when asked for either) and a little worse, `prompt` does what it is asked.
std::vector<ResultRow> made_up() {
  std::vector<ResultRow> results;
  for (const auto& behaviour : two())
    for (int q = 0; q < 12; ++q)
      for (const char* arm : {"control", "prompt", "steer"}) {
        const std::string name = arm;
        const int funny = name == "steer" ? 4 : name == "prompt" && behaviour.name == "funny" ? 3 : 1;
        const int technical = name == "prompt" && behaviour.name == "technical" ? 5 : 2;
        const int good = name == "steer" ? (q % 3 == 0 ? 5 : 3) : 4;
        results.push_back({.arm = name,
                           .behaviour = behaviour.name,
                           .question = format_text("q{}", q),
                           .response = format_text("funny={} technical={} good={}", funny, technical, good)});
      }
  return results;
}

std::map<std::string, std::string> prompts() {
  std::map<std::string, std::string> texts;
  for (int q = 0; q < 12; ++q) texts[format_text("q{}", q)] = format_text("Question {}?", q);
  return texts;
}

TEST(Pairs, WinRatesAndStrengthsAgainstControl) {
  auto results = made_up();
  ReadingPairJudge judge;
  const auto table = compare_pairs(results, prompts(), two(), judge, {.among_arms = 1});
  ASSERT_EQ(table.behaviour.size(), 2u);
  EXPECT_EQ(table.behaviour[0].arm, "prompt");
  const auto again = pair_table(results);
  ASSERT_EQ(again.behaviour.size(), 2u) << "from the rows' scores alone";
  EXPECT_EQ(again.behaviour[1].win.mean, table.behaviour[1].win.mean);
  EXPECT_EQ(again.quality[1].win.interval, table.quality[1].win.interval);
  EXPECT_EQ(table.behaviour[0].win.mean, 1) << "it always does more of what it was asked for";
  EXPECT_EQ(table.behaviour[1].win.mean, 0.75) << "funnier always, technical as much as control";
  EXPECT_NEAR(table.quality[1].win.mean, 1.0 / 3, 1e-12) << "better on every third question";
  EXPECT_EQ(table.quality[1].win.clusters, 12);
  EXPECT_LT(table.quality[1].strength.log, 0);
  EXPECT_EQ(table.quality[0].strength.matches, 24 + 24) << "against control, and against steer by draw";
  for (const auto& row : results) {
    EXPECT_EQ(row.scores.contains("win_behaviour"), row.arm != "control");
    if (row.arm == "steer" && row.behaviour == "funny") {
      EXPECT_EQ(row.scores.at("win_behaviour"), 1);
    }
  }
  EXPECT_STEER_ERROR(compare_pairs(results, {}, two(), judge), ErrorCode::argument, "q0");
  EXPECT_STEER_ERROR(compare_pairs(results, prompts(), two(), judge, {.baseline = "nobody"}), ErrorCode::argument,
                     "nobody");
}

TEST(Pairs, RuleCheckedBehavioursAreNoMatterOfOpinion) {
  const Behaviour& rule = rule_behaviours()[0];
  std::vector<ResultRow> results{{.arm = "control", .behaviour = rule.name, .question = "q0", .response = "good=1"},
                                 {.arm = "prompt", .behaviour = rule.name, .question = "q0", .response = "good=2"}};
  ReadingPairJudge judge;
  const auto table = compare_pairs(results, prompts(), {rule}, judge);
  EXPECT_TRUE(table.behaviour.empty());
  EXPECT_EQ(table.quality.at(0).win.mean, 1);
}

TEST(Pairs, ThePromptIsBlindForQuality) {
  const PairRequest request{"2+2?", "four", "FOUR!!", &two()[0]};
  EXPECT_NE(pair_prompt(Contest::behaviour, request).find("be funny"), std::string::npos);
  EXPECT_EQ(pair_prompt(Contest::quality, request).find("funny"), std::string::npos);
  EXPECT_STEER_ERROR(pair_prompt(Contest::behaviour, {"?", "a", "b", nullptr}), ErrorCode::argument, "behaviour");
}

TEST(Calibration, AGoodJudgeMayBeUsedABadOneMayNot) {
  auto rows = made_up();
  for (auto& row : rows) {
    row.scores["behaviour"] = level(row.response, row.behaviour);
    row.scores["coherence"] = level(row.response, "good");
  }
  ReadingJudge judge;
  const auto good = calibrate_judge(rows, prompts(), two(), judge, "the test");
  EXPECT_NEAR(good.agreement.at("behaviour").spearman, 1, 1e-12);
  EXPECT_NEAR(good.agreement.at("coherence").weighted_kappa, 1, 1e-12);
  EXPECT_NEAR(good.agreement.at("coherence").kappa_interval.low, 1, 1e-12) << "perfect in every draw";
  EXPECT_EQ(good.agreement.at("behaviour").unusable(), "");
  ASSERT_EQ(good.agreement.at("behaviour").contrasts.size(), 2u);
  EXPECT_NEAR(good.agreement.at("behaviour").contrasts[0].reference.mean, 2.5, 1e-12);

  // The reference's order turned round: every contrast has the wrong sign, and the ranks disagree.
  for (auto& row : rows) row.scores["behaviour"] = 6 - level(row.response, row.behaviour);
  const auto bad = calibrate_judge(rows, prompts(), two(), judge, "the test");
  EXPECT_NE(bad.agreement.at("behaviour").unusable().find("Spearman -1.00"), std::string::npos);
  JudgeAgreement sign = bad.agreement.at("behaviour");
  sign.spearman = 0.9;
  EXPECT_NE(sign.unusable().find("puts prompt at +2.50"), std::string::npos) << sign.unusable();
  EXPECT_NE(bad.describe().find("WRONG SIGN"), std::string::npos);

  test::TempDir dir;
  bad.save(dir / "c.json");
  const auto loaded = JudgeCalibration::load(dir / "c.json");
  EXPECT_EQ(loaded.describe(), bad.describe());
  std::ofstream(dir / "x.json") << "[1]";
  EXPECT_STEER_ERROR(JudgeCalibration::load(dir / "x.json"), ErrorCode::format, "calibrate_judge");
}

/// Says what it is told, row by row.
class ToldJudge : public Judge {
 public:
  std::string identity() const override { return "told"; }
  std::vector<Judgement> judge(Rubric rubric, std::span<const JudgeRequest> requests) override {
    std::vector<Judgement> judgements;
    for (std::size_t i = 0; i < requests.size(); ++i)
      judgements.push_back({.score = (rubric == Rubric::behaviour ? behaviour : coherence).at(i)});
    return judgements;
  }
  std::vector<double> behaviour, coherence;
};

// The study's pilot rows: gpt-4o-mini's contrasts, computed apart from this code, and what becomes of a judge that has
// them turned round.
TEST(PaperCalibration, ContrastsOfThePilotRows) {
  const auto data = test::paper_results();
  if (!data.present) GTEST_SKIP() << "no stored results of the study at " << data.path;
  test::CaseCounter counter("paper");
  std::vector<ResultRow> rows;
  std::map<std::string, std::string> questions;
  std::vector<Behaviour> behaviours;
  ToldJudge same, turned;
  for (const char* file : {"mmlu_pilot_8b.csv.gz", "mmlu_pilot_70b.csv.gz"})
    for (auto& row : test::read_table(data.path / file)) {
      rows.push_back({.arm = row["arm"], .behaviour = row["behaviour"], .question = row["qid"]});
      rows.back().scores = {{"behaviour", std::stod(row["behaviour_score"])},
                            {"coherence", std::stod(row["coherence"])}};
      questions[row["qid"]] = "?";
      if (std::none_of(behaviours.begin(), behaviours.end(), [&](const auto& b) { return b.name == row["behaviour"]; }))
        behaviours.push_back({.name = row["behaviour"], .instruction = "?"});
      same.behaviour.push_back(rows.back().scores["behaviour"]);
      same.coherence.push_back(rows.back().scores["coherence"]);
      turned.behaviour.push_back(5 - rows.back().scores["behaviour"]);
      turned.coherence.push_back(3);
    }
  EXPECT_EQ(rows.size(), 1738u);
  const auto good = calibrate_judge(rows, questions, behaviours, same, "gpt-4o-mini");
  const std::map<std::string, std::pair<double, double>> known{
      {"prompt", {0.301, 0.065}}, {"auto_steer", {1.087, -1.789}}, {"auto_steer_plus_prompt", {0.538, -0.218}}};
  for (const char* measure : {"behaviour", "coherence"})
    for (const auto& contrast : good.agreement.at(measure).contrasts) {
      const auto& [behaviour, coherence] = known.at(contrast.arm);
      const double expected = std::string_view(measure) == "behaviour" ? behaviour : coherence;
      const bool ok =
          std::abs(contrast.reference.mean - expected) < 6e-4 && contrast.judge.mean == contrast.reference.mean;
      counter.count(ok);
      EXPECT_TRUE(ok) << measure << " of " << contrast.arm << ": " << contrast.reference.mean;
    }
  EXPECT_EQ(good.agreement.at("behaviour").unusable(), "");
  const auto bad = calibrate_judge(rows, questions, behaviours, turned, "gpt-4o-mini");
  EXPECT_FALSE(bad.agreement.at("behaviour").unusable().empty());
  EXPECT_FALSE(bad.agreement.at("coherence").unusable().empty()) << "a constant knows nothing";
}

// Bivariate normal scores of correlation r have Spearman's 6/pi asin(r/2) (Pearson 1907).
TEST(Calibration, IntervalsOfAgreementCoverTheTruth) {
  constexpr int kStudies = 120;
  constexpr double r = 0.6;
  const double truth = 6 / M_PI * std::asin(r / 2);
  int covered = 0;
  for (int s = 0; s < kStudies; ++s) {
    Rng rng(derive_seed(21, "agreement", static_cast<std::uint64_t>(s)));
    std::vector<ResultRow> rows;
    ToldJudge judge;
    std::map<std::string, std::string> texts;
    for (int q = 0; q < 60; ++q) {
      const std::string question = format_text("q{}", q);
      texts[question] = "?";
      const double reference = rng.normal(), own = r * reference + std::sqrt(1 - r * r) * rng.normal();
      rows.push_back({.arm = "control", .behaviour = "funny", .question = question});
      rows.back().scores["behaviour"] = 3 + reference / 2;
      judge.behaviour.push_back(3 + own / 2);
    }
    const auto found = calibrate_judge(rows, texts, two(), judge, "the test").agreement.at("behaviour");
    covered += found.spearman_interval.low <= truth && truth <= found.spearman_interval.high;
  }
  EXPECT_GT(covered, 0.88 * kStudies);  // percentile bootstrap of 60 questions: a little below .95
  EXPECT_LT(covered, kStudies);
}

// Two questions, both with the same answers: the interval is of questions, not of rows.
TEST(Calibration, RowsOfAQuestionAreResampledTogether) {
  const auto width = [](int copies) {
    std::vector<ResultRow> rows;
    ToldJudge judge;
    std::map<std::string, std::string> texts;
    for (int q = 0; q < 20; ++q)
      for (int c = 0; c < copies; ++c) {
        Rng rng(derive_seed(4, "q", static_cast<std::uint64_t>(q)));
        const std::string question = format_text("q{}", q);
        texts[question] = "?";
        rows.push_back({.arm = format_text("arm{}", c), .behaviour = "funny", .question = question});
        const double x = rng.normal();
        rows.back().scores["behaviour"] = 3 + x / 2;
        judge.behaviour.push_back(3 + (x + rng.normal()) / 4);
      }
    const auto found =
        calibrate_judge(rows, texts, two(), judge, "the test", "arm0").agreement.at("behaviour").spearman_interval;
    return found.high - found.low;
  };
  EXPECT_NEAR(width(6), width(1), 0.05) << "copies of a question's row tell nothing new";
}

TEST(OffTargets, ShowWhatElseRose) {
  const auto results = made_up();
  ReadingJudge judge;
  const auto tables = off_target(results, prompts(), two(), judge, {.questions = 6});
  ASSERT_EQ(tables.size(), 2u);
  const auto& steer = tables[1];
  EXPECT_EQ(steer.arm, "steer");
  EXPECT_EQ(steer.rise[0][0].mean, 3);  // asked funny, shown funny: 4 - 1
  EXPECT_EQ(steer.rise[1][0].mean, 3) << "asked to be technical, it became funny";
  EXPECT_EQ(steer.rise[1][1].mean, 0);
  EXPECT_EQ(tables[0].rise[0][1].mean, 0);
  EXPECT_EQ(steer.rise[0][0].n, 6);
  EXPECT_NE(steer.markdown().find("| technical | +3.00"), std::string::npos) << steer.markdown();
}

TEST(Ensembles, AverageAndMeasureOneThing) {
  const auto one = std::make_shared<ReadingJudge>(), other = std::make_shared<ReadingJudge>();
  const auto both = ensemble_judge({one, other});
  const JudgeRequest request{"?", "good=3", &two()[0]};
  EXPECT_EQ(both->judge(Rubric::coherence, {&request, 1})[0].score, 3);
  EXPECT_EQ(both->identity(), "mean of reading and reading");
  EXPECT_STEER_ERROR(ensemble_judge({}), ErrorCode::argument, "at least one");
}

TEST(Labels, PagesAreBlindAndComeBack) {
  test::TempDir dir;
  auto results = made_up();
  results[0].response = "</script><b>funny=1</b> \xff";
  EXPECT_EQ(write_label_page(results, prompts(), two(), dir / "label", {.answers = 30}), 30) << "10 cells of 3 arms";
  const std::string page = test::read_file(dir / "label/label.html"),
                    key = test::read_file(dir / "label/label-key.csv");
  for (const char* arm : {"control", "steer"}) EXPECT_EQ(page.find(arm), std::string::npos) << arm;
  EXPECT_EQ(page.find("@"), std::string::npos) << "every mark is replaced";
  for (const char* outside : {"src=", "href=\"http", "@import", "url("})
    EXPECT_EQ(page.find(outside), std::string::npos);
  std::size_t ends = 0;
  for (auto at = page.find("</script>"); at != std::string::npos; at = page.find("</script>", at + 1)) ++ends;
  EXPECT_EQ(ends, 2u) << "no response ends the script";
  test::TempDir again;
  write_label_page(results, prompts(), two(), again.path(), {.answers = 30});
  EXPECT_EQ(test::read_file(again / "label.html"), page);

  // A person who sees what the responses state, and leaves one out.
  const auto begin = page.find("id=\"items\">") + 11;
  const auto items = nlohmann::json::parse(page.substr(begin, page.find("</script>", begin) - begin));
  std::string csv = "item,behaviour,coherence\n";
  for (const auto& item : items) {
    const bool funny = item.at("request") == two()[0].instruction;
    const double b = level(item.at("response"), funny ? "funny" : "technical");
    csv += format_text("{},{},{}\n", item.at("item").get<std::string>(), b, item.at("item") == "3" ? "" : "4");
  }
  std::ofstream(dir / "labels.csv") << csv;
  EXPECT_EQ(import_labels(results, dir / "labels.csv", dir / "label/label-key.csv"), 59);
  for (auto& row : results) {
    if (row.scores.contains("human_behaviour")) {
      EXPECT_EQ(row.scores.at("human_behaviour"), level(row.response, row.behaviour));
    }
    row.scores["behaviour"] = level(row.response, row.behaviour) + 0.5;  // a judge that is too kind, evenly
  }
  const auto estimates = label_estimates(results, "behaviour");
  ASSERT_EQ(estimates.size(), 3u);
  EXPECT_EQ(estimates[2].arm, "steer");
  EXPECT_EQ(estimates[2].value.rows, 24);
  EXPECT_EQ(estimates[2].value.labelled, 10);
  EXPECT_NEAR(estimates[2].value.label_only, 1.5, 1e-12) << "3 when asked to be funny, 0 when technical";

  std::ofstream(dir / "bad.csv") << "item,behaviour,coherence\n999,3,3\n";
  EXPECT_STEER_ERROR(import_labels(results, dir / "bad.csv", dir / "label/label-key.csv"), ErrorCode::format,
                     "\"999\"");
  std::ofstream(dir / "bad.csv") << "item,behaviour,coherence\n1,6,3\n";
  EXPECT_STEER_ERROR(import_labels(results, dir / "bad.csv", dir / "label/label-key.csv"), ErrorCode::format, "\"6\"");
}

}  // namespace
}  // namespace steer
