#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace steer::eval::detail {

/// What a judge's reply must hold: one number a criterion.
struct ScoreForm {
  std::vector<std::string> names;  ///< of the criteria; for a single level: the names it may have
  std::vector<double> least, most;
};

/// The numbers of the last final score in a judge's reply: JSON as asked for, or as language models write it (prose and
/// code fences around it, nested, keyed by criterion, numbers as texts, trailing commas). What stands in a thought is
/// no score; an object that is cut off, of another length or out of range is none either.
std::optional<std::vector<double>> read_scores(std::string_view reply, const ScoreForm& form);

/// The text of an OpenAI-style message: `content` as a text or as a list of parts, of which thoughts are left out.
std::string message_text(const nlohmann::json& message);

}  // namespace steer::eval::detail
