#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace steer {

/// One answer of one arm to one question under one behaviour, with all that was measured on it. Scores go by name, so
/// that judges and metrics can be added without changing the format; a score that is absent was not measured.
struct ResultRow {
  std::string arm{};
  std::string behaviour{};
  std::string question{};                     ///< id
  std::string gold = {};                      ///< the right letter; empty for open prompts
  std::string response = {};                  ///< empty when only letter likelihoods were read
  std::string answer = {};                    ///< by the strict rule; empty when there is none
  std::string answer_lenient = {};            ///< by the lenient rule
  bool truncated = false;                     ///< stopped at the token limit
  std::int64_t tokens = 0;                    ///< generated
  std::map<std::string, double> scores = {};  ///< "behaviour", "coherence" (1 to 5), "nll", "kl", "repetition", ...
  std::map<std::string, std::string> failed = {};  ///< scores whose judgement failed, with the reason
  std::map<std::string, double> edits = {};        ///< audit: "seen", "edited", "mean_change", "max_change"

  /// Identifies the row: results are joined by it.
  std::string key() const { return arm + "|" + behaviour + "|" + question; }
  bool correct() const { return !gold.empty() && answer == gold; }
  friend bool operator==(const ResultRow&, const ResultRow&) = default;
};

/// One line of results.jsonl; `result_from_json` reads it back.
void to_json(nlohmann::ordered_json& json, const ResultRow& result);
/// @throws Error(format) for a key of the wrong type.
ResultRow result_from_json(const nlohmann::ordered_json& json);

/// One result a line. @throws Error(io | format), naming the line.
std::vector<ResultRow> load_results(const std::filesystem::path& jsonl);
/// Writes what `load_results` reads. @throws Error(io).
void save_results(const std::vector<ResultRow>& results, const std::filesystem::path& jsonl);
/// The table for spreadsheets: one row a result, one column `score_<name>` a score. @throws Error(io).
void save_results_csv(const std::vector<ResultRow>& results, const std::filesystem::path& csv);
/// Rows from a CSV with a header: `arm`, `behaviour`, `question`, and where present `gold`, `response`, `answer`,
/// `answer_lenient`, `truncated`, `tokens` and `score_<name>`, as spreadsheets and data frames write them: letters in
/// any case or indices from 0, true or false in any spelling, "nan" or nothing for what was not measured. Letters are
/// read from the response where the file has no column for them.
/// @param columns  what columns of other names are: {"qid", "question"}.
/// @throws Error(io | format), naming row (from 1, below the header), column and value: nothing unreadable is guessed.
std::vector<ResultRow> load_results_csv(const std::filesystem::path& csv,
                                        const std::map<std::string, std::string>& columns = {});

/// Adds scores given by people (or any other source): a CSV with the header `arm,behaviour,question,score` and, if the
/// scores are of several kinds, `name`; else they are called `name`. Returns how many rows were matched.
/// @throws Error(io | format) naming the line: a missing column, no number, a row that no result has or that comes
/// twice.
std::int64_t import_scores(std::vector<ResultRow>& results, const std::filesystem::path& csv, std::string_view name);

}  // namespace steer
