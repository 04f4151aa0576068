// The strength curve as SVG: a panel a form, side by side; strength across, shares from 0 to 1 upwards.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include <steer/features/auto_steer.hpp>

namespace steer {
namespace {

constexpr double panel_width = 250, panel_height = 190, left = 34, right = 12, top = 26, bottom = 30;
constexpr std::size_t columns = 3;
constexpr const char *behaviour_colour = "#0aa57a", *accuracy_colour = "#d9622b";

std::string escaped(const std::string& text) {
  std::string safe;
  for (const char c : text) safe += c == '&' ? "&amp;" : c == '<' ? "&lt;" : std::string(1, c);
  return safe;
}

/// Of each strength the trial that gains most.
using Curve = std::map<double, const AutoSteerTrial*>;

/// One form's axes and curves, its corner at (x, y).
std::string panel(const std::string& form, const Curve& curve, const AutoSteerTrial* chosen, double x, double y) {
  const double widest = curve.rbegin()->first;
  const auto across = [&](double strength) { return x + left + strength / widest * (panel_width - left - right); };
  const auto up = [&](double share) {
    return y + panel_height - bottom - std::clamp(share, 0.0, 1.2) / 1.2 * (panel_height - top - bottom);
  };
  std::string svg = fmt::format("<text x='{:.0f}' y='{:.0f}' font-weight='bold'>{}</text>\n", x + left, y + 14, form);
  for (const double share : {0.0, 0.5, 1.0})
    svg += fmt::format(
        "<path d='M{:.1f} {:.1f}H{:.1f}' stroke='#888' stroke-opacity='.35'/><text x='{:.1f}' y='{:.1f}' "
        "text-anchor='end'>{:g}</text>\n",
        across(0), up(share), across(widest), across(0) - 4, up(share) + 4, share);
  std::string line, accuracy, marks;
  for (const auto& [strength, trial] : curve) {
    svg += fmt::format("<text x='{:.1f}' y='{:.1f}' text-anchor='middle'>{:g}</text>\n", across(strength),
                       y + panel_height - bottom + 15, strength);
    line += fmt::format("{:.1f},{:.1f} ", across(strength), up(trial->behaviour));
    if (std::isfinite(trial->accuracy))
      accuracy += fmt::format("{:.1f},{:.1f} ", across(strength), up(trial->accuracy));
    marks += fmt::format(
        "<circle cx='{:.1f}' cy='{:.1f}' r='{}' fill='{}' stroke='{}'{}><title>behaviour {:.2f}, accuracy {:.2f}: "
        "{}</title></circle>\n",
        across(strength), up(trial->behaviour), trial == chosen ? 6 : 3.5,
        trial->within_bounds ? behaviour_colour : "#fff", behaviour_colour,
        std::isfinite(trial->nll_gain) ? "" : " stroke-dasharray='2 2'", trial->behaviour, trial->accuracy,
        trial->dropped.empty() ? "chosen" : trial->dropped);
  }
  svg += fmt::format("<polyline points='{}' fill='none' stroke='{}' stroke-width='1.6'/>\n", line, behaviour_colour);
  svg += fmt::format("<polyline points='{}' fill='none' stroke='{}' stroke-width='1.6' stroke-dasharray='5 4'/>\n",
                     accuracy, accuracy_colour);
  return svg + marks;
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
  const auto rows = (curves.size() + columns - 1) / columns;
  const double width = panel_width * static_cast<double>(std::min(columns, std::max<std::size_t>(curves.size(), 2)));
  const double height = panel_height * static_cast<double>(rows) + 44;
  std::string svg = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {0:.0f} {1:.0f}' width='{0:.0f}' height='{1:.0f}' "
      "font-family='sans-serif' font-size='11' "
      "fill='#333'>\n<rect width='100%' height='100%' fill='#fff'/>\n<text x='8' y='16' font-size='13'>{2} ({3}): "
      "{4}</text>\n",
      width, height, escaped(behaviour), to_string(mode), to_string(verdict));
  svg += fmt::format(
      "<text x='8' y='34'><tspan fill='{}'>behaviour gained</tspan> (1: as asking; filled: within bounds; large: "
      "chosen; dashed: first "
      "tokens only), <tspan fill='{}'>accuracy</tspan></text>\n",
      behaviour_colour, accuracy_colour);
  std::size_t i = 0;
  for (const auto& [form, curve] : curves) {
    svg += panel(form, curve, best, panel_width * static_cast<double>(i % columns),
                 44 + panel_height * static_cast<double>(i / columns));
    ++i;
  }
  return svg + "</svg>\n";
}

}  // namespace steer
