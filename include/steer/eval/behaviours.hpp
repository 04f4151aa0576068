#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include <steer/eval/rules.hpp>

namespace steer {

/// What a judge looks for, and how many of the scale's points it carries.
struct Criterion {
  std::string name{};
  std::string description{};
  int points = 1;
};

/// Something a model can be steered to be.
struct Behaviour {
  std::string name{};                          ///< one word, used in ids and file names
  std::string instruction{};                   ///< completes "When answering, please ...": "be funny"
  std::vector<Criterion> criteria{};           ///< points sum to 5
  std::vector<std::string> examples{};         ///< optional: texts that show it, for contrasts
  std::vector<std::string> counterexamples{};  ///< optional: texts that do not
  std::optional<Rule> rule = {};               ///< checked by a program instead of judged: has no criteria
};

/// The 14 behaviours of arXiv 2602.04903: authoritative, concise, imaginative, diplomatic, educational, emotional,
/// empathetic, funny, misleading, motivational, persuasive, professional, skeptical, technical. Names and instructions
/// are the study's; criteria are steer's own wording of its three weighted criteria (2, 2 and 1 points).
const std::vector<Behaviour>& study_behaviours();

/// The behaviours with these names, in this order. @throws Error(argument) that lists the known names.
std::vector<Behaviour> select_behaviours(const std::vector<Behaviour>& from, const std::vector<std::string>& names);

/// A JSON list of `{"name", "instruction", "criteria": [{"name", "description", "points"}], "examples": [...],
/// "counterexamples": [...], "rule": {"kind": "at_most_words", "limit": 40}}`; all but the first two optional.
/// @throws Error(io | format) naming the entry: a name that is empty, repeated or holds other than letters, digits, '-'
///         and '_', criteria whose points do not sum to 5.
std::vector<Behaviour> load_behaviours(const std::filesystem::path& json);

/// The form `load_behaviours` reads, as one JSON object.
void to_json(nlohmann::ordered_json& json, const Behaviour& behaviour);

/// The study's system prompt: "When answering, please be funny."
std::string system_prompt(const Behaviour& behaviour);
/// A system prompt that insists, for the arm that asks how far prompting alone goes.
std::string strong_system_prompt(const Behaviour& behaviour);

}  // namespace steer
