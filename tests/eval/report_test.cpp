#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include <steer/core/random.hpp>
#include <steer/eval/report.hpp>

#include "core/format_text.hpp"
#include "core/svg.hpp"
#include "eval/report/mustache.hpp"
#include "eval/report/report_parts.hpp"
#include "paper_data.hpp"

namespace steer {
namespace {

TEST(Tradeoffs, FrontAndHypervolumeByHand) {
  const std::vector<TradeoffPoint> points{{"a", 0.8, 2, 5}, {"b", 0.6, 4, 5}, {"c", 0.5, 3, 5},
                                          {"d", 0.6, 4, 1}, {"e", NAN, 5, 5}, {"f", 0.7, 2, 5}};
  EXPECT_EQ(pareto_front(points), (std::vector<std::size_t>{0, 1}));
  // Strips over behaviour: 1 to 2 at accuracy .8, 2 to 4 at .6; of a plane 4 high.
  EXPECT_NEAR(hypervolume(points, 0), (0.8 * 1 + 0.6 * 2) / 4, 1e-12);
  EXPECT_NEAR(hypervolume(points, 0.5), (0.3 * 1 + 0.1 * 2) / 4 / 0.5, 1e-12) << "what is above the reference counts";
  EXPECT_EQ(hypervolume(points, 0.9), 0);
  EXPECT_EQ(hypervolume({}, 0), 0);
  const std::vector<TradeoffPoint> perfect{{"p", 1, 5, 5}};
  EXPECT_DOUBLE_EQ(hypervolume(perfect, 0.25), 1);
  EXPECT_STEER_ERROR(hypervolume(points, 1), ErrorCode::argument, "reference");
}

/// A made-up study with known effects: "steer" adds 1.5 of behaviour and loses 20 points, "prompt" adds 0.5 and loses
/// none.
std::vector<ResultRow> made_up(int questions, const std::vector<std::string>& behaviours) {
  std::vector<ResultRow> results;
  for (const std::string arm : {"control", "prompt", "steer"})
    for (const auto& behaviour : behaviours)
      for (int q = 0; q < questions; ++q) {
        Rng rng(derive_seed(5, arm + behaviour, static_cast<std::uint64_t>(q)));
        Rng shared(derive_seed(5, "question", static_cast<std::uint64_t>(q)));
        ResultRow r{.arm = arm, .behaviour = behaviour, .question = "q" + std::to_string(q), .gold = "A"};
        const double skill = shared.uniform();
        const bool right = skill < (arm == "steer" ? 0.5 : 0.7);
        r.answer = right ? "A" : skill > 0.95 ? "" : "B";
        r.answer_lenient = r.answer;
        r.response = "<thinking>" + arm + " & <b>bold</b></thinking><answer>" + r.answer + "</answer>";
        r.scores["behaviour"] = std::clamp(2 +
                                               (arm == "steer"    ? 1.5
                                                : arm == "prompt" ? 0.5
                                                                  : 0) +
                                               0.5 * rng.normal(),
                                           1.0, 5.0);
        r.scores["coherence"] = std::clamp((arm == "steer" ? 3.0 : 4.6) + 0.3 * rng.normal(), 1.0, 5.0);
        r.tokens = 20;
        if (arm == "steer") r.edits = {{"seen", 20}, {"edited", 18}, {"mean_change", 0.3}, {"max_change", 0.9}};
        results.push_back(std::move(r));
      }
  return results;
}

TEST(Analyses, FindsTheEffectsItWasGiven) {
  const auto results = made_up(250, {"funny", "concise"});
  const Analysis a = analyse_results(results);
  EXPECT_EQ(a.arms, (std::vector<std::string>{"control", "prompt", "steer"}));
  const auto* steered = a.comparison("steer", "accuracy");
  ASSERT_NE(steered, nullptr);
  EXPECT_EQ(steered->difference.clusters, 250);
  EXPECT_LT(steered->difference.interval.high, 0);
  EXPECT_LT(steered->p, 0.001);
  EXPECT_GT(steered->p_non_inferior, 0.5);
  const auto* prompted = a.comparison("prompt", "accuracy");
  EXPECT_EQ(prompted->difference.mean, 0) << "the same questions are right";
  EXPECT_EQ(prompted->p, 1);
  EXPECT_NEAR(prompted->p_non_inferior, std::pow(0.98, 250), 1e-9)
      << "rows of a question agree: 250 questions, none lost";
  EXPECT_NEAR(prompted->p_non_inferior_holm, 2 * std::pow(0.98, 250), 1e-9) << "the less certain of two by Holm";
  EXPECT_LT(prompted->difference.interval.low, 0) << "but 250 questions are no certainty";
  const auto* funny = a.comparison("steer", "behaviour", "funny");
  EXPECT_NEAR(funny->difference.mean, 1.5, 0.2);
  EXPECT_EQ(funny->test, "t, clustered by question");
  EXPECT_EQ(a.comparison("steer", "accuracy", "funny")->test, "score test (Tango)");
  EXPECT_GE(funny->p_holm, funny->p);
  EXPECT_EQ(a.cell("control", "funny").format.n, 250);
  EXPECT_LT(a.cell("control").format.value, 1);
  EXPECT_GT(a.cell("control").accuracy_given_format.value, a.cell("control").accuracy.value);

  const Tradeoff& all = a.tradeoffs.back();
  EXPECT_EQ(all.behaviour, "");
  EXPECT_EQ(all.within_accuracy.arm, "prompt") << "steer costs more than 2 points";
  EXPECT_NEAR(all.within_accuracy.gain, 0.5, 0.1);
  EXPECT_LT(all.within_accuracy.interval.low, all.within_accuracy.gain);
  EXPECT_EQ(all.within_accuracy_and_coherence.arm, "prompt");
  ASSERT_EQ(all.front.size(), 2u);
  EXPECT_EQ(all.within_limit, std::vector<std::string>{"prompt"});
  EXPECT_EQ(all.questions, 250);
  EXPECT_NEAR(all.reference, a.cell("control").accuracy.value - 0.1, 1e-12);
}

TEST(Analyses, LevelIsHonouredEverywhere) {
  const auto results = made_up(60, {"funny", "concise"});
  const Analysis usual = analyse_results(results), strict = analyse_results(results, {.level = 0.99});
  const auto wider = [](const Interval& strict, const Interval& usual) {
    return strict.low < usual.low && strict.high > usual.high;
  };
  for (std::size_t i = 0; i < usual.cells.size(); ++i) {
    EXPECT_TRUE(wider(strict.cells[i].accuracy.interval, usual.cells[i].accuracy.interval)) << usual.cells[i].arm;
    for (const auto& [name, stats] : usual.cells[i].scores)
      EXPECT_TRUE(wider(strict.cells[i].scores.at(name).interval, stats.interval)) << usual.cells[i].arm << name;
  }
  for (std::size_t i = 0; i < usual.comparisons.size(); ++i) {
    EXPECT_TRUE(wider(strict.comparisons[i].difference.interval, usual.comparisons[i].difference.interval)) << i;
    EXPECT_TRUE(wider(strict.comparisons[i].simultaneous, usual.comparisons[i].simultaneous)) << i;
  }
  EXPECT_GT(strict.tradeoffs.back().safest_bound, usual.tradeoffs.back().safest_bound);
}

TEST(Analyses, IntervalAndTestOfAComparisonAreOneRule) {
  for (const int questions : {8, 30, 90})
    for (const auto& c : analyse_results(made_up(questions, {"funny", "concise"})).comparisons) {
      const auto& d = c.difference.interval;
      EXPECT_EQ(d.low > 0 || d.high < 0, c.p < 0.05) << c.arm << " " << c.measure << " " << c.behaviour << " " << c.p;
      EXPECT_EQ(c.simultaneous.low > 0 || c.simultaneous.high < 0, c.p_simultaneous < 0.05) << c.arm << c.measure;
      EXPECT_GE(c.p_simultaneous, c.p);
      EXPECT_LT(d.low, d.high) << "no interval of no width";
    }
}

/// "steer" steers one behaviour of two; under the other its answers are the baseline's.
std::vector<ResultRow> half_steered(int questions) {
  std::vector<ResultRow> results;
  for (auto r : made_up(questions, {"funny", "concise"})) {
    if (r.arm == "prompt") continue;
    if (r.arm == "steer" && r.behaviour == "concise") {
      const std::string arm = r.arm;
      const auto base = std::find_if(results.begin(), results.end(), [&](const ResultRow& b) {
        return b.arm == "control" && b.behaviour == r.behaviour && b.question == r.question;
      });
      r = *base;
      r.arm = arm;
    }
    results.push_back(std::move(r));
  }
  return results;
}

TEST(Analyses, SteeredRowsStandApartAndUnsteeredOnesSaySo) {
  const Analysis a = analyse_results(half_steered(60));
  const auto* untouched = a.comparison("steer", "behaviour", "concise");
  ASSERT_NE(untouched, nullptr);
  EXPECT_TRUE(untouched->unsteered());
  EXPECT_EQ(untouched->test, "none: unsteered, the baseline's own answers");
  EXPECT_TRUE(a.comparison("steer", "accuracy", "concise")->unsteered());
  EXPECT_FALSE(a.comparison("steer", "behaviour", "funny")->unsteered());
  ASSERT_NE(a.steered_cell("steer"), nullptr);
  EXPECT_EQ(a.steered_cell("control"), nullptr);
  EXPECT_EQ(a.steered_cell("steer")->n, 60);
  EXPECT_EQ(a.cell("steer").n, 120);
  const auto *all = a.comparison("steer", "behaviour"), *steered = a.steered_comparison("steer", "behaviour");
  EXPECT_NEAR(all->difference.mean, steered->difference.mean / 2, 1e-12) << "unsteered rows dilute it";
  const std::string page = make_report(half_steered(60)).html();
  EXPECT_NE(page.find("steered rows"), std::string::npos);
  EXPECT_NE(page.find("unsteered: the same answers"), std::string::npos);
}

// Answers given by letters have no text: the letters' probabilities say whether they are one answer.
TEST(Analyses, WithoutTextEqualLettersAreTheSameAnswer) {
  const auto rows = [](const char* score) {
    std::vector<ResultRow> results;
    for (const std::string arm : {"control", "other"})
      for (int q = 0; q < 20; ++q) {
        ResultRow r{.arm = arm, .behaviour = "", .question = "q" + std::to_string(q), .gold = "A", .answer = "A"};
        r.answer_lenient = r.answer;
        r.scores[score] = 0.3;
        results.push_back(std::move(r));
      }
    return results;
  };
  EXPECT_TRUE(analyse_results(rows("p_gold")).comparison("other", "accuracy")->unsteered());
  EXPECT_FALSE(analyse_results(rows("something else")).comparison("other", "accuracy")->unsteered())
      << "neither text nor letters: nothing says that they are one";
}

// Behaviours that differ: questions alone promise too much of the next behaviour.
TEST(Analyses, IntervalsOverBehavioursCoverWhatAnotherBehaviourWouldShow) {
  constexpr int kStudies = 200, kBehaviours = 8, kQuestions = 30;
  int covered = 0, by_questions = 0;
  for (int s = 0; s < kStudies; ++s) {
    Rng rng(derive_seed(31, "behaviours", static_cast<std::uint64_t>(s)));
    std::vector<double> question(kQuestions);
    for (double& x : question) x = 0.3 * rng.normal();
    std::vector<ResultRow> results;
    for (int b = 0; b < kBehaviours; ++b) {
      const double gain = 0.8 + 0.4 * rng.normal();
      for (int q = 0; q < kQuestions; ++q)
        for (const char* arm : {"control", "steer"}) {
          results.push_back({.arm = arm, .behaviour = format_text("b{}", b), .question = format_text("q{}", q)});
          auto& row = results.back();
          row.response = format_text("{} {} {}", arm, b, q);
          row.scores["behaviour"] = 2 + 0.5 * rng.normal();
          if (row.arm == "steer") row.scores["behaviour"] += gain + question[static_cast<std::size_t>(q)];
        }
    }
    const Analysis a = analyse_results(results, {.draws = 50, .bootstrap = {.draws = 5}});
    const auto* c = a.comparison("steer", "behaviour");
    ASSERT_NE(c, nullptr);
    covered += c->over_behaviours.low <= 0.8 && 0.8 <= c->over_behaviours.high;
    by_questions += c->difference.interval.low <= 0.8 && 0.8 <= c->difference.interval.high;
    EXPECT_TRUE(std::isnan(a.comparison("steer", "behaviour", "b0")->over_behaviours.low)) << "one behaviour alone";
  }
  EXPECT_GT(covered, 0.9 * kStudies);
  EXPECT_LT(covered, 0.995 * kStudies);
  EXPECT_LT(by_questions, 0.7 * kStudies) << "what the other interval is for";
}

TEST(Reports, BehavioursAtLargeAreSpokenOf) {
  const Report report = make_report(made_up(30, {"funny", "concise"}));
  EXPECT_NE(report.verdict().find("If the 2 behaviours are a sample"), std::string::npos) << report.verdict();
  EXPECT_NE(report.html().find("any behaviours: "), std::string::npos);
  EXPECT_EQ(make_report(made_up(30, {"funny"})).html().find("any behaviours: "), std::string::npos);
}

TEST(Reports, WhatRoundsToNothingHasNoSign) {
  EXPECT_EQ(eval::detail::number(-0.001, 2), "0.00");
  EXPECT_EQ(eval::detail::number(-0.006, 2), "-0.01");
  EXPECT_EQ(eval::detail::number(NAN, 2), "-");
  EXPECT_EQ(eval::detail::signed_number(0.001, 2), "0.00");
  EXPECT_EQ(eval::detail::signed_number(-0.001, 2), "0.00");
  EXPECT_EQ(eval::detail::signed_number(0.5, 1), "+0.5");
  auto results = made_up(30, {"funny"});
  for (auto& r : results)
    if (r.arm == "steer")
      r.scores["behaviour"] = 2 - 1e-6;
    else
      r.scores["behaviour"] = 2;
  const std::string page = make_report(results).markdown();
  EXPECT_EQ(page.find("-0.00"), std::string::npos) << page;
}

TEST(Reports, OffTargetTablesAndComparisonsAreInThePage) {
  auto results = made_up(30, {"funny", "concise"});
  for (auto& r : results)
    if (r.arm != "control") r.scores["win_behaviour"] = r.arm == "steer" ? 1 : 0.5;
  Report report = make_report(results);
  ASSERT_TRUE(report.pairs.has_value());
  EXPECT_EQ(report.pairs->behaviour.size(), 2u);
  OffTarget table{.arm = "steer", .behaviours = {"funny", "concise"}, .rise = {}};
  const auto cell = [](double mean, double p) {
    ClusteredMean made;
    made.n = 9;
    made.mean = mean;
    made.p = p;
    return made;
  };
  table.rise = {{cell(1.25, 0.001), cell(0.75, 0.001)}, {cell(-0.5, 0.02), cell(-0.001, 1)}};
  report.off_target = {table};
  const std::string text = report.markdown(), page = report.html();
  EXPECT_NE(text.find("## Which other behaviours rose"), std::string::npos);
  EXPECT_NE(text.find("| funny | **+1.25*** | +0.75* |"), std::string::npos) << text;
  EXPECT_NE(text.find("| concise | -0.50 | **0.00** |"), std::string::npos) << "beyond chance after Bonferroni only";
  EXPECT_NE(text.find("## Answers compared with control's"), std::string::npos);
  EXPECT_NE(text.find("| steer | 100.0"), std::string::npos) << text;
  EXPECT_NE(page.find("<td class=\"up\"><b>+1.25</b></td>"), std::string::npos);
  EXPECT_NE(page.find("Answers compared"), std::string::npos);
  EXPECT_EQ(page.find("{{"), std::string::npos) << "every tag is filled";
}

TEST(Analyses, ASweepOnFewQuestionsIsComparedWithTheSameQuestions) {
  auto results = made_up(60, {"funny"});
  std::erase_if(results, [](const ResultRow& r) { return r.arm == "prompt" && r.question > "q3"; });
  const Analysis a = analyse_results(results);
  EXPECT_LT(a.comparison("prompt", "accuracy")->difference.n, 48);
  const auto& t = a.tradeoffs.back();
  EXPECT_EQ(t.points.size(), 2u) << "and is no point of the trade-off";
  EXPECT_EQ(t.questions, 60);
  EXPECT_NE(make_report(results).html().find("control there"), std::string::npos);
}

TEST(Analyses, MissingJudgementsAreBoundedNotDropped) {
  auto results = made_up(10, {"funny"});
  results[0].scores.erase("behaviour");
  results[0].failed["behaviour"] = "no score";
  const auto stats = analyse_results(results).cell("control", "funny").scores.at("behaviour");
  EXPECT_EQ(stats.summary.n, 9);
  EXPECT_EQ(stats.missing, 1);
  EXPECT_NEAR(stats.worst, (stats.summary.mean * 9 + 1) / 10, 1e-12);
  EXPECT_NEAR(stats.best, (stats.summary.mean * 9 + 5) / 10, 1e-12);
  EXPECT_EQ(analyse_results(results).cell("control", "funny").accuracy.n, 10);
}

TEST(Analyses, RefusesWhatCannotBeJoined) {
  auto results = made_up(3, {"funny"});
  EXPECT_STEER_ERROR(analyse_results({}), ErrorCode::argument, "none");
  results.push_back(results[0]);
  EXPECT_STEER_ERROR(analyse_results(results), ErrorCode::argument, "control|funny|q0");
  results.pop_back();
  EXPECT_STEER_ERROR(analyse_results(results, {.baseline = "nobody"}), ErrorCode::argument, "nobody");
}

TEST(Reports, FilesAreCompleteEscapedAndRepeatable) {
  test::TempDir dir;
  Report report = make_report(made_up(30, {"funny", "concise"}));
  report.settings = R"({"seed": 5})";
  report.notes = {"made up <for> a test"};
  report.write(dir / "one" / "report.html");
  report.write(dir / "two" / "report.html");
  for (const char* name : {"report.html", "report.md", "results.csv", "results.jsonl"}) {
    EXPECT_FALSE(test::read_file(dir / "one" / name).empty()) << name;
    EXPECT_EQ(test::read_file(dir / "one" / name), test::read_file(dir / "two" / name)) << name;
  }
  const std::string page = test::read_file(dir / "one" / "report.html");
  EXPECT_EQ(page.find("<b>bold"), std::string::npos) << "responses must be escaped";
  EXPECT_NE(page.find("made up &lt;for&gt; a test"), std::string::npos);
  for (const char* outside : {"src=", "href=\"http", "@import", "url("})
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
  EXPECT_EQ(load_results(dir / "one" / "results.jsonl"), report.results);
  EXPECT_NE(report.verdict().find("Most behaviour is gained by steer"), std::string::npos) << report.verdict();
  EXPECT_NE(report.verdict().find("No arm's loss of accuracy is shown to be below 2.0 points with 30 questions"),
            std::string::npos)
      << report.verdict();
  EXPECT_EQ(report.verdict().substr(0, report.verdict().find('\n')), report.headline());
  EXPECT_TRUE(report.headline().starts_with("steer shows more of the behaviour than control (+1."))
      << report.headline();
}

TEST(Reports, WhatIsRuledOutIsSoForAllArmsTogether) {
  // None of the prompt's answers is lost: p = .98^n alone, twice that beside a second arm of the same answers.
  const auto verdict = [](int questions) {
    std::vector<ResultRow> rows;
    for (const auto& row : made_up(questions, {"funny", "concise"})) {
      if (row.arm == "steer") continue;
      rows.push_back(row);
      if (row.arm != "prompt") continue;
      rows.push_back(row);
      rows.back().arm = "twin";
    }
    return make_report(rows).verdict();
  };
  const std::string certain = verdict(250), alone = verdict(171);
  EXPECT_NE(certain.find("no loss of 2.0 points or more"), std::string::npos) << certain;
  EXPECT_EQ(alone.find("no loss of 2.0 points or more"), std::string::npos) << alone;
  EXPECT_NE(alone.find("excluded for this arm by itself, not for all arms together"), std::string::npos) << alone;
}

TEST(Reports, DrawsOfOneMethodAreSpreadApart) {
  std::vector<ResultRow> results;
  for (auto r : made_up(60, {"funny"})) {
    if (r.arm == "prompt") continue;
    results.push_back(r);
    if (r.arm != "steer") continue;
    r.arm = "steer, draw 2";
    r.scores["behaviour"] -= 0.5;  // the second search found half a point less, at every question
    results.push_back(r);
  }
  Report report = make_report(results);
  EXPECT_EQ(report.verdict().find("draws of"), std::string::npos) << "arms are no draws unless they say so";
  for (auto& note : report.arms)
    if (note.name != "control") note.draw_of = "steer";
  const std::string verdict = report.verdict();
  EXPECT_NE(verdict.find("Over 2 draws of steer and the questions: "), std::string::npos) << verdict;
  EXPECT_NE(verdict.find("of behaviour, draws apart by a standard deviation of 0.35"), std::string::npos)
      << "half a point between two: " << verdict;
  EXPECT_NE(verdict.find("of accuracy, draws apart by a standard deviation of 0.0"), std::string::npos) << verdict;
}

TEST(Reports, LettersAloneLeaveNothingEmpty) {
  auto results = made_up(40, {"funny"});
  std::erase_if(results, [](const ResultRow& r) { return r.arm == "prompt"; });
  for (auto& r : results) {
    r.response.clear();
    r.scores = {{"p_gold", 0.5}, {"p_letters", 0.9}};
  }
  const Report report = make_report(results);
  const std::string page = report.html();
  EXPECT_EQ(page.find("<svg"), std::string::npos) << "no plot without behaviour scores";
  EXPECT_EQ(page.find(">-<"), std::string::npos) << "no column of nothing";
  EXPECT_EQ(page.find("coherence 1 to 5"), std::string::npos);
  EXPECT_NE(report.verdict().find("The least accurate arm is steer: -"), std::string::npos) << report.verdict();
  for (auto& r : results)
    if (r.arm == "steer") r.answer = "A";
  const Report better = make_report(results);
  EXPECT_NE(better.verdict().find("No arm is less accurate than control"), std::string::npos) << "a gain is no loss";
  EXPECT_EQ(better.headline(), "No arm is right less often than control beyond chance.");
}

TEST(Reports, TemplatesAreFilled) {
  using eval::detail::render;
  const eval::detail::Rendering plain{.escape = [](std::string_view text) { return core::detail::escape_markup(text); },
                                      .partial = [](std::string_view name) { return name == "row" ? "[{{.}}]" : "?"; }};
  const nlohmann::ordered_json data{{"name", "a<b"},
                                    {"none", nullptr},
                                    {"yes", true},
                                    {"list", {1, 2}},
                                    {"empty", nlohmann::ordered_json::array()},
                                    {"in", {{"name", "inner"}}}};
  const auto filled = [&](std::string_view text) { return render(text, data, plain); };
  EXPECT_EQ(filled("{{name}} {{{name}}} {{absent}}|"), "a&lt;b a<b |");
  EXPECT_EQ(filled("{{#list}}{{>row}}{{/list}}{{#empty}}x{{/empty}}{{^empty}}none{{/empty}}"), "[1][2]none");
  EXPECT_EQ(filled("{{#in}}{{name}} {{yes}}{{/in}}{{#none}}x{{/none}}"), "inner true");
  EXPECT_EQ(filled("a\n{{#list}}\n- {{.}}\n{{/list}}\nb\n"), "a\n- 1\n- 2\nb\n") << "tags' lines leave nothing";
  EXPECT_STEER_ERROR(filled("{{#list}}x"), ErrorCode::format, "list");
  EXPECT_STEER_ERROR(filled("{{name"), ErrorCode::format, "}}");
}

TEST(Reports, UnwritableFolderIsAClearError) {
  test::TempDir dir;
  std::ofstream(dir / "file") << "x";
  EXPECT_STEER_ERROR(make_report(made_up(5, {"funny"})).write(dir / "file" / "report.html"), ErrorCode::io, "file");
}

TEST(Reports, FullDiskKeepsTheOldFilesAndSaysSo) {
  test::TempDir dir;
  const Report report = make_report(made_up(40, {"funny"}));
  report.write(dir / "report.html");
  const std::string page = test::read_file(dir / "report.html"), rows = test::read_file(dir / "results.jsonl");
  // A file size limit stands in for a full disk: writing fails in the middle.
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  for (const rlim_t limit : {rlim_t{100}, static_cast<rlim_t>(std::min(rows.size(), page.size()) - 1)}) {
    const rlimit small{limit, old.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
    EXPECT_STEER_ERROR(report.write(dir / "report.html"), ErrorCode::io, "disk");
    setrlimit(RLIMIT_FSIZE, &old);
    EXPECT_EQ(test::read_file(dir / "report.html"), page);
    EXPECT_EQ(test::read_file(dir / "results.jsonl"), rows);
    for (const auto& entry : std::filesystem::directory_iterator(dir.path()))
      EXPECT_NE(entry.path().extension(), ".part");
  }
  report.write(dir / "report.html");
  EXPECT_EQ(test::read_file(dir / "report.html"), page) << "with room again it is written";
}

TEST(Reports, ReadOnlyFolderIsAClearError) {
  // Also for root, whom permissions do not stop.
  EXPECT_STEER_ERROR(make_report(made_up(5, {"funny"})).write("/proc/steer/report.html"), ErrorCode::io, "/proc/steer");
  EXPECT_STEER_ERROR(make_report(made_up(5, {"funny"})).write("/proc/report.html"), ErrorCode::io, "/proc/");
}

}  // namespace
}  // namespace steer
