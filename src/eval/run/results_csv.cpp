// Results as tables: our own, and those that other programs and people have made.
#include <steer/eval/results.hpp>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <optional>
#include <set>

#include <steer/core/error.hpp>
#include <steer/eval/answer.hpp>

#include "core/ascii.hpp"
#include "core/format_text.hpp"
#include "eval/run/csv.hpp"
#include "io/text_file.hpp"

namespace steer {

void save_results_csv(const std::vector<ResultRow>& results, const std::filesystem::path& csv) {
  std::set<std::string> scores;
  for (const auto& result : results)
    for (const auto& [name, value] : result.scores) scores.insert(name);
  eval::detail::CsvRow header{"arm",     "behaviour", "question", "gold", "answer", "answer_lenient",
                              "correct", "truncated", "tokens"};
  for (const auto& name : scores) header.push_back("score_" + name);
  header.push_back("response");
  std::string text = eval::detail::csv_line(header);
  for (const auto& r : results) {
    eval::detail::CsvRow row{r.arm,
                             r.behaviour,
                             r.question,
                             r.gold,
                             r.answer,
                             r.answer_lenient,
                             r.gold.empty() ? ""
                             : r.correct()  ? "1"
                                            : "0",
                             r.truncated ? "1" : "0",
                             std::to_string(r.tokens)};
    for (const auto& name : scores) {
      const auto found = r.scores.find(name);
      row.push_back(found == r.scores.end() ? "" : format_text("{}", found->second));
    }
    row.push_back(r.response);
    text += eval::detail::csv_line(row);
  }
  io::detail::write_text_file(csv, text, "save_results_csv");
}

namespace {

/// A CSV file with a header, read cell by cell. What cannot be read is an error that names row (from 1, the header not
/// counted), column and value, never a default.
class Table {
 public:
  Table(const std::filesystem::path& path, std::string_view where,
        const std::map<std::string, std::string>& columns = {})
      : where_(where), file_(path.string()), rows_(eval::detail::read_csv(path)) {
    require(!rows_.empty(), ErrorCode::format, where_, "expected a header but got an empty file ({})", file_);
    std::erase_if(rows_, [](const auto& row) {  // lines of commas alone, as spreadsheets leave them
      return row.size() > 1 &&
             std::all_of(row.begin(), row.end(), [](const auto& f) { return eval::detail::trim(f).empty(); });
    });
    require(!rows_.empty(), ErrorCode::format, where_, "expected a header but got only blank fields ({})", file_);
    const auto& header = rows_[0];
    for (const char separator : {';', '\t'})
      require(header.size() > 1 || header[0].find(separator) == std::string::npos, ErrorCode::format, where_,
              "expected commas between the fields but found {} ({}); save the table with commas",
              separator == ';' ? "semicolons (;)" : "tabs", file_);
    for (std::size_t i = 0; i < header.size(); ++i) {
      std::string name(eval::detail::trim(header[i]));
      if (const auto renamed = columns.find(name); renamed != columns.end())
        name = renamed->second;
      else
        name = usual_name(name);
      if (name.empty()) continue;  // the index of a data frame
      require(place_.emplace(name, i).second, ErrorCode::format, where_,
              "expected every column once but got \"{}\" again ({})", name, file_);
    }
  }

  void require_columns(std::initializer_list<const char*> names) const {
    for (const char* needed : names)
      require(has(needed), ErrorCode::format, where_, "expected a column \"{}\" ({})", needed, file_);
  }
  bool has(const std::string& column) const { return place_.contains(column); }
  const std::map<std::string, std::size_t>& columns() const { return place_; }
  std::size_t size() const { return rows_.size() - 1; }
  const std::string& file() const { return file_; }

  /// Row 1 is the first below the header. Columns that the file has not are empty.
  std::string text(std::size_t row, const std::string& column) const {
    const auto& fields = rows_[row];
    require(fields.size() == rows_[0].size(), ErrorCode::format, where_, "expected {} fields but got {} ({}, row {})",
            rows_[0].size(), fields.size(), file_, row);
    const auto at = place_.find(column);
    return at == place_.end() ? std::string() : fields[at->second];
  }
  /// Nothing where the cell is blank or says that there is no value.
  std::optional<double> number(std::size_t row, const std::string& column) const {
    const std::string cell = text(row, column);
    const auto value = eval::detail::trim(cell);
    if (missing(value)) return std::nullopt;
    double parsed = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), parsed);
    require(error == std::errc() && end == value.data() + value.size() && std::isfinite(parsed), ErrorCode::format,
            where_, "expected a number as {} but got \"{}\" ({}, row {}){}", column, value.substr(0, 80), file_, row,
            value.find(',') == std::string_view::npos ? "" : "; write decimals with a point");
    return parsed;
  }
  std::int64_t count(std::size_t row, const std::string& column) const {
    const double value = number(row, column).value_or(0);
    require(value >= 0 && value == std::floor(value) && value < 9e15, ErrorCode::format, where_,
            "expected a count as {} but got \"{}\" ({}, row {})", column, text(row, column), file_, row);
    return static_cast<std::int64_t>(value);
  }
  bool flag(std::size_t row, const std::string& column) const {
    const std::string cell = ascii_lower(text(row, column));
    const auto value = eval::detail::trim(cell);
    if (missing(value)) return false;
    for (const char* yes : {"1", "1.0", "true", "yes", "t", "y"})
      if (value == yes) return true;
    for (const char* no : {"0", "0.0", "false", "no", "f", "n"})
      if (value == no) return false;
    fail(ErrorCode::format, where_, "expected {} as 0 or 1, true or false but got \"{}\" ({}, row {})", column,
         value.substr(0, 80), file_, row);
  }
  /// "B" from a letter in any case ("b", "(B)", "B.") or an index from 0 (1, 1.0).
  std::string letter(std::size_t row, const std::string& column) const {
    const std::string cell = text(row, column);
    std::string_view value = eval::detail::trim(cell);
    if (missing(value)) return {};
    const std::string_view whole = value;
    while (!value.empty() && std::string_view("([\"'").find(value.front()) != std::string_view::npos)
      value.remove_prefix(1);
    while (!value.empty() && std::string_view(")].\"':").find(value.back()) != std::string_view::npos)
      value.remove_suffix(1);
    if (value.size() == 1 && std::isalpha(static_cast<unsigned char>(value[0])))
      return std::string(1, static_cast<char>(std::toupper(static_cast<unsigned char>(value[0]))));
    double index = -1;
    const auto [end, error] = std::from_chars(whole.data(), whole.data() + whole.size(), index);
    require(
        error == std::errc() && end == whole.data() + whole.size() && index == std::floor(index) && index >= 0 &&
            index < 26,
        ErrorCode::format, where_,
        "expected {} as a letter or an index from 0 but got \"{}\" ({}, row {}); leave it blank where there is none",
        column, whole.substr(0, 80), file_, row);
    return std::string(1, static_cast<char>('A' + static_cast<int>(index)));
  }

