#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <steer/eval/behaviours.hpp>
#include <steer/eval/results.hpp>
#include <steer/stats/prediction_powered.hpp>

namespace steer {

struct LabelOptions {
  std::int64_t answers = 60;        ///< about so many, whole cells (question and behaviour) of all arms
  std::vector<std::string> arms{};  ///< whose answers are shown; empty: all
  std::uint64_t seed = 42;
};

/// Writes a page on which a person scores answers without knowing whose they are, and the key to it.
///
/// `label.html` (one page, no outside resources) shows one answer at a time with its question and the behaviour, in
/// random order and without arms; keys 1 to 5 score behaviour, then coherence, Backspace goes back; what is scored
/// stays in the browser, so that the page can be closed and opened again; a button saves `labels.csv` (item, behaviour,
/// coherence). `label-key.csv` says which row each item is: not for the person who scores. Cells are drawn evenly over
/// behaviours, each with the answers of all arms, so that arms can be compared on the same questions.
/// @param prompts  of the questions, by id. @return how many answers are on the page.
/// @throws Error(argument) for a question or behaviour that is not given, or nothing to show; Error(io).
std::int64_t write_label_page(std::span<const ResultRow> results, const std::map<std::string, std::string>& prompts,
                              const std::vector<Behaviour>& behaviours, const std::filesystem::path& folder,
                              const LabelOptions& options = {});

/// Puts a person's scores into the rows as "human_behaviour" and "human_coherence". An item without a score is left
/// out.
/// @return how many scores were read. @throws Error(io | format), naming the row: an item that the key has not or that
/// comes twice, a key of other results, a score outside 1 to 5.
std::int64_t import_labels(std::vector<ResultRow>& results, const std::filesystem::path& labels,
                           const std::filesystem::path& key);

/// What people would say of an arm, from their labels and the judge's scores of all rows.
struct LabelEstimate {
  std::string arm;      ///< the baseline's own mean first, then each arm's difference from it
  std::string measure;  ///< "behaviour" or "coherence"
  PredictionPowered value;
};

/// Prediction-powered estimates (see `prediction_powered`): each arm's difference from the baseline over rows of the
/// same question and behaviour, that of the labels corrected by the judge's. Valid whatever the judge. Arms with fewer
/// than two labelled pairs are left out. @throws Error(argument) for no labels at all.
std::vector<LabelEstimate> label_estimates(std::span<const ResultRow> results, const std::string& measure,
                                           const std::string& baseline = "control");

}  // namespace steer
