#include <steer/eval/results.hpp>

#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>

#include "eval/run/csv.hpp"
#include "io/strict_json.hpp"
#include "io/text_file.hpp"

namespace steer {

using nlohmann::ordered_json;

void to_json(ordered_json& json, const ResultRow& r) {
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

ResultRow result_from_json(const ordered_json& json) {
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

std::vector<ResultRow> load_results(const std::filesystem::path& jsonl) {
  const std::string text = eval::detail::read_plain_text(jsonl, "load_results");
  std::vector<ResultRow> results;
  eval::detail::for_each_line(text, jsonl, [&](std::string_view line, const std::string& place) {
    const auto json = io::detail::parse_json<ordered_json>(line, "load_results", place);
    require(json.is_object(), ErrorCode::format, "load_results", "expected a JSON object but got \"{}\" ({})",
            line.substr(0, 60), place);
    results.push_back(result_from_json(json));
  });
  return results;
}

void save_results(const std::vector<ResultRow>& results, const std::filesystem::path& jsonl) {
  std::string text;
  for (const auto& result : results) {
    ordered_json json;
    to_json(json, result);
    // A response cut inside a character is not UTF-8: replace what is broken.
    text += json.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + '\n';
  }
  io::detail::write_text_file(jsonl, text, "save_results");
}

}  // namespace steer
