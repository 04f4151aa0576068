#include <steer/eval/labels.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>
#include <steer/core/random.hpp>

#include "eval/judge/label_page.hpp"
#include "eval/run/csv.hpp"
#include "io/text_file.hpp"

namespace steer {
namespace {

using nlohmann::ordered_json;
using Cell = std::pair<std::string, std::string>;  // behaviour and question

/// Cells in an order that takes one of each behaviour in turn.
std::vector<Cell> drawn_cells(const std::map<Cell, std::vector<const ResultRow*>>& cells, std::uint64_t seed) {
  std::map<std::string, std::vector<Cell>> by_behaviour;
  for (const auto& [cell, rows] : cells) by_behaviour[cell.first].push_back(cell);
  std::size_t longest = 0;
  for (auto& [behaviour, some] : by_behaviour) {
    Rng rng(derive_seed(seed, "label " + behaviour));
    rng.shuffle(some);
    longest = std::max(longest, some.size());
  }
  std::vector<Cell> order;
  for (std::size_t i = 0; i < longest; ++i)
    for (const auto& [behaviour, some] : by_behaviour)
      if (i < some.size()) order.push_back(some[i]);
  return order;
}

/// The rows of a CSV with a header, by column.
std::vector<std::map<std::string, std::string>> read_rows(const std::filesystem::path& path,
                                                          std::initializer_list<const char*> columns) {
  const auto rows = eval::detail::read_csv(path);
  require(!rows.empty(), ErrorCode::format, "import_labels", "expected a header but got an empty file ({})",
          path.string());
  for (const char* needed : columns)
    require(std::find(rows[0].begin(), rows[0].end(), needed) != rows[0].end(), ErrorCode::format, "import_labels",
            "expected a column \"{}\" ({})", needed, path.string());
  std::vector<std::map<std::string, std::string>> table;
  for (std::size_t r = 1; r < rows.size(); ++r) {
    require(rows[r].size() == rows[0].size(), ErrorCode::format, "import_labels",
            "expected {} fields but got {} ({}, row {})", rows[0].size(), rows[r].size(), path.string(), r);
    auto& row = table.emplace_back();
    for (std::size_t c = 0; c < rows[0].size(); ++c) row[rows[0][c]] = std::string(eval::detail::trim(rows[r][c]));
  }
  return table;
}

}  // namespace

std::int64_t write_label_page(std::span<const ResultRow> results, const std::map<std::string, std::string>& prompts,
                              const std::vector<Behaviour>& behaviours, const std::filesystem::path& folder,
                              const LabelOptions& options) {
  constexpr auto where = "write_label_page";
  std::map<std::string, std::string> requests;
  for (const auto& behaviour : behaviours) requests[behaviour.name] = behaviour.instruction;
  std::map<Cell, std::vector<const ResultRow*>> cells;
  for (const auto& result : results)
    if (options.arms.empty() || std::find(options.arms.begin(), options.arms.end(), result.arm) != options.arms.end())
      cells[{result.behaviour, result.question}].push_back(&result);
  std::vector<const ResultRow*> shown;
  for (const auto& cell : drawn_cells(cells, options.seed)) {
    if (static_cast<std::int64_t>(shown.size()) >= options.answers) break;
    shown.insert(shown.end(), cells[cell].begin(), cells[cell].end());
  }
  require(!shown.empty(), ErrorCode::argument, where, "expected answers to show but got none of these arms");
  Rng rng(derive_seed(options.seed, "label order"));
  rng.shuffle(shown);

  ordered_json items = ordered_json::array();
  std::string key = eval::detail::csv_line({"item", "arm", "behaviour", "question"});
  ContentHasher hasher;
  for (std::size_t i = 0; i < shown.size(); ++i) {
    const auto prompt = prompts.find(shown[i]->question);
    const auto request = requests.find(shown[i]->behaviour);
    require(prompt != prompts.end() && request != requests.end(), ErrorCode::argument, where,
            "expected the question \"{}\" and the behaviour \"{}\" among those given", shown[i]->question,
            shown[i]->behaviour);
    const std::string item = std::to_string(i + 1);
    items.push_back(
        {{"item", item}, {"request", request->second}, {"prompt", prompt->second}, {"response", shown[i]->response}});
    key += eval::detail::csv_line({item, shown[i]->arm, shown[i]->behaviour, shown[i]->question});
    hasher.update(shown[i]->key() + '\n' + shown[i]->response + '\n');
  }
  std::string json = items.dump(-1, ' ', true, ordered_json::error_handler_t::replace), safe;
  for (const char c : json)
    safe += c == '<' ? std::string("\\u003c") : std::string(1, c);  // no response ends the script
  std::string page(eval::detail::kLabelPage);
  const auto put = [&](std::string_view mark, const std::string& text) {
    page.replace(page.find(mark), mark.size(), text);
  };
  put("@ID@", hasher.hex().substr(0, 12));
  put("@ITEMS@", safe);
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  io::detail::write_text_file(folder / "label.html", page, where);
  io::detail::write_text_file(folder / "label-key.csv", key, where);
  return static_cast<std::int64_t>(shown.size());
}

std::int64_t import_labels(std::vector<ResultRow>& results, const std::filesystem::path& labels,
                           const std::filesystem::path& key) {
  constexpr auto where = "import_labels";
  std::map<std::string, ResultRow*> rows, items;
  for (auto& result : results) rows[result.key()] = &result;
  for (const auto& entry : read_rows(key, {"item", "arm", "behaviour", "question"})) {
    const std::string row = entry.at("arm") + "|" + entry.at("behaviour") + "|" + entry.at("question");
    const auto found = rows.find(row);
    require(found != rows.end(), ErrorCode::format, where, "expected the key of these results but it has \"{}\" ({})",
            row, key.string());
    items[entry.at("item")] = found->second;
  }
  std::int64_t count = 0, line = 0;
  std::set<std::string> seen;
  for (const auto& entry : read_rows(labels, {"item", "behaviour", "coherence"})) {
    ++line;
    const auto found = items.find(entry.at("item"));
    require(found != items.end() && seen.insert(entry.at("item")).second, ErrorCode::format, where,
            "expected every item of the key once but got \"{}\" ({}, row {})", entry.at("item"), labels.string(), line);
    for (const char* measure : {"behaviour", "coherence"}) {
      const std::string& text = entry.at(measure);
      if (text.empty()) continue;
      double score = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), score);
      require(error == std::errc() && end == text.data() + text.size() && score >= 1 && score <= 5, ErrorCode::format,
              where, "expected a score of 1 to 5 for {} but got \"{}\" ({}, row {})", measure, text.substr(0, 80),
              labels.string(), line);
      found->second->scores[std::string("human_") + measure] = score;
      ++count;
    }
  }
  return count;
}

