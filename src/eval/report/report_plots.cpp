#include <algorithm>
#include <cmath>
#include <map>

#include "core/format_text.hpp"
#include "core/svg.hpp"
#include "eval/report/report_parts.hpp"
#include "eval/report/report_view.hpp"

namespace steer::eval::detail {
namespace {

using namespace core::detail;
using nlohmann::ordered_json;

constexpr PlotRange kScores{0.85, 5.15};  // the scale of judges, with room for the marks at its ends
constexpr const char* kGrey = "#888888";

/// A range of percent that never ends above 100, but for the mark's own width.
PlotRange padded_share(PlotRange x) {
  const double pad = std::max(0.04 * (x.high - x.low), 0.1);
  return {std::max(x.low - pad, -0.5), std::min(x.high, 100.0) + pad};
}

class Plots {
 public:
  explicit Plots(const Report& report) : report_(report), a_(report.analysis), colours_(report) {}

  void add(ordered_json& view) const {
    view["legend"] = ordered_json::array();
    for (const auto& group : colours_.legend())
      view["legend"].push_back({{"name", group}, {"colour", colours_.of_group(group)}});
    view["scatter"] = scatter();
    view["panels"] = panels();
    view["strengths"] = strengths();
  }

 private:
  const ArmCell* find_cell(const std::string& arm, const std::string& behaviour) const {
    for (const auto& cell : a_.cells)
      if (cell.arm == arm && cell.behaviour == behaviour && !cell.steered_only) return &cell;
    return nullptr;
  }

  /// Widens a range by the accuracy of an arm.
  void widen(PlotRange& x, const std::string& arm, const std::string& behaviour) const {
    const auto& bar = find_cell(arm, behaviour)->accuracy.interval;
    if (std::isnan(bar.low)) return;
    x = {std::min(x.low, bar.low * 100), std::max(x.high, bar.high * 100)};
  }

  /// Accuracy against behaviour: a point an arm, arms of one strength family joined, the front dashed.
  Plot tradeoff_plot(const Tradeoff& tradeoff, int width, int height, PlotRange x) const {
    Plot plot{.x_label = "accuracy, strict (%)",
              .y_label = "behaviour (1 to 5)",
              .series = {},
              .width = width,
              .height = height,
              .x_range = padded_share(x),
              .y_range = kScores};
    PlotSeries front{.colour = kGrey, .points = {}, .line = true, .marks = false, .dashed = true};
    for (auto i : tradeoff.front)
      front.points.push_back({tradeoff.points[i].accuracy * 100, tradeoff.points[i].behaviour});
    if (front.points.size() > 1) plot.series.push_back(front);
    std::map<std::string, PlotSeries> groups;
    for (const auto& point : tradeoff.points) {
      const ArmCell* cell = find_cell(point.arm, tradeoff.behaviour);
      if (!cell || !cell->scores.contains("behaviour")) continue;
      auto& series = groups[colours_.group(point.arm)];
      series.colour = colours_.of(point.arm);
      const auto &across = cell->accuracy.interval, &up = cell->scores.at("behaviour").interval;
      series.points.push_back({.x = point.accuracy * 100,
                               .y = point.behaviour,
                               .x_bar = {across.low * 100, across.high * 100},
                               .y_bar = {up.low, up.high},
                               .title = point.arm});
    }
    for (const auto& group : colours_.legend())
      if (auto found = groups.find(group); found != groups.end()) {
        found->second.line = found->second.points.size() > 1;
        plot.series.push_back(found->second);
      }
    return plot;
  }

  ordered_json scatter() const {
    const Tradeoff& all = a_.tradeoffs.back();
    PlotRange x{100, 0};
    for (const auto& point : all.points) widen(x, point.arm, "");
    if (all.points.empty() || x.low > x.high) return nullptr;
    const auto svg = draw(tradeoff_plot(all, 560, 400, x));
    if (svg.empty()) return nullptr;
    return {{"svg", svg}, {"questions", all.questions}, {"axis_cut", padded_share(x).low > 0}};
  }

