// The page: one file, no scripts, no outside resources.

#include <steer/eval/report.hpp>

#include <algorithm>
#include <cmath>
#include <map>

#include "eval/report/plots.hpp"
#include "eval/report/report_parts.hpp"

namespace steer {
namespace {

using namespace eval::detail;

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --bg: #fbfbf9; --card: #ffffff; --text: #1d2023; --soft: #5c6670; --line: #dcdfe3;
  --grid: #b9bec4; --accent: #0b6bcb; --good: #0a7d54; --bad: #b3372b; }
@media (prefers-color-scheme: dark) { :root { --bg: #14171a; --card: #1c2024; --text: #e7e9eb; --soft: #9aa4ae;
  --line: #333a41; --grid: #5a636c; --accent: #6cb2ff; --good: #4cc38a; --bad: #ff8b7e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--text); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1280px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 12px; }
h2 { font-size: 1.2rem; margin: 40px 0 8px; }
h3 { font-size: 1rem; margin: 0 0 4px; }
p { margin: 8px 0; max-width: 46em; }
.verdict { background: var(--card); border: 1px solid var(--line); border-left: 4px solid var(--accent); border-radius: 6px;
  padding: 12px 16px; font-size: 1.05rem; max-width: none; }
.note, .soft { color: var(--soft); font-size: .9rem; }
.note { border-left: 3px solid var(--line); padding-left: 10px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 12px; }
.plot svg { display: block; width: 100%; height: auto; color: var(--text); }
.scatter { max-width: 640px; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); gap: 12px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 8px 0; padding: 0; list-style: none; font-size: .9rem; }
.legend i { display: inline-block; width: .8em; height: .8em; border-radius: 50%; margin-right: .4em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { text-align: right; padding: 5px 8px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--card); }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
td small { color: var(--soft); display: block; font-size: .8em; }
.up { color: var(--good); } .down { color: var(--bad); }
details { margin: 8px 0; } summary { cursor: pointer; padding: 4px 0; }
.answers { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 10px; margin: 8px 0 20px; }
.answers .card { font-size: .85rem; overflow-wrap: anywhere; white-space: pre-wrap; }
.answers b { display: block; white-space: normal; }
pre { overflow-x: auto; font-size: .8rem; background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 12px; }
)";

class Page {
 public:
  explicit Page(const Report& report) : report_(report), families_(strength_families(report)) {
    for (const auto& arm : report.analysis.arms) {
      const auto* note = note_of(report, arm);
      const bool swept = note && std::any_of(families_.begin(), families_.end(),
                                             [&](const auto& f) { return f.name == note->family; });
      const std::string group = swept ? note->family : arm;
      if (!colours_.contains(group)) {
        colours_[group] = palette(colours_.size());
        legend_.push_back(group);
      }
      group_[arm] = group;
    }
  }

  std::string text() {
    out_ =
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
        "content=\"width=device-width, initial-scale=1\">\n<title>" +
        escape_html(report_.title) + "</title>\n<style>" + kStyle + "</style>\n</head>\n<body>\n<main>\n<h1>" +
        escape_html(report_.title) + "</h1>\n<p class=\"verdict\">" + escape_html(report_.verdict()) + "</p>\n";
    for (const auto& note : report_.notes) out_ += "<p class=\"note\">" + escape_html(note) + "</p>\n";
    scatter();
    arm_table();
    limits();
    behaviours();
    strengths();
    samples();
    audit();
    reading();
    settings();
    return out_ + "</main>\n</body>\n</html>\n";
  }

 private:
  std::string colour(const std::string& arm) const { return colours_.at(group_.at(arm)); }

  std::string picture(const Plot& plot) {
    const auto svg = draw(plot, fmt::format("p{}", ++plots_));
    if (svg) return "<div class=\"plot\">" + *svg + "</div>\n";
    return "<p class=\"note\">No plot: gnuplot could not be run (install gnuplot-nox). The numbers are in the "
           "tables.</p>\n";
  }