std::vector<LabelEstimate> label_estimates(std::span<const ResultRow> results, const std::string& measure,
                                           const std::string& baseline) {
  const std::string human = "human_" + measure;
  const auto value = [](const ResultRow& r, const std::string& name) {
    const auto found = r.scores.find(name);
    return found == r.scores.end() ? std::nan("") : found->second;
  };
  std::map<Cell, const ResultRow*> base;
  std::map<std::string, std::int64_t> questions;
  std::vector<std::string> arms{baseline};
  bool any = false;
  for (const auto& r : results) {
    any |= r.scores.contains(human);
    questions.try_emplace(r.question, static_cast<std::int64_t>(questions.size()));
    if (r.arm == baseline) base[{r.behaviour, r.question}] = &r;
    if (std::find(arms.begin(), arms.end(), r.arm) == arms.end()) arms.push_back(r.arm);
  }
  require(any, ErrorCode::argument, "label_estimates", "expected rows with \"{}\" but got none; see import_labels",
          human);
  std::vector<LabelEstimate> estimates;
  for (const auto& arm : arms) {
    std::vector<double> judge, label;
    std::vector<std::int64_t> clusters;
    std::set<std::int64_t> labelled;
    for (const auto& r : results) {
      const auto other = base.find({r.behaviour, r.question});
      if (r.arm != arm || (arm != baseline && other == base.end())) continue;
      const double ours = value(r, measure) - (arm == baseline ? 0 : value(*other->second, measure));
      const double theirs = value(r, human) - (arm == baseline ? 0 : value(*other->second, human));
      if (!std::isfinite(ours)) continue;
      judge.push_back(ours);
      label.push_back(theirs);
      clusters.push_back(questions.at(r.question));
      if (std::isfinite(theirs)) labelled.insert(clusters.back());
    }
    if (labelled.size() < 2) continue;
    estimates.push_back({arm, measure, prediction_powered(judge, label, clusters)});
  }
  return estimates;
}

}  // namespace steer
