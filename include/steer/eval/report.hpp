#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <steer/eval/analysis.hpp>
#include <steer/eval/off_target.hpp>
#include <steer/eval/pairwise.hpp>
#include <steer/eval/questions.hpp>
#include <steer/eval/results.hpp>
#include <steer/steering/steering.hpp>

namespace steer {

/// What a report says of an arm besides its numbers.
struct ArmNote {
  std::string name;
  std::string description;  ///< one line
  std::string hash;         ///< of all that defines it
  std::string family;       ///< arms of one family differ in strength only: they form a strength curve
  double strength = 0;
  bool prompted = false;     ///< the system prompt asked for the behaviour
  bool placebo = false;      ///< steered by as much in a direction that has nothing to do with the behaviour
  std::string draw_of = {};  ///< arms whose searches differ in the seed only carry one name
};

/// Results, their analysis, and the files that show them. The files hold nothing that changes from run to run (no
/// times, no paths): equal results give equal bytes.
struct Report {
  std::string title = "What does steering cost?";
  std::vector<ResultRow> results;
  Analysis analysis;
  std::vector<Question> questions;  ///< for the sample answers
  std::vector<ArmNote> arms;
  std::string settings;                              ///< JSON of everything the run depends on
  std::vector<std::string> notes;                    ///< caveats, shown beside the verdict
  std::vector<std::string> warnings = {};            ///< of the steerings; shown before the notes, printed by programs
  std::map<std::string, std::string> withheld = {};  ///< measures that no verdict may rest on, with the reason
  std::vector<OffTarget> off_target = {};  ///< which other behaviours rose, an arm each; empty where not judged
  std::optional<PairTable> pairs = {};     ///< answers compared with the baseline's; none: not done
  std::vector<std::filesystem::path> journals = {};  ///< of a run: the files its results come from; not in the page
  /// What searches found, by arm and behaviour.
  std::map<std::string, std::map<std::string, Steering>> steerings = {};

  /// Writes `file` (one page, no outside resources; light and dark, phone and desk) and beside it report.md,
  /// results.csv, results.jsonl and what was found as steerings/ARM/BEHAVIOUR.json. Each file is complete or absent: it
  /// is written under another name and renamed.
  /// @throws Error(io) for a folder that cannot be written.
  void write(const std::filesystem::path& file) const;
  /// One plain sentence: what was gained and what it cost, or that neither can be told from chance.
  std::string headline() const;
  /// What the sentence stands on, a line each, every number with its interval; differences with intervals that hold for
  /// all arms together (Simultaneous), since the best of several was looked for.
  std::vector<std::string> findings() const;
  /// Headline and findings as text.
  std::string verdict() const;
  std::string html() const;
  std::string markdown() const;
};

/// A report on results from anywhere: a run, a file of the journal's results, another project's rows.
Report make_report(std::vector<ResultRow> results, const AnalysisOptions& options = {});

}  // namespace steer
