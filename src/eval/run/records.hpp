#pragma once
// What the stages of an experiment make, and the lines of JSON that journals keep of it.

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

#include <steer/eval/arm.hpp>
#include <steer/eval/results.hpp>

namespace steer::eval::detail {

/// By what a placebo's strength was multiplied, and why.
struct PlaceboMatch {
  double factor = 1;
  std::string note = "as long an edit";
};

/// What a judge said of a row: scores by measure, or why there is none.
struct Verdicts {
  std::map<std::string, double> scores{};
  std::map<std::string, std::string> failed{};

  /// Puts them among the row's.
  void add_to(ResultRow& row) const;
};
/// Of one question's answers: by arm.
using ArmVerdicts = std::map<std::string, Verdicts>;

/// JSON on one line; bytes that are no UTF-8 are replaced.
std::string one_line(const nlohmann::ordered_json& json);

std::string write_steering(const FoundSteering& found);
/// @param saes  that the steering may refer to.
FoundSteering read_steering(const std::string& line, const std::vector<Sae>& saes);
std::string write_match(const PlaceboMatch& match);
PlaceboMatch read_match(const std::string& line);
std::string write_row(const ResultRow& row);
ResultRow read_row(const std::string& line);
std::string write_verdicts(const Verdicts& verdicts);
Verdicts read_verdicts(const std::string& line);
std::string write_arm_verdicts(const ArmVerdicts& verdicts);
ArmVerdicts read_arm_verdicts(const std::string& line);

}  // namespace steer::eval::detail