  void legend() {
    out_ += "<ul class=\"legend\">";
    for (const auto& group : legend_)
      out_ += "<li><i style=\"background:" + colours_.at(group) + "\"></i>" + escape_html(group) + "</li>";
    out_ += "</ul>\n";
  }

  const Cell* find_cell(const std::string& arm, const std::string& behaviour) const {
    for (const auto& cell : report_.analysis.cells)
      if (cell.arm == arm && cell.behaviour == behaviour) return &cell;
    return nullptr;
  }

  /// Accuracy against behaviour: a point an arm, arms of one strength family joined, the front dashed.
  Plot tradeoff_plot(const Tradeoff& tradeoff, int width, int height, const Interval none) const {
    Plot plot{.x_label = "accuracy, strict (%)",
              .y_label = "behaviour (1 to 5)",
              .series = {},
              .width = width,
              .height = height};
    PlotSeries front{.colour = "#888888", .points = {}, .line = true, .marks = false, .dashed = true};
    for (auto i : tradeoff.front)
      front.points.push_back({tradeoff.points[i].accuracy * 100, tradeoff.points[i].behaviour, none, none});
    if (front.points.size() > 1) plot.series.push_back(front);
    std::map<std::string, PlotSeries> groups;
    for (const auto& point : tradeoff.points) {
      const Cell* cell = find_cell(point.arm, tradeoff.behaviour);
      if (!cell || !cell->scores.contains("behaviour")) continue;
      auto& series = groups[group_.at(point.arm)];
      series.colour = colour(point.arm);
      const auto& x = cell->accuracy.interval;
      series.points.push_back(
          {point.accuracy * 100, point.behaviour, {x.low * 100, x.high * 100}, cell->scores.at("behaviour").interval});
    }
    for (const auto& group : legend_)
      if (auto found = groups.find(group); found != groups.end()) {
        found->second.line = found->second.points.size() > 1;
        plot.series.push_back(found->second);
      }
    return plot;
  }

  static constexpr Interval kScores{0.85, 5.15};  ///< the scale of judges, with room for the marks at its ends

  /// A range of percent that never ends above 100, but for the mark's own width.
  static Interval padded_share(Interval x) {
    const double pad = std::max(0.04 * (x.high - x.low), 0.1);
    return {std::max(x.low - pad, -0.5), std::min(x.high, 100.0) + pad};
  }

  void scatter() {
    const Tradeoff& all = report_.analysis.tradeoffs.back();
    if (all.points.empty()) return;
    Plot plot = tradeoff_plot(all, 420, 320, {NAN, NAN});
    Interval x{100, 0};
    for (const auto& point : all.points) {
      const auto& bar = find_cell(point.arm, "")->accuracy.interval;
      x = {std::min(x.low, bar.low * 100), std::max(x.high, bar.high * 100)};
    }
    plot.x_range = padded_share(x);
    plot.y_range = kScores;
    out_ += fmt::format(
        "<h2>The trade-off</h2>\n<p class=\"soft\">Up and to the right is better. Bars are 95 % intervals, clustered "
        "by question; the "
        "dashed line joins the arms that no other arm beats in both. {}</p>\n<div class=\"card scatter\">",
        plot.x_range->low > 0 ? "The accuracy axis does not begin at 0." : "");
    out_ += picture(plot);
    legend();
    out_ += "</div>\n";
  }

  static std::string value_cell(double value, const Interval& interval, double scale, int digits,
                                const std::string& css = "") {
    std::string cell = css.empty() ? "<td>" : "<td class=\"" + css + "\">";
    cell += number(value * scale, digits);
    if (!std::isnan(interval.low) && !std::isnan(value))
      cell += "<small>" + number(interval.low * scale, digits) + " to " + number(interval.high * scale, digits) +
              "</small>";
    return cell + "</td>";
  }

  static std::string change_cell(const Comparison* comparison, double scale, int digits,
                                 const std::string& below = "") {
    if (!comparison) return "<td>-</td>";
    const auto& d = comparison->difference;
    std::string cell = value_cell(d.mean, d.interval, scale, digits,
                                  d.interval.low > 0    ? "up"
                                  : d.interval.high < 0 ? "down"
                                                        : "");
    if (!below.empty()) cell.insert(cell.size() - 5, "<small>" + escape_html(below) + "</small>");
    return cell;
  }

