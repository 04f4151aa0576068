#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <fstream>

#include <steer/core/random.hpp>
#include <steer/eval/report.hpp>

#include "paper_data.hpp"

namespace steer {
namespace {

TEST(Tradeoffs, FrontAndHypervolumeByHand) {
  const std::vector<TradeoffPoint> points{{"a", 0.8, 2, 5}, {"b", 0.6, 4, 5}, {"c", 0.5, 3, 5},
                                          {"d", 0.6, 4, 1}, {"e", NAN, 5, 5}, {"f", 0.7, 2, 5}};
  EXPECT_EQ(pareto_front(points), (std::vector<std::size_t>{0, 1}));
  // Strips over behaviour: 1 to 2 at accuracy .8, 2 to 4 at .6; of a plane 4 high.
  EXPECT_NEAR(hypervolume(points), (0.8 * 1 + 0.6 * 2) / 4, 1e-12);
  EXPECT_EQ(hypervolume({}), 0);
  const std::vector<TradeoffPoint> perfect{{"p", 1, 5, 5}};
  EXPECT_DOUBLE_EQ(hypervolume(perfect), 1);
}

/// A made-up study with known effects: "steer" adds 1.5 of behaviour and loses 20 points, "prompt" adds 0.5 and loses
/// none.
std::vector<Result> made_up(int questions, const std::vector<std::string>& behaviours) {
  std::vector<Result> results;
  for (const std::string arm : {"control", "prompt", "steer"})
    for (const auto& behaviour : behaviours)
      for (int q = 0; q < questions; ++q) {
        Rng rng(derive_seed(5, arm + behaviour, static_cast<std::uint64_t>(q)));
        Rng shared(derive_seed(5, "question", static_cast<std::uint64_t>(q)));
        Result r{.arm = arm, .behaviour = behaviour, .question = "q" + std::to_string(q), .gold = "A"};
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
  const auto results = made_up(150, {"funny", "concise"});
  const Analysis a = analyse(results);
  EXPECT_EQ(a.arms, (std::vector<std::string>{"control", "prompt", "steer"}));
  const auto* steered = a.comparison("steer", "accuracy");
  ASSERT_NE(steered, nullptr);
  EXPECT_EQ(steered->difference.clusters, 150);
  EXPECT_LT(steered->difference.interval.high, 0);
  EXPECT_LT(steered->p, 0.001);
  EXPECT_GT(steered->p_non_inferior, 0.5);
  const auto* prompted = a.comparison("prompt", "accuracy");
  EXPECT_EQ(prompted->difference.mean, 0) << "the same questions are right";
  EXPECT_EQ(prompted->p, 1);
  EXPECT_LT(prompted->p_non_inferior, 0.05);
  const auto* funny = a.comparison("steer", "behaviour", "funny");
  EXPECT_NEAR(funny->difference.mean, 1.5, 0.2);
  EXPECT_EQ(funny->test, "Wilcoxon signed rank");
  EXPECT_EQ(a.comparison("steer", "accuracy", "funny")->test, "exact McNemar");
  EXPECT_GE(funny->p_holm, funny->p);
  EXPECT_EQ(a.cell("control", "funny").format.n, 150);
  EXPECT_LT(a.cell("control").format.value, 1);
  EXPECT_GT(a.cell("control").accuracy_given_format.value, a.cell("control").accuracy.value);

  const Tradeoff& all = a.tradeoffs.back();
  EXPECT_EQ(all.behaviour, "");
  EXPECT_EQ(all.within_accuracy.arm, "prompt") << "steer costs more than 2 points";
  EXPECT_NEAR(all.within_accuracy.gain, 0.5, 0.1);
  EXPECT_LT(all.within_accuracy.interval.low, all.within_accuracy.gain);
  EXPECT_EQ(all.within_accuracy_and_coherence.arm, "prompt");
  ASSERT_EQ(all.front.size(), 2u);
}

TEST(Analyses, MissingJudgementsAreBoundedNotDropped) {
  auto results = made_up(10, {"funny"});
  results[0].scores.erase("behaviour");
  results[0].failed["behaviour"] = "no score";
  const auto& stats = analyse(results).cell("control", "funny").scores.at("behaviour");
  EXPECT_EQ(stats.summary.n, 9);
  EXPECT_EQ(stats.missing, 1);
  EXPECT_NEAR(stats.worst, (stats.summary.mean * 9 + 1) / 10, 1e-12);
  EXPECT_NEAR(stats.best, (stats.summary.mean * 9 + 5) / 10, 1e-12);
  EXPECT_EQ(analyse(results).cell("control", "funny").accuracy.n, 10);
}

TEST(Analyses, RefusesWhatCannotBeJoined) {
  auto results = made_up(3, {"funny"});
  EXPECT_STEER_ERROR(analyse({}), ErrorCode::argument, "none");
  results.push_back(results[0]);
  EXPECT_STEER_ERROR(analyse(results), ErrorCode::argument, "control|funny|q0");
  results.pop_back();
  EXPECT_STEER_ERROR(analyse(results, {.baseline = "nobody"}), ErrorCode::argument, "nobody");
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
  EXPECT_NE(report.verdict().find("from prompt"), std::string::npos) << report.verdict();
}

TEST(Reports, WithoutGnuplotTheTablesRemain) {
  const std::string path = std::getenv("PATH");
  setenv("PATH", "/nonexistent", 1);
  const std::string page = make_report(made_up(10, {"funny"})).html();
  setenv("PATH", path.c_str(), 1);
  EXPECT_NE(page.find("gnuplot could not be run"), std::string::npos);
  EXPECT_NE(page.find("<table>"), std::string::npos);
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
