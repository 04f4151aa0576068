#include "eval/run/describe_run.hpp"

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>

#include "core/format_text.hpp"
#include "eval/run/identity.hpp"
#include "eval/run/records.hpp"

namespace steer::eval::detail {
namespace {

using nlohmann::ordered_json;

/// An arm as its method finds it, with nothing added or varied.
bool as_found(const Arm& arm) {
  return arm.asking == Asking::nothing && arm.variant == ArmVariant::as_given && arm.family.empty();
}

void describe_arms(const RunFacts& run, Report& report) {
  report.arms.clear();
  ordered_json steerings = ordered_json::object();
  for (const auto& arm : run.experiment.arms) {
    ContentHasher hasher;
    hasher.update(one_line(arm_identity(arm)));
    std::string unsteered;
    if (arm.source)
      for (const auto& behaviour : run.experiment.behaviours) {
        const auto& [steering, note] = run.steerings.at({arm.name, behaviour.name});
        hasher.update(steering.describe());
        if (arm.source->costly && as_found(arm) && !steering.empty())
          report.steerings[arm.name][behaviour.name] = steering;
        if (steering.empty()) unsteered += (unsteered.empty() ? "" : ", ") + behaviour.name;
        steerings[arm.name][behaviour.name] = {{"edits", steering.empty() ? "none" : steering.describe()},
                                               {"note", note}};
      }
    report.arms.push_back({arm.name, arm.description, hasher.hex(), arm.family, arm.strength,
                           arm.asking != Asking::nothing, is_placebo(arm), as_found(arm) ? arm.draw_of : ""});
    if (!unsteered.empty() && as_found(arm))
      report.notes.push_back(
          format_text("{} has no steering for {}: its rows there are unsteered.", arm.name, unsteered));
  }
  ordered_json settings = run.identity;
  if (!steerings.empty()) settings["steerings"] = steerings;
  report.settings = settings.dump(2, ' ', false, ordered_json::error_handler_t::replace);
}

void describe_rules(const RunFacts& run, Report& report) {
  for (const auto& behaviour : run.experiment.behaviours) {
    if (!behaviour.rule || run.experiment.mode != AnswerMode::generate) continue;
    std::string shares;
    for (const auto& arm : report.analysis.arms) {
      const auto& scores = report.analysis.cell(arm, behaviour.name).scores;
      if (const auto rule = scores.find("rule"); rule != scores.end())
        shares += format_text("{}{} {:.0f} %", shares.empty() ? "" : ", ", arm, 100 * rule->second.summary.mean);
    }
    report.notes.push_back(format_text("Checked by a program, not judged: {} (\"{}\") is kept in {} of the answers.",
                                       behaviour.name, behaviour.instruction, shares));
  }
}

void describe_pairs(const RunFacts& run, Report& report) {
  if (report.pairs) report.pairs->position = run.position;
  report.notes.push_back(
      format_text("Answers are compared with {}'s to the same question by {}. It prefers what is shown first by {:.2f} "
                  "of 1; both orders are asked, so that this does not count.",
                  run.options.baseline, run.options.pairs->identity(), run.position));
}

void describe_judge(const RunFacts& run, const Judge& judge, Report& report) {
  const std::string shown = judge.measure(Rubric::behaviour), coherence = judge.measure(Rubric::coherence),
                    caveat = judge.caveat();
  const std::string of = shown != "behaviour"       ? shown + " is from: "
                         : coherence == "coherence" ? "Behaviour and coherence are scores of: "
                                                    : "Behaviour is a score of: ";
  report.notes.push_back(of + judge.identity() + "." + (caveat.empty() ? "" : " " + caveat + "."));
  for (const auto& arm : run.experiment.arms)
    if (arm.source && arm.source->sought == shown && as_found(arm))
      report.notes.push_back(format_text(
          "{} was sought by what this report shows ({}): its gain there is flattered. Judge with another judge.",
          arm.name, shown));
  if (shown != "behaviour")
    report.withheld["behaviour"] = format_text("it was not judged; {} is no score of it", shown);
  for (const Rubric rubric : {Rubric::behaviour, Rubric::coherence})
    if (const auto why = judge.unfit(rubric); !why.empty()) report.withheld[judge.measure(rubric)] = why;
  if (!run.options.calibration) return;
  for (const auto& [measure, agreement] : run.options.calibration->agreement)
    if (const std::string why = agreement.unusable(); !why.empty())
      report.withheld[measure] =
          format_text("measured against {}, the judge is not fit for it: {}", run.options.calibration->reference, why);
}

void describe_letters(Report& report) {
  double mass = 0;
  for (const auto& result : report.results) mass += result.scores.at("p_letters");
  report.notes.push_back(format_text(
      "Answers are the likeliest letter; nothing was generated, so there is no behaviour or coherence. All letters "
      "together have {:.0f} % of the next token on average: where that is little, the model would not have "
      "answered with a letter, and its accuracy here says little of what it knows.",
      100 * mass / static_cast<double>(report.results.size())));
}

}  // namespace

bool is_placebo(const Arm& arm) {
  return arm.variant == ArmVariant::random_features || arm.variant == ArmVariant::noise;
}

void describe_run(const RunFacts& run, Report& report) {
  report.questions = run.experiment.questions;
  describe_arms(run, report);
  report.warnings = run.warnings;
  report.journals.assign(run.journals.begin(), run.journals.end());
  if (run.unanswered > 0)
    report.notes.push_back(
        format_text("{} answers are not judged because the judge could not be asked; start the run again with the same "
                    "settings to judge them.",
                    run.unanswered));
  describe_rules(run, report);
  if (run.options.pairs) describe_pairs(run, report);
  if (run.options.judge) describe_judge(run, *run.options.judge, report);
  if (run.experiment.mode == AnswerMode::letters) describe_letters(report);
}

void require_fired(const Experiment& experiment, const std::vector<ResultRow>& rows) {
  for (const auto& arm : experiment.arms) {
    if (!arm.source || arm.strength == 0) continue;
    double steered = 0, edited = 0;
    for (const auto& row : rows)
      if (row.arm == arm.name && row.edits.contains("edited")) {
        ++steered;
        edited += row.edits.at("edited");
      }
    require(steered == 0 || edited > 0, ErrorCode::config, "run_experiment",
            "expected the steering of \"{}\" to edit tokens but it edited none in {} rows; check its scopes and "
            "conditions{}",
            arm.name, steered,
            experiment.mode == AnswerMode::letters ? " (letters are read before any token is generated)" : "");
  }
}

}  // namespace steer::eval::detail