  static std::string score_cell(const Cell& cell, const char* name) {
    const auto found = cell.scores.find(name);
    if (found == cell.scores.end()) return "<td>-</td>";
    const auto& s = found->second;
    std::string text = value_cell(s.summary.mean, s.interval, 1, 2);
    if (s.missing > 0)
      text.insert(text.size() - 5,
                  fmt::format("<small>{} missing: {} to {}</small>", s.missing, number(s.worst, 2), number(s.best, 2)));
    return text;
  }

  void arm_table() {
    const auto& a = report_.analysis;
    out_ +=
        "<h2>The arms</h2>\n<p class=\"soft\">Over all behaviours, with 95 % intervals. Accuracy counts an answer "
        "outside the asked "
        "format as wrong; the columns after it keep the reasons apart. Changes are against " +
        escape_html(a.options.baseline) +
        ", question by question; coloured where the interval leaves out zero.</p>\n<div class=\"card "
        "wide\"><table>\n<tr><th>arm</th>"
        "<th>rows</th><th>accuracy<br>%</th><th>given<br>format %</th><th>lenient<br>%</th><th>format<br>%</th><th>cut "
        "off<br>%</th><th>collapse<br>screen %</th>"
        "<th>behaviour<br>1 to 5</th><th>coherence<br>1 to 5</th><th>accuracy<br>change</th>"
        "<th>behaviour<br>change</th><th>coherence<br>change</th></tr>\n";
    for (const auto& arm : a.arms) {
      const Cell& c = a.cell(arm);
      const auto *accuracy = a.comparison(arm, "accuracy"), *behaviour = a.comparison(arm, "behaviour");
      out_ += "<tr><td><b style=\"color:" + colour(arm) + "\">&#9679;</b> " + escape_html(arm) +
              fmt::format("</td><td>{}</td>", c.n) + value_cell(c.accuracy.value, c.accuracy.interval, 100, 1) +
              "<td>" + number(c.accuracy_given_format.value * 100, 1) + "</td><td>" +
              number(c.accuracy_lenient.value * 100, 1) + "</td><td>" + number(c.format.value * 100, 1) + "</td><td>" +
              number(c.truncated.value * 100, 1) + "</td><td>" + number(c.collapsed.value * 100, 1) + "</td>" +
              score_cell(c, "behaviour") + score_cell(c, "coherence") +
              change_cell(accuracy, 100, 1, accuracy ? "not worse: p " + p_text(accuracy->p_non_inferior) : "") +
              change_cell(behaviour, 1, 2, behaviour ? "p " + p_text(behaviour->p) : "") +
              change_cell(a.comparison(arm, "coherence"), 1, 2) + "</tr>\n";
    }
    out_ += "</table></div>\n";
    std::string described;
    for (const auto& note : report_.arms)
      if (!note.description.empty())
        described += "<li><b>" + escape_html(note.name) + "</b>: " + escape_html(note.description) + "</li>\n";
    if (!described.empty())
      out_ += "<details><summary>What each arm is</summary><ul>\n" + described + "</ul></details>\n";
  }

  void limits() {
    const auto& a = report_.analysis;
    if (a.tradeoffs.back().points.empty()) return;
    out_ += fmt::format(
        "<h2>What can be had cheaply</h2>\n<p class=\"soft\">The most behaviour gained over {} while losing at most "
        "{:g} points of "
        "accuracy, and with coherence of {:g} or more as well. Intervals are bootstrapped over questions and include "
        "the "
        "choice of the arm. Hypervolume is the share of the accuracy-behaviour plane that the arms reach "
        "together.</p>\n",
        escape_html(a.options.baseline), a.options.tradeoff.accuracy_loss * 100, a.options.tradeoff.coherence);
    out_ +=
        "<div class=\"card wide\"><table>\n<tr><th>behaviour</th><th>arm</th><th>gain</th><th>coherent "
        "arm</th><th>gain</th><th>hypervolume</th></tr>\n";
    for (const auto& t : a.tradeoffs) {
      const auto gain = [](const BestGain& g) {
        return "<td>" + (g.arm.empty() ? "none" : escape_html(g.arm)) + "</td>" + value_cell(g.gain, g.interval, 1, 2);
      };
      out_ += "<tr><td>" + (t.behaviour.empty() ? "<b>all</b>" : escape_html(t.behaviour)) + "</td>" +
              gain(t.within_accuracy) + gain(t.within_accuracy_and_coherence) +
              value_cell(t.hypervolume, t.hypervolume_interval, 1, 3) + "</tr>\n";
    }
    out_ += "</table></div>\n";
  }

