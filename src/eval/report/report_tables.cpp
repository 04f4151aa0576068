#include <algorithm>
#include <cmath>
#include <map>

#include "core/format_text.hpp"
#include "eval/report/report_parts.hpp"
#include "eval/report/report_view.hpp"

namespace steer::eval::detail {
namespace {

using nlohmann::ordered_json;

ordered_json text_cell(std::string text) { return {{"value", text}, {"text", text}}; }

ordered_json value_cell(double value, const Interval& interval, double scale, int digits, const std::string& css = "") {
  ordered_json cell{{"value", number(value * scale, digits)},
                    {"text", with_interval(value, interval, scale, digits)},
                    {"css", css},
                    {"small", ordered_json::array()}};
  if (!std::isnan(interval.low) && !std::isnan(value))
    cell["small"].push_back(number(interval.low * scale, digits) + " to " + number(interval.high * scale, digits));
  return cell;
}

void add_small(ordered_json& cell, const std::string& note) {
  cell["small"].push_back(note);
  cell["text"] = cell["text"].get<std::string>() + " (" + note + ")";
}

ordered_json change_cell(const ArmComparison* comparison, double scale, int digits) {
  if (!comparison) return text_cell("-");
  if (comparison->unsteered()) {
    ordered_json cell = text_cell("0");
    add_small(cell, "unsteered: the same answers");
    return cell;
  }
  const auto& d = comparison->difference;
  const char* css = d.interval.low > 0 ? "up" : d.interval.high < 0 ? "down" : "";
  return value_cell(d.mean, d.interval, scale, digits, css);
}

/// Adds what holds of behaviours at large.
void add_over_behaviours(ordered_json& cell, const ArmComparison* comparison, double scale, int digits) {
  if (!comparison || comparison->unsteered() || std::isnan(comparison->over_behaviours.low)) return;
  add_small(cell, format_text("any behaviours: {} to {}", number(comparison->over_behaviours.low * scale, digits),
                              number(comparison->over_behaviours.high * scale, digits)));
}

ordered_json accuracy_change(const ArmComparison* comparison) {
  ordered_json cell = change_cell(comparison, 100, 1);
  if (comparison && !comparison->unsteered())
    add_small(cell, "loss below " + number(std::max(0.0, comparison->loss_bound) * 100, 1));
  add_over_behaviours(cell, comparison, 100, 1);
  return cell;
}

ordered_json score_change(const ArmComparison* comparison) {
  ordered_json cell = change_cell(comparison, 1, 2);
  if (comparison && !comparison->unsteered()) add_small(cell, "p " + p_text(comparison->p));
  add_over_behaviours(cell, comparison, 1, 2);
  return cell;
}

ordered_json score_cell(const ArmCell& cell, const char* name) {
  const auto found = cell.scores.find(name);
  if (found == cell.scores.end()) return text_cell("-");
  const auto& s = found->second;
  ordered_json made = value_cell(s.summary.mean, s.interval, 1, 2);
  if (s.missing > 0)
    add_small(made, format_text("{} missing: {} to {}", s.missing, number(s.worst, 2), number(s.best, 2)));
  return made;
}

ordered_json table(std::vector<std::string> columns) {
  return {{"columns", std::move(columns)}, {"rows", ordered_json::array()}};
}

void add_row(ordered_json& table, std::vector<ordered_json> cells, bool sub = false) {
  table["rows"].push_back({{"sub", sub}, {"cells", std::move(cells)}});
}

/// Whether any cell has this score.
bool measured(const Analysis& a, const char* name) {
  return std::any_of(a.cells.begin(), a.cells.end(), [&](const ArmCell& cell) { return cell.scores.contains(name); });
}

const ArmCell* find_cell(const Analysis& a, const std::string& arm, const std::string& behaviour) {
  for (const auto& cell : a.cells)
    if (cell.arm == arm && cell.behaviour == behaviour && !cell.steered_only) return &cell;
  return nullptr;
}

ordered_json bold(std::string text) { return text_cell(std::move(text)); }

}  // namespace

ordered_json arm_table(const Report& report) {
  const auto& a = report.analysis;
  const Colours colours(report);
  const ArmCell& control = a.cell(a.options.baseline);
  const bool graded = control.accuracy.n > 0;
  std::vector<std::string> columns{"arm", "rows"};
  if (graded) columns.insert(columns.end(), {"accuracy %", "accuracy change"});
  std::vector<const char*> scores;
  for (const char* name : {"behaviour", "coherence"})
    if (measured(a, name)) {
      scores.push_back(name);
      columns.insert(columns.end(), {format_text("{} 1 to 5", name), format_text("{} change", name)});
    }
  ordered_json made = table(std::move(columns));
  const auto add = [&](const ArmCell& c, ordered_json name, bool steered) {
    const auto comparison = [&](const char* measure) {
      return steered ? a.steered_comparison(c.arm, measure) : a.comparison(c.arm, measure);
    };
    std::vector<ordered_json> cells{std::move(name), text_cell(std::to_string(c.n))};
    if (graded) {
      const auto* accuracy = comparison("accuracy");
      cells.push_back(value_cell(c.accuracy.value, c.accuracy.interval, 100, 1));
      if (accuracy &&
          accuracy->difference.n < control.accuracy.n)  // a part of the rows: the baseline has its own there
        add_small(cells.back(), format_text("{} there {}", a.options.baseline,
                                            number((c.accuracy.value - accuracy->difference.mean) * 100, 1)));
      cells.push_back(c.arm == a.options.baseline ? text_cell("") : accuracy_change(accuracy));
    }
    for (const char* score : scores) {
      cells.push_back(score_cell(c, score));
      cells.push_back(c.arm == a.options.baseline ? text_cell("") : score_change(comparison(score)));
    }
    add_row(made, std::move(cells), steered);
  };
  for (const auto& arm : a.arms) {
    ordered_json name = text_cell(arm);
    name["dot"] = colours.of(arm);
    add(a.cell(arm), std::move(name), false);
    if (const ArmCell* steered = a.steered_cell(arm)) add(*steered, text_cell("steered rows"), true);
  }
  return made;
}

ordered_json reason_table(const Report& report) {
  const auto& a = report.analysis;
  const bool graded = a.cell(a.options.baseline).accuracy.n > 0;
  const bool generated =
      std::any_of(report.results.begin(), report.results.end(), [](const ResultRow& r) { return !r.response.empty(); });
  if (!graded || !generated) return nullptr;
  const bool forced =
      std::any_of(a.cells.begin(), a.cells.end(), [](const ArmCell& c) { return c.accuracy_forced.n > 0; });
  const bool screened = std::any_of(a.cells.begin(), a.cells.end(), [](const ArmCell& c) { return c.collapsed.n > 0; });
  std::vector<std::string> columns{"arm", "in the asked format %", "right, of those %", "right, leniently read %",
                                   "cut off %"};
  if (forced) columns.push_back("right, letter forced where cut off %");
  if (screened) columns.push_back("collapse screen %");
  ordered_json made = table(std::move(columns));
  for (const auto& arm : a.arms) {
    const ArmCell& c = a.cell(arm);
    const auto share = [](const ShareStats& s) { return value_cell(s.value, s.interval, 100, 1); };
    std::vector<ordered_json> cells{text_cell(arm), share(c.format), share(c.accuracy_given_format),
                                    share(c.accuracy_lenient), share(c.truncated)};
    if (forced) cells.push_back(share(c.accuracy_forced));
    if (screened) cells.push_back(share(c.collapsed));
    add_row(made, std::move(cells));
  }
  return made;
}

ordered_json against_table(const Report& report) {
  ordered_json made = table({"arm", "measure", "difference", "p", "p, all arms", "effect", "test", "not inferior (p)"});
  for (const auto& c : report.analysis.comparisons) {
    if (!c.behaviour.empty()) continue;
    const bool accuracy = c.measure == "accuracy";
    add_row(made, {text_cell(c.arm + (c.steered_only ? ", steered rows" : "")), text_cell(c.measure),
                   change_cell(&c, accuracy ? 100 : 1, accuracy ? 1 : 2), text_cell(p_text(c.p)),
                   text_cell(c.steered_only ? "" : p_text(c.p_simultaneous)), text_cell(number(c.effect, 2)),
                   text_cell(c.test), text_cell(accuracy && !c.unsteered() ? p_text(c.p_non_inferior) : "")});
  }
  return made["rows"].empty() ? ordered_json() : made;
}

ordered_json limits_view(const Report& report) {
  const auto& a = report.analysis;
  if (a.tradeoffs.back().points.empty()) return nullptr;
  ordered_json made = table({"behaviour", "smallest bound of a loss", "best arm within it", "gain", "best coherent arm",
                             "gain", "hypervolume"});
  const auto arm_of = [](const BestGain& g) { return text_cell(g.arm.empty() ? "none" : g.arm); };
  const auto gain_of = [](const BestGain& g) {
    return g.arm.empty() ? text_cell("") : value_cell(g.gain, g.interval, 1, 2);
  };
  for (const auto& t : a.tradeoffs) {
    if (t.points.empty()) continue;
    ordered_json bound = text_cell(t.safest.empty() ? "-" : number(std::max(0.0, t.safest_bound) * 100, 1) + " points");
    if (!t.safest.empty()) add_small(bound = {{"value", bound["value"]}, {"text", bound["text"]}}, t.safest);
    add_row(made, {bold(t.behaviour.empty() ? "all" : t.behaviour), bound, arm_of(t.within_accuracy),
                   gain_of(t.within_accuracy), arm_of(t.within_accuracy_and_coherence),
                   gain_of(t.within_accuracy_and_coherence), value_cell(t.hypervolume, t.hypervolume_interval, 1, 3)});
  }
  return {{"loss", format_text("{:g}", a.options.accuracy_loss * 100)},
          {"coherence", format_text("{:g}", a.options.coherence)},
          {"table", made}};
}

ordered_json behaviour_table(const Report& report) {
  const auto& a = report.analysis;
  if (a.behaviours.size() < 2) return nullptr;
  std::vector<std::string> columns{"behaviour", "arm", "accuracy %", "accuracy change", "p"};
  std::vector<const char*> scores;
  for (const char* name : {"behaviour", "coherence"})
    if (measured(a, name)) {
      scores.push_back(name);
      columns.push_back(name);
    }
  const bool judged = measured(a, "behaviour");
  if (judged) columns.insert(columns.end(), {"behaviour change", "p"});
  ordered_json made = table(std::move(columns));
  for (const auto& behaviour : a.behaviours)
    for (const auto& arm : a.arms) {
      const ArmCell* c = find_cell(a, arm, behaviour);
      if (!c) continue;
      const auto *accuracy = a.comparison(arm, "accuracy", behaviour),
                 *shown = a.comparison(arm, "behaviour", behaviour);
      std::vector<ordered_json> cells{
          text_cell(behaviour), text_cell(arm), value_cell(c->accuracy.value, c->accuracy.interval, 100, 1),
          change_cell(accuracy, 100, 1), text_cell(accuracy ? p_text(accuracy->p_holm) : "-")};
      for (const char* score : scores) cells.push_back(score_cell(*c, score));
      if (judged) {
        cells.push_back(change_cell(shown, 1, 2));
        cells.push_back(text_cell(shown ? p_text(shown->p_holm) : "-"));
      }
      add_row(made, std::move(cells));
    }
  return made;
}

ordered_json audit_table(const Report& report) {
  struct Sums {
    double rows = 0, fired = 0, seen = 0, edited = 0, change = 0, largest = 0;
  };
  std::map<std::string, Sums> arms;
  for (const auto& r : report.results) {
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
  if (arms.empty()) return nullptr;
  ordered_json made = table({"arm", "rows", "rows edited", "tokens seen", "edited", "mean change", "largest"});
  for (const auto& arm : report.analysis.arms)
    if (const auto found = arms.find(arm); found != arms.end()) {
      const Sums& s = found->second;
      ordered_json fired = text_cell(number(s.fired, 0));
      fired["css"] = s.fired < s.rows ? "down" : "";
      add_row(made, {text_cell(arm), text_cell(number(s.rows, 0)), fired, text_cell(number(s.seen, 0)),
                     text_cell(number(s.edited, 0)), text_cell(number(s.edited > 0 ? s.change / s.edited : NAN, 3)),
                     text_cell(number(s.largest, 3))});
    }
  return made;
}

ordered_json pair_table_view(const Report& report) {
  if (!report.pairs) return nullptr;
  ordered_json made =
      table({"arm", "more of the behaviour: won %", "strength, logits", "better answer: won %", "strength, logits"});
  const auto add_of = [&](std::vector<ordered_json>& cells, const std::vector<PairTable::Row>& rows,
                          const std::string& arm) {
    const auto row = std::ranges::find(rows, arm, &PairTable::Row::arm);
    if (row == rows.end()) return cells.insert(cells.end(), {text_cell("-"), text_cell("-")}), void();
    const auto& within = row->win.interval;
    cells.push_back(value_cell(row->win.mean, within, 100, 1,
                               within.low > 0.5    ? "up"
                               : within.high < 0.5 ? "down"
                                                   : ""));
    cells.push_back(value_cell(row->strength.log, row->strength.interval, 1, 2));
  };
  for (const auto& arm : report.analysis.arms) {
    const auto of = [&](const PairTable::Row& row) { return row.arm == arm; };
    if (std::ranges::none_of(report.pairs->behaviour, of) && std::ranges::none_of(report.pairs->quality, of)) continue;
    std::vector<ordered_json> cells{text_cell(arm)};
    add_of(cells, report.pairs->behaviour, arm);
    add_of(cells, report.pairs->quality, arm);
    add_row(made, std::move(cells));
  }
  return made["rows"].empty()
             ? ordered_json()
             : ordered_json{{"table", made},
                            {"failed", report.pairs->failed > 0 ? ordered_json(report.pairs->failed) : ordered_json()}};
}

ordered_json off_target_view(const Report& report) {
  ordered_json all = ordered_json::array();
  for (const auto& of : report.off_target) {
    const std::size_t n = of.behaviours.size();
    if (n < 2) continue;
    std::vector<std::string> columns{"asked for"};
    columns.insert(columns.end(), of.behaviours.begin(), of.behaviours.end());
    ordered_json made = table(std::move(columns));
    const double tests = static_cast<double>(n * n);
    bool any = false;
    for (std::size_t asked = 0; asked < n; ++asked) {
      std::vector<ordered_json> cells{text_cell(of.behaviours[asked])};
      for (std::size_t shown = 0; shown < n; ++shown) {
        const auto& rise = of.rise[asked][shown];
        ordered_json cell = text_cell(rise.n == 0 ? "-" : signed_number(rise.mean, 2));
        any |= rise.n > 0;
        if (rise.n > 0 && rise.p * tests < 1 - report.analysis.options.level) {
          cell["css"] = rise.mean > 0 ? "up" : "down";
          cell["text"] = cell["text"].get<std::string>() + "*";
        }
        if (asked == shown) cell["bold"] = true;
        cells.push_back(std::move(cell));
      }
      add_row(made, std::move(cells));
    }
    if (any) all.push_back({{"arm", of.arm}, {"open", all.empty()}, {"table", made}});
  }
  return all.empty() ? ordered_json() : ordered_json{{"arms", all}};
}

ordered_json hash_table(const Report& report) {
  ordered_json made = table({"arm", "hash"});
  for (const auto& note : report.arms)
    if (!note.hash.empty()) add_row(made, {text_cell(note.name), text_cell(note.hash)});
  return made["rows"].empty() ? ordered_json() : made;
}

}  // namespace steer::eval::detail
