#include <steer/eval/report.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>

#include "eval/report/report_parts.hpp"
#include "io/text_file.hpp"

namespace steer {
namespace eval::detail {

std::string escape_html(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

std::string number(double value, int digits) { return std::isnan(value) ? "-" : fmt::format("{:.{}f}", value, digits); }

std::string with_interval(double value, const Interval& interval, double scale, int digits) {
  if (std::isnan(value)) return "-";
  const std::string centre = number(value * scale, digits);
  if (std::isnan(interval.low)) return centre;
  return fmt::format("{} [{}, {}]", centre, number(interval.low * scale, digits),
                     number(interval.high * scale, digits));
}

std::string p_text(double p) {
  if (p < 0.0001) return "< .0001";
  return p < 0.99995 ? fmt::format("{:.4f}", p).substr(1) : "1";
}

const ArmNote* note_of(const Report& report, const std::string& arm) {
  for (const auto& note : report.arms)
    if (note.name == arm) return &note;
  return nullptr;
}

std::vector<StrengthFamily> strength_families(const Report& report) {
  std::map<std::string, std::vector<const ArmNote*>> families;
  for (const auto& note : report.arms)
    if (!note.family.empty()) families[note.family].push_back(&note);
  std::vector<StrengthFamily> result;
  for (auto& [name, arms] : families) {
    if (arms.size() < 3) continue;
    std::sort(arms.begin(), arms.end(), [](const ArmNote* a, const ArmNote* b) { return a->strength < b->strength; });
    result.push_back({name, arms});
  }
  return result;
}

std::string leading_arm(const Report& report, bool steered_only) {
  std::set<std::string> edited;
  for (const auto& result : report.results)
    if (!result.edits.empty()) edited.insert(result.arm);
  std::string best;
  double most = -INFINITY;
  const auto rows = report.analysis.cell(report.analysis.options.baseline).n;
  for (const auto& arm : report.analysis.arms) {
    const auto* note = note_of(report, arm);
    if (steered_only && (!edited.contains(arm) || (note && (note->prompted || note->placebo)))) continue;
    if (5 * report.analysis.cell(arm).n < 4 * rows) continue;  // a sweep on few of the questions
    const auto* gain = report.analysis.comparison(arm, "behaviour");
    if (gain && gain->difference.mean > most) {
      most = gain->difference.mean;
      best = arm;
    }
  }
  return best;
}

std::string sampled_arm(const Report& report) {
  const std::string steered = leading_arm(report, true);
  return steered.empty() ? leading_arm(report) : steered;
}

Samples choose_samples(const Report& report, const std::string& behaviour) {
  const std::string leader = sampled_arm(report), &baseline = report.analysis.options.baseline;
  std::map<std::string, double> before;
  for (const auto& r : report.results)
    if (r.arm == baseline && r.behaviour == behaviour && r.scores.contains("behaviour") && !r.response.empty())
      before[r.question] = r.scores.at("behaviour");
  std::vector<std::pair<double, std::string>> gains;
  for (const auto& r : report.results)
    if (r.arm == leader && r.behaviour == behaviour && r.scores.contains("behaviour") && before.contains(r.question))
      gains.emplace_back(r.scores.at("behaviour") - before[r.question], r.question);
  if (gains.empty()) return {};
  std::sort(gains.begin(), gains.end());
  Rng rng(derive_seed(report.analysis.options.seed, "sample " + behaviour));
  Samples samples;
  const auto add = [&](const char* why, const std::string& id) {
    for (auto& [reason, question] : samples.questions)
      if (question == id) return;
    samples.questions.emplace_back(why, id);
  };
  add("best", gains.back().second);
  add("worst", gains.front().second);
  add("random", gains[rng.below(gains.size())].second);
  return samples;
}

}  // namespace eval::detail

namespace {

using namespace eval::detail;

/// "by 0.52 [0.31, 0.73]", with the sign of the change as a word.
std::string change(const ClusteredMean& difference, double scale, int digits, const char* unit) {
  return fmt::format("{}{}{}", difference.mean >= 0 ? "+" : "",
                     with_interval(difference.mean, difference.interval, scale, digits), unit);
}

/// What the interval of an accuracy difference lets one say.
const char* accuracy_verdict(const Comparison& accuracy) {
  if (accuracy.difference.interval.high < 0) return "a loss beyond chance";
  if (accuracy.difference.interval.low > 0) return "a gain beyond chance";
  if (accuracy.p_non_inferior < 0.05) return "not inferior by more than the margin";
  return "undecided: the interval allows both none and more than the margin";
}

std::string markdown_cell(std::string text) {
  for (char& c : text)
    if (c == '|' || c == '\n') c = ' ';
  return text;
}

}  // namespace

Report make_report(std::vector<Result> results, const AnalysisOptions& options) {
  Report report;
  report.analysis = analyse(results, options);
  report.results = std::move(results);
  for (const auto& arm : report.analysis.arms)
    report.arms.push_back({.name = arm, .description = "", .hash = "", .family = ""});
  return report;
}

std::string Report::verdict() const {
  const auto& base = analysis.options.baseline;
  const Cell& control = analysis.cell(base);
  std::map<std::string, int> asked;
  for (const auto& result : results) ++asked[result.question];
  const bool graded =
      control.accuracy.n > 0 && !std::isnan(control.accuracy.value);  // open prompts have no right answer
  std::string text =
      fmt::format("Over {} questions and {} behaviours, {}", asked.size(), analysis.behaviours.size(), base);
  if (graded)
    text += fmt::format(" gets {} % right", with_interval(control.accuracy.value, control.accuracy.interval, 100, 1));
  const auto usable = [&](const char* measure) { return !withheld.contains(measure); };
  const auto scored = usable("behaviour") ? control.scores.find("behaviour") : control.scores.end();
  if (scored != control.scores.end())
    text += fmt::format("{} scores {} of 5 for behaviour", graded ? " and" : "",
                        with_interval(scored->second.summary.mean, scored->second.interval, 1, 2));
  if (const auto coherence = control.scores.find("coherence"); coherence != control.scores.end() && usable("coherence"))
    text += fmt::format(", {} for coherence",
                        with_interval(coherence->second.summary.mean, coherence->second.interval, 1, 2));
  text += ".";
  const auto gain_of = [&](const std::string& arm) {
    std::string gain = change(analysis.comparison(arm, "behaviour")->difference, 1, 2, " points of score");
    if (const auto* accuracy = analysis.comparison(arm, "accuracy"))
      gain += fmt::format(", with {} of accuracy ({})", change(accuracy->difference, 100, 1, " points"),
                          accuracy_verdict(*accuracy));
    if (const auto* coherence = usable("coherence") ? analysis.comparison(arm, "coherence") : nullptr)
      gain += fmt::format(" and {} of coherence", change(coherence->difference, 1, 2, ""));
    return gain + ".";
  };
  const std::string leader = usable("behaviour") ? leading_arm(*this) : "",
                    steered = usable("behaviour") ? leading_arm(*this, true) : "";
  if (!leader.empty()) text += fmt::format(" Most behaviour is gained by {}: {}", leader, gain_of(leader));
  if (leader.empty() && graded) {  // letters alone: accuracy is all there is
    const Comparison* worst = nullptr;
    for (const auto& arm : analysis.arms)
      if (const auto* accuracy = analysis.comparison(arm, "accuracy"))
        if (!worst || accuracy->difference.mean < worst->difference.mean) worst = accuracy;
    if (worst)
      text += fmt::format(" The least accurate arm is {}: {} ({}).", worst->arm,
                          change(worst->difference, 100, 1, " points"), accuracy_verdict(*worst));
  }
  if (!steered.empty() && steered != leader)
    text += fmt::format(" Of the steered arms it is {}: {}", steered, gain_of(steered));
  for (const auto& note : arms)
    if (const auto* gain =
            note.placebo && usable("behaviour") ? analysis.comparison(note.name, "behaviour") : nullptr) {
      const auto* accuracy = analysis.comparison(note.name, "accuracy");
      text += fmt::format(
          " For scale, a disturbance as large to no purpose ({}) gains {}{}.", note.name,
          change(gain->difference, 1, 2, ""),
          accuracy ? fmt::format(" with {} of accuracy", change(accuracy->difference, 100, 1, " points")) : "");
    }
  const Tradeoff& all = analysis.tradeoffs.back();
  const double points = analysis.options.tradeoff.accuracy_loss * 100;
  if (!leader.empty() && graded) {
    const auto& within = all.within_accuracy;
    text += within.arm.empty()
                ? fmt::format(" No arm gains behaviour at a loss of at most {:g} points of accuracy.", points)
                : fmt::format(" At a loss of at most {:g} points of accuracy the most is had from {}: +{}.", points,
                              within.arm, with_interval(within.gain, within.interval, 1, 2));
    if (scored != control.scores.end() && control.scores.contains("coherence") && usable("coherence")) {
      const auto& both = all.within_accuracy_and_coherence;
      text += both.arm.empty()
                  ? fmt::format(" None does so at coherence {:g} or more.", analysis.options.tradeoff.coherence)
                  : fmt::format(" At coherence {:g} or more as well: {}, +{}.", analysis.options.tradeoff.coherence,
                                both.arm, with_interval(both.gain, both.interval, 1, 2));
    }
  }
  std::int64_t missing = 0;
  for (const auto& result : results) missing += static_cast<std::int64_t>(result.failed.size());
  if (missing > 0)
    text +=
        fmt::format(" {} judgements failed and count as missing; the table bounds what they could change.", missing);
  for (const auto& [measure, reason] : withheld) text += fmt::format(" No verdict on {}: {}.", measure, reason);
  return text;
}

std::string Report::markdown() const {
  std::string text = "# " + title + "\n\n" + verdict() + "\n";
  for (const auto& note : notes) text += "\n> " + note + "\n";
  text +=
      "\n## Arms\n\nOver all behaviours; 95 % intervals clustered by question. Accuracy in %: strict rule, then of the "
      "answers in the "
      "asked format.\n\n| arm | rows | accuracy | given format | format | truncated | behaviour | coherence "
      "|\n|---|---|---|---|---|---|---|---|\n";
  const auto score = [](const Cell& cell, const char* name) {
    const auto found = cell.scores.find(name);
    return found == cell.scores.end() ? std::string("-")
                                      : with_interval(found->second.summary.mean, found->second.interval, 1, 2);
  };
  for (const auto& arm : analysis.arms) {
    const Cell& c = analysis.cell(arm);
    text += fmt::format("| {} | {} | {} | {} | {} | {} | {} | {} |\n", markdown_cell(arm), c.n,
                        with_interval(c.accuracy.value, c.accuracy.interval, 100, 1),
                        number(c.accuracy_given_format.value * 100, 1), number(c.format.value * 100, 1),
                        number(c.truncated.value * 100, 1), score(c, "behaviour"), score(c, "coherence"));
  }
  text += fmt::format(
      "\n## Against {}\n\n| arm | measure | difference | p | effect | not inferior (p) |\n|---|---|---|---|---|---|\n",
      analysis.options.baseline);
  for (const auto& c : analysis.comparisons) {
    if (!c.behaviour.empty()) continue;
    const bool accuracy = c.measure == "accuracy";
    text += fmt::format("| {} | {} | {} | {} | {} | {} |\n", markdown_cell(c.arm), c.measure,
                        with_interval(c.difference.mean, c.difference.interval, accuracy ? 100 : 1, accuracy ? 1 : 2),
                        p_text(c.p), number(c.effect, 2), accuracy ? p_text(c.p_non_inferior) : "");
  }
  text += fmt::format(
      "\n## Most behaviour at a loss of at most {:g} points of accuracy\n\n| behaviour | arm | gain | and coherence >= "
      "{:g} "
      "| gain | hypervolume |\n|---|---|---|---|---|---|\n",
      analysis.options.tradeoff.accuracy_loss * 100, analysis.options.tradeoff.coherence);
  const auto name_or_none = [](const BestGain& gain) {
    return gain.arm.empty() ? std::string("none") : markdown_cell(gain.arm);
  };
  for (const auto& t : analysis.tradeoffs)
    text += fmt::format(
        "| {} | {} | {} | {} | {} | {} |\n", t.behaviour.empty() ? "**all**" : t.behaviour,
        name_or_none(t.within_accuracy), with_interval(t.within_accuracy.gain, t.within_accuracy.interval, 1, 2),
        name_or_none(t.within_accuracy_and_coherence),
        with_interval(t.within_accuracy_and_coherence.gain, t.within_accuracy_and_coherence.interval, 1, 2),
        with_interval(t.hypervolume, t.hypervolume_interval, 1, 3));
  text +=
      "\n## Each behaviour\n\n| behaviour | arm | accuracy | behaviour score | coherence | accuracy change | p (Holm) "
      "| behaviour change | p (Holm) |\n"
      "|---|---|---|---|---|---|---|---|---|\n";
  for (const auto& behaviour : analysis.behaviours)
    for (const auto& arm : analysis.arms) {
      const auto cell = std::find_if(analysis.cells.begin(), analysis.cells.end(),
                                     [&](const Cell& c) { return c.arm == arm && c.behaviour == behaviour; });
      if (cell == analysis.cells.end()) continue;
      const auto* a = analysis.comparison(arm, "accuracy", behaviour);
      const auto* b = analysis.comparison(arm, "behaviour", behaviour);
      text += fmt::format(
          "| {} | {} | {} | {} | {} | {} | {} | {} | {} |\n", behaviour, markdown_cell(arm),
          with_interval(cell->accuracy.value, cell->accuracy.interval, 100, 1), score(*cell, "behaviour"),
          score(*cell, "coherence"), a ? with_interval(a->difference.mean, a->difference.interval, 100, 1) : "",
          a ? p_text(a->p_holm) : "", b ? with_interval(b->difference.mean, b->difference.interval, 1, 2) : "",
          b ? p_text(b->p_holm) : "");
    }
  if (!settings.empty()) text += "\n## Settings\n\n```json\n" + settings + "\n```\n";
  return text;
}

void Report::write(const std::filesystem::path& file) const {
  const auto folder = file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  require(std::filesystem::is_directory(folder), ErrorCode::io, "Report::write",
          "expected a folder at \"{}\" but it cannot be made: {}", folder.string(), error.message());
  save_results(results, folder / "results.jsonl");
  save_results_csv(results, folder / "results.csv");
  io::detail::write_text_file(folder / "report.md", markdown(), "Report::write");
  for (const auto& [arm, found] : steerings)
    for (const auto& [behaviour, steering] : found) {
      const auto place = folder / "steerings" / arm;
      std::filesystem::create_directories(place, error);
      steering.save(place / (behaviour + ".json"));
    }
  io::detail::write_text_file(file, html(), "Report::write");
}

}  // namespace steer