  void behaviours() {
    const auto& a = report_.analysis;
    if (a.behaviours.size() < 2) return;
    out_ += "<h2>Each behaviour</h2>\n";
    legend();
    // One scale for all, so that the panels can be compared.
    Interval x{100, 0};
    for (const auto& t : a.tradeoffs)
      for (const auto& point : t.points) {
        if (t.behaviour.empty()) continue;
        const auto& bar = find_cell(point.arm, t.behaviour)->accuracy.interval;
        x = {std::min(x.low, bar.low * 100), std::max(x.high, bar.high * 100)};
      }
    out_ += "<div class=\"grid\">\n";
    for (const auto& t : a.tradeoffs) {
      if (t.behaviour.empty() || t.points.empty()) continue;
      Plot plot = tradeoff_plot(t, 400, 310, {NAN, NAN});
      plot.x_range = padded_share(x);
      plot.y_range = kScores;
      out_ += "<div class=\"card\"><h3>" + escape_html(t.behaviour) + "</h3>" + picture(plot) + "</div>\n";
    }
    out_ +=
        "</div>\n<details><summary>The same as a table, with Holm-adjusted p-values</summary><div class=\"card "
        "wide\"><table>\n<tr><th>behaviour</th>"
        "<th>arm</th><th>accuracy %</th><th>behaviour</th><th>coherence</th><th>accuracy "
        "change</th><th>p</th><th>behaviour change</th><th>p</th></tr>\n";
    for (const auto& behaviour : a.behaviours)
      for (const auto& arm : a.arms) {
        const Cell* c = find_cell(arm, behaviour);
        if (!c) continue;
        const auto *accuracy = a.comparison(arm, "accuracy", behaviour),
                   *shown = a.comparison(arm, "behaviour", behaviour);
        out_ += "<tr><td>" + escape_html(behaviour) + "</td><td>" + escape_html(arm) + "</td>" +
                value_cell(c->accuracy.value, c->accuracy.interval, 100, 1) + score_cell(*c, "behaviour") +
                score_cell(*c, "coherence") + change_cell(accuracy, 100, 1) + "<td>" +
                (accuracy ? p_text(accuracy->p_holm) : "-") + "</td>" + change_cell(shown, 1, 2) + "<td>" +
                (shown ? p_text(shown->p_holm) : "-") + "</td></tr>\n";
      }
    out_ += "</table></div></details>\n";
  }