  ordered_json panels() const {
    if (a_.behaviours.size() < 2) return nullptr;
    PlotRange x{100, 0};  // one scale for all, so that the panels can be compared
    for (const auto& t : a_.tradeoffs)
      for (const auto& point : t.points)
        if (!t.behaviour.empty()) widen(x, point.arm, t.behaviour);
    if (x.low > x.high) return nullptr;
    ordered_json plots = ordered_json::array();
    for (const auto& t : a_.tradeoffs)
      if (!t.behaviour.empty() && !t.points.empty())
        plots.push_back({{"name", t.behaviour}, {"svg", draw(tradeoff_plot(t, 400, 310, x))}});
    return {{"plots", plots}};
  }

  ordered_json strengths() const {
    ordered_json families = ordered_json::array();
    for (const auto& family : strength_families(report_)) {
      ordered_json plots = ordered_json::array();
      for (const char* measure : {"accuracy", "behaviour", "coherence"})
        if (const auto svg = strength_plot(family, measure); !svg.empty()) plots.push_back({{"svg", svg}});
      if (!plots.empty()) families.push_back({{"name", family.name}, {"plots", plots}});
    }
    return families.empty() ? ordered_json() : ordered_json{{"families", families}};
  }

  std::string strength_plot(const StrengthFamily& family, const char* measure) const {
    const bool accuracy = std::string_view(measure) == "accuracy";
    const double scale = accuracy ? 100 : 1;
    PlotSeries series{.colour = colours_.of(family.arms[0]->name), .points = {}, .line = true};
    PlotSeries base{.colour = kGrey, .points = {}, .line = true, .marks = false, .dashed = true};
    PlotRange shares{100, 0};
    for (const auto* arm : family.arms) {
      const ArmCell* c = find_cell(arm->name, "");
      if (!c || (!accuracy && !c->scores.contains(measure))) continue;
      const double value = accuracy ? c->accuracy.value : c->scores.at(measure).summary.mean;
      const auto& bar = accuracy ? c->accuracy.interval : c->scores.at(measure).interval;
      if (std::isnan(value)) continue;
      series.points.push_back(
          {.x = arm->strength, .y = value * scale, .y_bar = {bar.low * scale, bar.high * scale}, .title = arm->name});
      shares = {std::min({shares.low, value * scale, std::isnan(bar.low) ? 100 : bar.low * scale}),
                std::max({shares.high, value * scale, std::isnan(bar.high) ? 0 : bar.high * scale})};
      if (const auto* change = a_.comparison(arm->name, measure)) {  // the baseline on the same rows
        base.points.push_back({arm->strength, (value - change->difference.mean) * scale});
        shares = {std::min(shares.low, base.points.back().y), std::max(shares.high, base.points.back().y)};
      }
    }
    return draw({.x_label = "strength",
                 .y_label = accuracy ? "accuracy (%)" : format_text("{} (1 to 5)", measure),
                 .series = {base, series},
                 .width = 400,
                 .height = 300,
                 .y_range = accuracy ? padded_share(shares) : kScores});
  }

  const Report& report_;
  const Analysis& a_;
  const Colours colours_;
};

}  // namespace

Colours::Colours(const Report& report) {
  const auto families = strength_families(report);
  for (const auto& arm : report.analysis.arms) {
    const auto* note = note_of(report, arm);
    const bool swept =
        note && std::any_of(families.begin(), families.end(), [&](const auto& f) { return f.name == note->family; });
    const std::string group = swept ? note->family : arm;
    if (!colours_.contains(group)) {
      colours_[group] = palette(colours_.size());
      legend_.push_back(group);
    }
    groups_[arm] = group;
  }
}

void add_plots(ordered_json& view, const Report& report) { Plots(report).add(view); }

}  // namespace steer::eval::detail
