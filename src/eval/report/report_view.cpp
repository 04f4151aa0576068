#include "eval/report/report_view.hpp"

#include <map>

#include "core/format_text.hpp"
#include "eval/report/report_parts.hpp"

namespace steer::eval::detail {
namespace {

using nlohmann::ordered_json;

/// The first bytes of an answer, never the half of a character.
std::string shortened(const std::string& text) {
  constexpr std::size_t kLongest = 700;
  if (text.size() <= kLongest) return text;
  std::size_t cut = kLongest;
  while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;
  return text.substr(0, cut) + " ...";
}

ordered_json question_view(const std::string& why, const std::string& id, const Question* question) {
  ordered_json view{{"why", why}, {"id", id}, {"text", nullptr}, {"choices", ordered_json::array()}};
  if (!question) return view;
  view["text"] = question->text;
  for (std::size_t c = 0; c < question->choices.size(); ++c)
    view["choices"].push_back({{"letter", std::string(1, static_cast<char>('A' + c))},
                               {"text", question->choices[c]},
                               {"right", static_cast<int>(c) == question->answer}});
  return view;
}

ordered_json answer_view(const ResultRow& r, const std::string& colour) {
  std::string scores = "answer " + (r.answer.empty() ? std::string("none") : r.answer);
  for (const char* name : {"behaviour", "coherence"})
    if (r.scores.contains(name)) scores += format_text(" · {} {}", name, number(r.scores.at(name), 1));
  return {{"arm", r.arm}, {"colour", colour}, {"scores", scores}, {"response", shortened(r.response)}};
}

}  // namespace

ordered_json samples_view(const Report& report) {
  const Colours colours(report);
  std::map<std::string, const ResultRow*> by_key;
  for (const auto& r : report.results) by_key[r.key()] = &r;
  std::map<std::string, const Question*> questions;
  for (const auto& q : report.questions) questions[q.id] = &q;
  ordered_json behaviours = ordered_json::array();
  for (const auto& behaviour : report.analysis.behaviours) {
    ordered_json asked = ordered_json::array();
    for (const auto& [why, id] : choose_samples(report, behaviour).questions) {
      const auto question = questions.find(id);
      ordered_json view = question_view(why, id, question == questions.end() ? nullptr : question->second);
      view["answers"] = ordered_json::array();
      for (const auto& arm : report.analysis.arms)
        if (const auto found = by_key.find(arm + "|" + behaviour + "|" + id); found != by_key.end())
          view["answers"].push_back(answer_view(*found->second, colours.of(arm)));
      asked.push_back(std::move(view));
    }
    if (!asked.empty())
      behaviours.push_back({{"name", behaviour}, {"open", behaviours.empty()}, {"questions", std::move(asked)}});
  }
  if (behaviours.empty()) return nullptr;
  return {{"arm", sampled_arm(report)}, {"behaviours", std::move(behaviours)}};
}

ordered_json view_of(const Report& report) {
  const auto& options = report.analysis.options;
  std::vector<std::string> notes;
  for (const std::string& warning : report.warnings) notes.push_back("Mind: " + warning + ".");
  notes.insert(notes.end(), report.notes.begin(), report.notes.end());
  ordered_json view{{"title", report.title},         {"headline", report.headline()},
                    {"findings", report.findings()}, {"notes", std::move(notes)},
                    {"baseline", options.baseline},  {"level", format_text("{:g} %", options.level * 100)}};
  add_plots(view, report);
  view["arm_table"] = arm_table(report);
  view["reason_table"] = reason_table(report);
  view["against_table"] = against_table(report);
  view["limits"] = limits_view(report);
  view["behaviour_table"] = behaviour_table(report);
  view["pairs"] = pair_table_view(report);
  view["off_target"] = off_target_view(report);
  view["audit"] = audit_table(report);
  view["samples"] = samples_view(report);
  ordered_json described = ordered_json::array();
  for (const auto& note : report.arms)
    if (!note.description.empty()) described.push_back({{"name", note.name}, {"description", note.description}});
  view["described"] = described.empty() ? ordered_json() : ordered_json{{"arms", described}};
  view["settings"] = report.settings.empty() ? ordered_json()
                                             : ordered_json{{"text", report.settings}, {"hashes", hash_table(report)}};
  return view;
}

}  // namespace steer::eval::detail