  void strengths() {
    if (families_.empty()) return;
    const auto& a = report_.analysis;
    out_ +=
        "<h2>Strength</h2>\n<p class=\"soft\">The same steering at several strengths; 1 is the arm's own, 0 is "
        "none.</p>\n";
    for (const auto& family : families_) {
      out_ += "<h3>" + escape_html(family.name) + "</h3>\n<div class=\"grid\">\n";
      for (const char* measure : {"accuracy", "behaviour", "coherence"}) {
        const bool accuracy = std::string_view(measure) == "accuracy";
        PlotSeries series{.colour = colour(family.arms[0]->name), .points = {}, .line = true};
        for (const auto* arm : family.arms) {
          const Cell* c = find_cell(arm->name, "");
          if (!c) continue;
          if (accuracy) {
            series.points.push_back({arm->strength,
                                     c->accuracy.value * 100,
                                     {NAN, NAN},
                                     {c->accuracy.interval.low * 100, c->accuracy.interval.high * 100}});
          } else if (const auto found = c->scores.find(measure); found != c->scores.end()) {
            series.points.push_back({arm->strength, found->second.summary.mean, {NAN, NAN}, found->second.interval});
          }
        }
        if (series.points.empty()) continue;
        PlotSeries base{.colour = "#888888", .points = {}, .line = true, .marks = false, .dashed = true};
        for (std::size_t i = 0; i < family.arms.size() && i < series.points.size();
             ++i)  // the baseline on the same rows
          if (const auto* change = a.comparison(family.arms[i]->name, measure))
            base.points.push_back({family.arms[i]->strength,
                                   series.points[i].y - change->difference.mean * (accuracy ? 100 : 1),
                                   {NAN, NAN},
                                   {NAN, NAN}});
        Plot plot{.x_label = "strength",
                  .y_label = accuracy ? "accuracy (%)" : fmt::format("{} (1 to 5)", measure),
                  .series = {base, series},
                  .width = 400,
                  .height = 300};
        Interval shares{100, 0};
        for (const auto* line : {&base, &series})
          for (const auto& [at, value, none, bar] : line->points)
            shares = {std::min({shares.low, value, std::isnan(bar.low) ? value : bar.low}),
                      std::max({shares.high, value, std::isnan(bar.high) ? value : bar.high})};
        plot.y_range = accuracy ? padded_share(shares) : kScores;
        out_ += "<div class=\"card\">" + picture(plot) + "</div>\n";
      }
      out_ += "</div>\n<p class=\"soft\">Dashed: " + escape_html(a.options.baseline) + " on the same questions.</p>\n";
    }
  }

  void samples() {
    constexpr std::size_t kLongest = 700;
    const auto& a = report_.analysis;
    std::map<std::string, const Result*> by_key;
    for (const auto& r : report_.results) by_key[r.key()] = &r;
    std::map<std::string, const Question*> questions;
    for (const auto& q : report_.questions) questions[q.id] = &q;
    std::string text;
    for (const auto& behaviour : a.behaviours) {
      const auto chosen = choose_samples(report_, behaviour);
      if (chosen.questions.empty()) continue;
      text += std::string(text.empty() ? "<details open>" : "<details>") + "<summary>" + escape_html(behaviour) +
              "</summary>\n";
      for (const auto& [why, id] : chosen.questions) {
        text += "<p><b>" + std::string(why) + "</b> <span class=\"soft\">" + escape_html(id) + "</span>";
        if (const auto q = questions.find(id); q != questions.end()) {
          text += "<br>" + escape_html(q->second->text);
          for (std::size_t c = 0; c < q->second->choices.size(); ++c)
            text += (c == 0 ? "<br>" : " &middot; ") +
                    std::string(static_cast<int>(c) == q->second->answer ? "<b>" : "<span>") +
                    static_cast<char>('A' + c) + ". " + escape_html(q->second->choices[c]) +
                    (static_cast<int>(c) == q->second->answer ? "</b>" : "</span>");
        }
        text += "</p>\n<div class=\"answers\">";
        for (const auto& arm : a.arms) {
          const auto found = by_key.find(arm + "|" + behaviour + "|" + id);
          if (found == by_key.end()) continue;
          const Result& r = *found->second;
          const auto score = [&](const char* name) {
            return r.scores.contains(name) ? fmt::format(" &middot; {} {}", name, number(r.scores.at(name), 1))
                                           : std::string();
          };
          std::string response = r.response;
          if (response.size() > kLongest) {
            std::size_t cut = kLongest;
            while (cut > 0 && (static_cast<unsigned char>(response[cut]) & 0xC0) == 0x80)
              --cut;  // not inside a character
            response = response.substr(0, cut) + " ...";
          }
          text += "<div class=\"card\"><b><i style=\"color:" + colour(arm) + "\">&#9679;</i> " + escape_html(arm) +
                  "</b><span class=\"soft\">answer " + (r.answer.empty() ? "none" : escape_html(r.answer)) +
                  score("behaviour") + score("coherence") + "</span>\n" + escape_html(response) + "</div>";
        }
        text += "</div>\n";
      }
      text += "</details>\n";
    }
    if (text.empty()) return;
    out_ += "<h2>Sample answers</h2>\n<p class=\"soft\">Side by side, for each behaviour: where " +
            escape_html(sampled_arm(report_)) + " gained most and least behaviour over " +
            escape_html(a.options.baseline) +
            ", and one question drawn by the run's seed. The right choice is bold.</p>\n" + text;
  }