 private:
  /// Our columns in any case and with American spelling; others as they are.
  static std::string usual_name(const std::string& name) {
    const std::string small = ascii_lower(name);
    for (const char* ours : {"arm", "behaviour", "question", "gold", "response", "answer", "answer_lenient",
                             "truncated", "tokens", "score", "name"})
      if (small == ours) return ours;
    if (small == "behavior") return "behaviour";
    if (small == "score_behavior" || small == "score_behaviour") return "score_behaviour";
    return name;
  }
  static bool missing(std::string_view value) {
    const std::string name = ascii_lower(value);
    for (const char* none : {"", "nan", "na", "n/a", "#n/a", "none", "null", "<na>", "-"})
      if (name == none) return true;
    return false;
  }

  std::string_view where_;
  std::string file_;
  std::vector<eval::detail::CsvRow> rows_;
  std::map<std::string, std::size_t> place_;
};

}  // namespace

std::vector<ResultRow> load_results_csv(const std::filesystem::path& csv,
                                        const std::map<std::string, std::string>& columns) {
  constexpr std::string_view kScore = "score_";
  const Table table(csv, "load_results_csv", columns);
  table.require_columns({"arm", "behaviour", "question"});
  std::vector<ResultRow> results;
  int choices = 4;  // at least, and as many as the file's golds show
  for (std::size_t r = 1; r <= table.size(); ++r) {
    ResultRow result{.arm = table.text(r, "arm"),
                     .behaviour = table.text(r, "behaviour"),
                     .question = table.text(r, "question"),
                     .gold = table.letter(r, "gold"),
                     .response = table.text(r, "response"),
                     .answer = table.letter(r, "answer"),
                     .answer_lenient = table.letter(r, "answer_lenient"),
                     .truncated = table.flag(r, "truncated"),
                     .tokens = table.count(r, "tokens")};
    for (const auto& [name, at] : table.columns())
      if (name.starts_with(kScore))
        if (const auto score = table.number(r, name)) result.scores[name.substr(kScore.size())] = *score;
    if (!result.gold.empty()) choices = std::max(choices, result.gold[0] - 'A' + 1);
    results.push_back(std::move(result));
  }
  for (auto& result : results) {
    if (result.response.empty()) continue;
    const ParsedAnswer parsed = parse_answer(result.response, choices);
    if (!table.has("answer") && parsed.strict) result.answer = *parsed.strict;
    if (!table.has("answer_lenient") && parsed.lenient) result.answer_lenient = *parsed.lenient;
  }
  return results;
}

std::int64_t import_scores(std::vector<ResultRow>& results, const std::filesystem::path& csv, std::string_view name) {
  const Table table(csv, "import_scores");
  table.require_columns({"arm", "behaviour", "question", "score"});
  std::map<std::string, ResultRow*> by_key;
  for (auto& result : results) by_key[result.key()] = &result;
  std::set<std::string> seen;
  for (std::size_t r = 1; r <= table.size(); ++r) {
    const std::string key = table.text(r, "arm") + "|" + table.text(r, "behaviour") + "|" + table.text(r, "question");
    const std::string kind = table.has("name") ? table.text(r, "name") : std::string(name);
    const auto found = by_key.find(key);
    require(found != by_key.end(), ErrorCode::format, "import_scores",
            "expected a row of the results but got \"{}\" ({}, row {})", key, table.file(), r);
    require(seen.insert(key + "|" + kind).second, ErrorCode::format, "import_scores",
            "expected every row once but got \"{}\" again ({}, row {})", key, table.file(), r);
    const auto score = table.number(r, "score");
    require(score.has_value(), ErrorCode::format, "import_scores",
            "expected a number as score but got \"{}\" ({}, row {})", table.text(r, "score"), table.file(), r);
    found->second->scores[kind] = *score;
    found->second->failed.erase(kind);
  }
  return static_cast<std::int64_t>(seen.size());
}

}  // namespace steer
