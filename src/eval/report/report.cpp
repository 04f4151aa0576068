#include <steer/eval/report.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>

#include "core/format_text.hpp"
#include "core/svg.hpp"
#include "eval/report/mustache.hpp"
#include "eval/report/report_parts.hpp"
#include "eval/report/report_view.hpp"
#include "eval/report/templates.hpp"
#include "io/text_file.hpp"

namespace steer {
namespace eval::detail {

std::string number(double value, int digits) {
  if (std::isnan(value)) return "-";
  std::string text = format_text("{:.{}f}", value, digits);
  if (text.find_first_of("123456789") == std::string::npos && text.front() == '-') text.erase(0, 1);  // no "-0.00"
  return text;
}

std::string signed_number(double value, int digits) {
  const std::string text = number(value, digits);
  const bool zero = text.find_first_of("123456789") == std::string::npos;
  return (value > 0 && !zero ? "+" : "") + text;
}

std::string with_interval(double value, const Interval& interval, double scale, int digits) {
  if (std::isnan(value)) return "-";
  const std::string centre = number(value * scale, digits);
  if (std::isnan(interval.low)) return centre;
  return format_text("{} [{}, {}]", centre, number(interval.low * scale, digits),
                     number(interval.high * scale, digits));
}

std::string p_text(double p) {
  if (p < 0.0001) return "< .0001";
  return p < 0.99995 ? format_text("{:.4f}", p).substr(1) : "1";
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

std::string_view template_named(std::string_view name) {
  for (const auto& [known, text] : kTemplates)
    if (known == name) return text;
  fail(ErrorCode::format, "Report", "expected a template called \"{}\" but there is none", name);
}

std::string markdown_cell(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c == '|' || c == '\n') c = ' ';
  return out;
}

}  // namespace

Report make_report(std::vector<ResultRow> results, const AnalysisOptions& options) {
  Report report;
  report.analysis = analyse_results(results, options);
  if (auto pairs = pair_table(results, options.baseline); !pairs.behaviour.empty() || !pairs.quality.empty())
    report.pairs = std::move(pairs);
  report.results = std::move(results);
  for (const auto& arm : report.analysis.arms)
    report.arms.push_back({.name = arm, .description = "", .hash = "", .family = ""});
  return report;
}

std::string Report::markdown() const {
  return render(template_named("report.md"), view_of(*this), {.escape = markdown_cell, .partial = template_named});
}

std::string Report::html() const {
  return render(template_named("report.html"), view_of(*this),
                {.escape = core::detail::escape_markup, .partial = template_named});
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