  void audit() {
    struct Sums {
      double rows = 0, fired = 0, seen = 0, edited = 0, change = 0, largest = 0;
    };
    std::map<std::string, Sums> arms;
    for (const auto& r : report_.results) {
      if (r.edits.empty()) continue;
      const auto value = [&](const char* name) { return r.edits.contains(name) ? r.edits.at(name) : 0.0; };
      Sums& s = arms[r.arm];
      ++s.rows;
      s.fired += value("edited") > 0;
      s.seen += value("seen");
      s.edited += value("edited");
      s.change += value("mean_change") * value("edited");
      s.largest = std::max(s.largest, value("max_change"));
    }
    if (arms.empty()) return;
    out_ +=
        "<h2>Audit of edits</h2>\n<p class=\"soft\">What steering did to the activations. An arm that edited nothing "
        "is no steering, "
        "whatever its name; change is relative to the activation's norm.</p>\n<div class=\"card "
        "wide\"><table>\n<tr><th>arm</th><th>rows</th>"
        "<th>rows edited</th><th>tokens seen</th><th>edited</th><th>mean change</th><th>largest</th></tr>\n";
    for (const auto& arm : report_.analysis.arms)
      if (const auto found = arms.find(arm); found != arms.end()) {
        const Sums& s = found->second;
        out_ += fmt::format(
            "<tr><td>{}</td><td>{}</td><td class=\"{}\">{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            escape_html(arm), s.rows, s.fired < s.rows ? "down" : "", s.fired, s.seen, s.edited,
            number(s.edited > 0 ? s.change / s.edited : NAN, 3), number(s.largest, 3));
      }
    out_ += "</table></div>\n";
  }

  void reading() {
    const auto& o = report_.analysis.options;
    out_ += fmt::format(
        "<h2>How to read this</h2>\n<p>Every arm answered the same questions, so arms are compared question by "
        "question. Rows that share a "
        "question are alike: intervals and tests over all behaviours treat the question, not the row, as the unit "
        "(cluster-robust errors, "
        "Student's distribution; sign permutation of whole questions). Per behaviour: exact McNemar for accuracy, "
        "Wilcoxon's signed ranks "
        "for scores, Holm's adjustment over behaviours. &quot;Not worse&quot; tests against a loss of {:g} points "
        "or more; a large p "
        "there means undecided, not equal. The collapse screen is lexical: a warning, not a coherence score. A failed "
        "judgement stays in the table as "
        "missing, with the means it would give at the worst and at the best.</p>\n",
        o.margin * 100);
  }

  void settings() {
    if (report_.settings.empty()) return;
    out_ += "<h2>Settings and hashes</h2>\n";
    std::string rows;
    for (const auto& note : report_.arms)
      if (!note.hash.empty())
        rows += "<tr><td>" + escape_html(note.name) + "</td><td><code>" + note.hash + "</code></td></tr>\n";
    if (!rows.empty())
      out_ += "<div class=\"card wide\"><table><tr><th>arm</th><th>hash</th></tr>\n" + rows + "</table></div>\n";
    out_ += "<details><summary>Every setting</summary><pre>" + escape_html(report_.settings) + "</pre></details>\n";
  }

  const Report& report_;
  std::vector<StrengthFamily> families_;
  std::map<std::string, std::string> colours_, group_;
  std::vector<std::string> legend_;
  std::string out_;
  int plots_ = 0;
};

}  // namespace

std::string Report::html() const { return Page(*this).text(); }

}  // namespace steer
