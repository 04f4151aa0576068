// The strength curve as SVG: a panel a form, side by side; strength across, shares upwards.

#include <algorithm>
#include <cmath>
#include <map>

#include <steer/features/auto_steer.hpp>

#include "core/format_text.hpp"
#include "core/svg.hpp"

namespace steer {
namespace {

using namespace core::detail;

constexpr int kWidth = 270, kHeight = 220, kHead = 48;
constexpr std::size_t kColumns = 3;
constexpr const char *kBehaviour = "#0aa57a", *kAccuracy = "#d9622b";

/// Of each strength the trial that gains most.
using Curve = std::map<double, const AutoSteerTrial*>;

Plot panel(const std::string& form, const Curve& curve, const AutoSteerTrial* chosen) {
  PlotSeries behaviour{.colour = kBehaviour, .points = {}, .line = true};
  PlotSeries accuracy{.colour = kAccuracy, .points = {}, .line = true, .marks = false, .dashed = true};
  for (const auto& [strength, trial] : curve) {
    behaviour.points.push_back(
        {.x = strength,
         .y = trial->behaviour,
         .title = format_text("behaviour {:.2f}, accuracy {:.2f}{}: {}", trial->behaviour, trial->accuracy,
                              std::isfinite(trial->nll_gain) ? "" : " (first tokens only)",
                              trial->dropped.empty() ? "chosen" : trial->dropped),
         .size = trial == chosen ? 6 : 3.5,
         .hollow = !trial->within_bounds});
    accuracy.points.push_back({.x = strength, .y = trial->accuracy});
  }
  return {.title = form,
          .x_label = "strength",
          .y_label = "share",
          .series = {accuracy, behaviour},
          .width = kWidth,
          .height = kHeight,
          .x_range = PlotRange{0, curve.rbegin()->first * 1.05},
          .y_range = PlotRange{0, 1.2}};
}

}  // namespace

std::string AutoSteerResult::to_svg() const {
  std::map<std::string, Curve> curves;
  const AutoSteerTrial* best = chosen < 0 ? nullptr : &trials[static_cast<std::size_t>(chosen)];
  for (const auto& trial : trials) {
    auto& shown = curves[trial.form][trial.strength];
    // What was measured in full stands for its strength, rather than what seemed better on the first tokens.
    const auto weight = [&](const AutoSteerTrial& t) { return std::pair(std::isfinite(t.nll_gain), t.behaviour); };
    if (!shown || &trial == best || (shown != best && weight(trial) > weight(*shown))) shown = &trial;
  }
  const std::size_t rows = (curves.size() + kColumns - 1) / kColumns;
  const auto across = static_cast<int>(std::clamp<std::size_t>(curves.size(), 2, kColumns));
  std::string svg = format_text(
      "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {0} {1}' width='{0}' height='{1}' font-family='system-ui, "
      "sans-serif' font-size='12' color='#333' fill='#333'>\n<rect width='100%' height='100%' fill='#fff'/>\n"
      "<text x='8' y='18' font-size='13'>{2} ({3}): {4}</text>\n<text x='8' y='36'><tspan fill='{5}'>behaviour "
      "gained</tspan> (1: as asking; filled: within bounds; large: chosen), <tspan "
      "fill='{6}'>accuracy</tspan></text>\n",
      kWidth * across, kHeight * static_cast<int>(rows) + kHead, escape_markup(behaviour), to_string(mode),
      to_string(verdict), kBehaviour, kAccuracy);
  std::size_t i = 0;
  for (const auto& [form, curve] : curves) {
    svg += draw_panel(panel(form, curve, best), kWidth * static_cast<double>(i % kColumns),
                      kHead + kHeight * static_cast<double>(i / kColumns));
    ++i;
  }
  return svg + "</svg>\n";
}

}  // namespace steer
