// Statistics and a report for answers that exist already: another project's rows, or a results.jsonl of steer.
//
//   reanalyse --out report.html --rename qid=question,behaviour_score=score_behaviour,coherence=score_coherence
//   rows.csv

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <steer/eval/report.hpp>

int main(int argc, char** argv) {
  CLI::App app("Statistics and a report for answers that exist already");
  std::vector<std::string> files, renames;
  std::string out = "report.html", baseline = "control", title = "Re-analysis";
  app.add_option("files", files,
                 "CSV files with a header (arm, behaviour, question, response, score_...) or steer's results.jsonl")
      ->required()
      ->check(CLI::ExistingFile);
  app.add_option("--rename", renames, "columns of other names, as theirs=ours")->delimiter(',');
  app.add_option("--baseline", baseline, "the arm that all others are compared with")->capture_default_str();
  app.add_option("--title", title, "of the report")->capture_default_str();
  app.add_option("--out", out, "the report; report.md and results.* go beside it")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    std::map<std::string, std::string> columns;
    for (const auto& rename : renames)
      columns[rename.substr(0, rename.find('='))] = rename.substr(rename.find('=') + 1);
    std::vector<steer::ResultRow> results;
    for (const auto& file : files) {
      auto rows = file.ends_with(".jsonl") ? steer::load_results(file) : steer::load_results_csv(file, columns);
      results.insert(results.end(), rows.begin(), rows.end());
    }
    steer::Report report = steer::make_report(std::move(results), {.baseline = baseline});
    report.title = title;
    report.write(out);
    fmt::print("{}\n\n{}\n", report.verdict(), out);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
