#include <steer/eval/results.hpp>

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include <steer/core/error.hpp>
#include <steer/eval/answer.hpp>

#include "eval/run/csv.hpp"
#include "io/strict_json.hpp"
#include "io/text_file.hpp"

namespace steer {

using nlohmann::ordered_json;

void to_json(ordered_json& json, const Result& r) {
  json = {{"arm", r.arm},
          {"behaviour", r.behaviour},
          {"question", r.question},
          {"gold", r.gold},
          {"answer", r.answer},
          {"answer_lenient", r.answer_lenient},
          {"truncated", r.truncated},
          {"tokens", r.tokens},
          {"scores", r.scores},
          {"failed", r.failed},
          {"edits", r.edits},
          {"response", r.response}};
}

Result result_from_json(const ordered_json& json) {
  try {
    return {.arm = json.at("arm"),
            .behaviour = json.at("behaviour"),
            .question = json.at("question"),
            .gold = json.value("gold", ""),
            .response = json.value("response", ""),
            .answer = json.value("answer", ""),
            .answer_lenient = json.value("answer_lenient", ""),
            .truncated = json.value("truncated", false),
            .tokens = json.value("tokens", std::int64_t{0}),
            .scores = json.value("scores", std::map<std::string, double>{}),
            .failed = json.value("failed", std::map<std::string, std::string>{}),
            .edits = json.value("edits", std::map<std::string, double>{})};
  } catch (const ordered_json::exception& error) {
    fail(ErrorCode::format, "result_from_json", "expected a result (arm, behaviour, question, ...) but got {}: {}",
         io::detail::brief(json), error.what());
  }
}

std::vector<Result> load_results(const std::filesystem::path& jsonl) {
  const std::string text = io::detail::read_text_file(jsonl, "load_results");
  std::vector<Result> results;
  std::int64_t line_number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line(text.data() + begin, end - begin);
    begin = end + 1;
    ++line_number;
    if (line.empty()) continue;
    const auto json = io::detail::parse_json<ordered_json>(line, "load_results",
                                                           fmt::format("{}, line {}", jsonl.string(), line_number));
    require(json.is_object(), ErrorCode::format, "load_results", "expected a JSON object but got \"{}\" ({}, line {})",
            line.substr(0, 60), jsonl.string(), line_number);
    results.push_back(result_from_json(json));
  }
  return results;
}

void save_results(const std::vector<Result>& results, const std::filesystem::path& jsonl) {
  std::string text;
  for (const auto& result : results) {
    ordered_json json;
    to_json(json, result);
    // A response cut inside a character is not UTF-8: replace what is broken.
    text += json.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + '\n';
  }
  io::detail::write_text_file(jsonl, text, "save_results");
}

void save_results_csv(const std::vector<Result>& results, const std::filesystem::path& csv) {
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
      row.push_back(found == r.scores.end() ? "" : fmt::format("{}", found->second));
    }
    row.push_back(r.response);
    text += eval::detail::csv_line(row);
  }
  io::detail::write_text_file(csv, text, "save_results_csv");
}

std::vector<Result> load_results_csv(const std::filesystem::path& csv,
                                     const std::map<std::string, std::string>& columns) {
  constexpr std::string_view kScore = "score_";
  const auto rows = eval::detail::read_csv(csv);
  require(!rows.empty(), ErrorCode::format, "load_results_csv", "expected a header but got an empty file ({})",
          csv.string());
  std::map<std::string, std::size_t> place;
  for (std::size_t i = 0; i < rows[0].size(); ++i) {
    const auto renamed = columns.find(rows[0][i]);
    place[renamed == columns.end() ? rows[0][i] : renamed->second] = i;
  }
  for (const char* needed : {"arm", "behaviour", "question"})
    require(place.contains(needed), ErrorCode::format, "load_results_csv", "expected a column \"{}\" ({})", needed,
            csv.string());
  std::vector<Result> results;
  for (std::size_t r = 1; r < rows.size(); ++r) {
    const auto& row = rows[r];
    require(row.size() == rows[0].size(), ErrorCode::format, "load_results_csv",
            "expected {} fields but got {} ({}, row {})", rows[0].size(), row.size(), csv.string(), r);
    const auto text = [&](const char* name) { return place.contains(name) ? row[place[name]] : std::string(); };
    const auto number = [&](const std::string& value) {
      double parsed = 0;
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), parsed);
      require(error == std::errc() && end == value.data() + value.size() && std::isfinite(parsed), ErrorCode::format,
              "load_results_csv", "expected a number but got \"{}\" ({}, row {})", value, csv.string(), r);
      return parsed;
    };
    Result result{.arm = text("arm"),
                  .behaviour = text("behaviour"),
                  .question = text("question"),
                  .gold = text("gold"),
                  .response = text("response"),
                  .answer = text("answer"),
                  .answer_lenient = text("answer_lenient")};
    if (!result.response.empty()) {
      const Answer parsed = parse_answer(result.response);
      if (!place.contains("answer") && parsed.strict) result.answer = *parsed.strict;
      if (!place.contains("answer_lenient") && parsed.lenient) result.answer_lenient = *parsed.lenient;
    }
    result.truncated = text("truncated") == "1";
    if (const auto tokens = text("tokens"); !tokens.empty()) result.tokens = static_cast<std::int64_t>(number(tokens));
    for (const auto& [name, at] : place)
      if (name.starts_with(kScore) && !row[at].empty()) result.scores[name.substr(kScore.size())] = number(row[at]);
    results.push_back(std::move(result));
  }
  return results;
}

std::int64_t import_scores(std::vector<Result>& results, const std::filesystem::path& csv, std::string_view name) {
  const auto rows = eval::detail::read_csv(csv);
  require(!rows.empty(), ErrorCode::format, "import_scores", "expected a header but got an empty file ({})",
          csv.string());
  std::map<std::string, std::size_t> column;
  for (std::size_t i = 0; i < rows[0].size(); ++i) column[rows[0][i]] = i;
  for (const char* needed : {"arm", "behaviour", "question", "score"})
    require(column.contains(needed), ErrorCode::format, "import_scores", "expected a column \"{}\" ({})", needed,
            csv.string());
  std::map<std::string, Result*> by_key;
  for (auto& result : results) by_key[result.key()] = &result;
  std::set<std::string> seen;
  for (std::size_t r = 1; r < rows.size(); ++r) {
    const auto& row = rows[r];
    require(row.size() == rows[0].size(), ErrorCode::format, "import_scores",
            "expected {} fields but got {} ({}, row {})", rows[0].size(), row.size(), csv.string(), r);
    const std::string key = row[column["arm"]] + "|" + row[column["behaviour"]] + "|" + row[column["question"]];
    const std::string kind = column.contains("name") ? row[column["name"]] : std::string(name);
    const std::string& text = row[column["score"]];
    double score = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), score);
    require(error == std::errc() && end == text.data() + text.size() && std::isfinite(score), ErrorCode::format,
            "import_scores", "expected a number as score but got \"{}\" ({}, row {})", text, csv.string(), r);
    const auto found = by_key.find(key);
    require(found != by_key.end(), ErrorCode::format, "import_scores",
            "expected a row of the results but got \"{}\" ({}, row {})", key, csv.string(), r);
    require(seen.insert(key + "|" + kind).second, ErrorCode::format, "import_scores",
            "expected every row once but got \"{}\" again ({}, row {})", key, csv.string(), r);
    found->second->scores[kind] = score;
    found->second->failed.erase(kind);
  }
  return static_cast<std::int64_t>(seen.size());
}

}  // namespace steer
