#include "eval/run/records.hpp"

#include <nlohmann/json.hpp>

namespace steer::eval::detail {
namespace {

using nlohmann::ordered_json;

ordered_json to_json(const Verdicts& verdicts) {
  ordered_json json = ordered_json::object();
  for (const auto& [name, value] : verdicts.scores) json["scores"][name] = value;
  for (const auto& [name, why] : verdicts.failed) json["failed"][name] = why;
  return json;
}

Verdicts verdicts_from(const ordered_json& json) {
  Verdicts verdicts;
  if (json.contains("scores")) json["scores"].get_to(verdicts.scores);
  if (json.contains("failed")) json["failed"].get_to(verdicts.failed);
  return verdicts;
}

}  // namespace

void Verdicts::add_to(ResultRow& row) const {
  for (const auto& [name, value] : scores) row.scores[name] = value;
  for (const auto& [name, why] : failed) row.failed[name] = why;
}

std::string one_line(const ordered_json& json) {
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

std::string write_steering(const FoundSteering& found) {
  const auto steering = found.steering.empty() ? ordered_json() : ordered_json::parse(found.steering.to_json().dump());
  return one_line({{"steering", steering}, {"note", found.note}});
}

FoundSteering read_steering(const std::string& line, const std::vector<Sae>& saes) {
  const auto json = nlohmann::json::parse(line);
  FoundSteering found{.steering = {}, .note = json.at("note")};
  if (!json.at("steering").is_null()) found.steering = Steering::from_json(json.at("steering"), {.saes = saes});
  return found;
}

std::string write_match(const PlaceboMatch& match) {
  return one_line({{"factor", match.factor}, {"note", match.note}});
}

PlaceboMatch read_match(const std::string& line) {
  const auto json = nlohmann::json::parse(line);
  return {json.at("factor").get<double>(), json.at("note").get<std::string>()};
}

std::string write_row(const ResultRow& row) {
  ordered_json json;
  to_json(json, row);
  return one_line(json);
}

ResultRow read_row(const std::string& line) { return result_from_json(ordered_json::parse(line)); }

std::string write_verdicts(const Verdicts& verdicts) { return one_line(to_json(verdicts)); }
Verdicts read_verdicts(const std::string& line) { return verdicts_from(ordered_json::parse(line)); }

std::string write_arm_verdicts(const ArmVerdicts& verdicts) {
  ordered_json json = ordered_json::object();
  for (const auto& [arm, some] : verdicts) json[arm] = to_json(some);
  return one_line(json);
}

ArmVerdicts read_arm_verdicts(const std::string& line) {
  ArmVerdicts verdicts;
  const auto json = ordered_json::parse(line);
  for (const auto& [arm, some] : json.items()) verdicts[arm] = verdicts_from(some);
  return verdicts;
}

}  // namespace steer::eval::detail
