#include "core/svg.hpp"

#include <algorithm>
#include <iterator>

#include "core/format_text.hpp"

namespace steer::core::detail {
namespace {

constexpr double kLeft = 52, kRight = 12, kTop = 10, kBottom = 42, kTitle = 18, kTitleLine = 14;
constexpr double kBoldLetter = 7;  // of a title, across, on average
constexpr const char* kGrid = "var(--grid, #9aa0a6)";

bool finite(const PlotPoint& p) { return std::isfinite(p.x) && std::isfinite(p.y); }

/// From the data to the paper.
struct Axis {
  PlotRange range;
  double from = 0, to = 0;
  double at(double value) const {
    return from + (std::clamp(value, range.low, range.high) - range.low) / (range.high - range.low) * (to - from);
  }
  bool holds(double value) const { return value >= range.low - 1e-9 && value <= range.high + 1e-9; }
};

/// What the points and their bars span, with some room.
PlotRange span_of(const Plot& plot, bool across) {
  PlotRange range{INFINITY, -INFINITY};
  const auto take = [&](double value) {
    if (!std::isfinite(value)) return;
    range = {std::min(range.low, value), std::max(range.high, value)};
  };
  for (const auto& series : plot.series)
    for (const auto& p : series.points) {
      if (!finite(p)) continue;
      const PlotRange& bar = across ? p.x_bar : p.y_bar;
      take(across ? p.x : p.y);
      take(bar.low);
      take(bar.high);
    }
  double room = 0.05 * (range.high - range.low);
  if (!(room > 0)) room = std::max(0.05 * std::abs(range.low), 0.05);
  return {range.low - room, range.high + room};
}

std::string line(double x1, double y1, double x2, double y2, std::string_view style) {
  return format_text("<path d='M{:.1f} {:.1f}L{:.1f} {:.1f}' {}/>\n", x1, y1, x2, y2, style);
}

std::string text(double x, double y, std::string_view words, std::string_view style) {
  return format_text("<text x='{:.1f}' y='{:.1f}' fill='currentColor' {}>{}</text>\n", x, y, style,
                     escape_markup(words));
}

/// A title's words in lines no wider than `width`; a longer word has a line of its own.
std::vector<std::string> title_lines(std::string_view title, double width) {
  std::vector<std::string> lines;
  while (!title.empty()) {
    const auto word = title.substr(0, title.find(' '));
    title.remove_prefix(std::min(title.size(), word.size() + 1));
    if (lines.empty() || kBoldLetter * static_cast<double>(lines.back().size() + 1 + word.size()) > width)
      lines.emplace_back(word);
    else
      lines.back().append(" ").append(word);
  }
  return lines;
}

std::string axes(const Plot& plot, const Axis& x, const Axis& y) {
  const std::string grid = format_text("stroke='{}' stroke-opacity='.45' stroke-width='.6'", kGrid);
  std::string svg;
  for (double tick : ticks(x.range, 6)) {
    svg += line(x.at(tick), y.from, x.at(tick), y.to, grid);
    svg += text(x.at(tick), y.from + 15, format_text("{:g}", tick), "text-anchor='middle'");
  }
  for (double tick : ticks(y.range, 6)) {
    svg += line(x.from, y.at(tick), x.to, y.at(tick), grid);
    svg += text(x.from - 6, y.at(tick) + 4, format_text("{:g}", tick), "text-anchor='end'");
  }
  svg += format_text("<path d='M{:.1f} {:.1f}V{:.1f}H{:.1f}' fill='none' stroke='currentColor'/>\n", x.from, y.to,
                     y.from, x.to);
  svg += text((x.from + x.to) / 2, y.from + 34, plot.x_label, "text-anchor='middle'");
  const double middle = (y.from + y.to) / 2, edge = x.from - kLeft + 12;
  svg += text(edge, middle, plot.y_label,
              format_text("text-anchor='middle' transform='rotate(-90 {:.1f} {:.1f})'", edge, middle));
  return svg;
}

std::string bars(const PlotPoint& p, const Axis& x, const Axis& y, const std::string& colour) {
  const std::string style = format_text("stroke='{}' stroke-width='1.4'", colour);
  std::string svg;
  if (std::isfinite(p.x_bar.low) && std::isfinite(p.x_bar.high))
    svg += line(x.at(p.x_bar.low), y.at(p.y), x.at(p.x_bar.high), y.at(p.y), style);
  if (std::isfinite(p.y_bar.low) && std::isfinite(p.y_bar.high))
    svg += line(x.at(p.x), y.at(p.y_bar.low), x.at(p.x), y.at(p.y_bar.high), style);
  return svg;
}

std::string draw_series(const PlotSeries& series, const Axis& x, const Axis& y) {
  std::string svg, path;
  for (const auto& p : series.points)
    if (finite(p)) path += format_text("{:.1f},{:.1f} ", x.at(p.x), y.at(p.y));
  if (series.line && !path.empty())
    svg += format_text("<polyline points='{}' fill='none' stroke='{}' stroke-width='1.6'{}/>\n", path, series.colour,
                       series.dashed ? " stroke-dasharray='6 4'" : "");
  if (!series.marks) return svg;
  for (const auto& p : series.points) {
    if (!finite(p) || !x.holds(p.x) || !y.holds(p.y)) continue;
    svg += bars(p, x, y, series.colour);
    svg += format_text("<circle cx='{:.1f}' cy='{:.1f}' r='{:g}' fill='{}' stroke='{}'>", x.at(p.x), y.at(p.y), p.size,
                       p.hollow ? "var(--card, #fff)" : series.colour, series.colour);
    if (!p.title.empty()) svg += "<title>" + escape_markup(p.title) + "</title>";
    svg += "</circle>\n";
  }
  return svg;
}

}  // namespace

std::string escape_markup(std::string_view text) {
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
    else if (c == '\'')
      out += "&#39;";
    else
      out += c;
  }
  return out;
}

std::string palette(std::size_t i) {
  static const char* const colours[] = {"#8a8a8a", "#e69f00", "#2f8fd0", "#0aa57a", "#d0609f",
                                        "#d9622b", "#8f7ad6", "#b5a400", "#4bb3c7", "#a0673c"};
  return colours[i % std::size(colours)];
}

std::vector<double> ticks(PlotRange range, int most) {
  std::vector<double> found;
  const double span = range.high - range.low;
  if (!(span > 0) || most < 1) return found;
  const double power = std::pow(10.0, std::floor(std::log10(span / most)));
  double step = 10 * power;
  for (const double times : {1.0, 2.0, 5.0})
    if (span / (times * power) <= most) {
      step = times * power;
      break;
    }
  for (double k = std::ceil(range.low / step - 1e-9); k * step <= range.high + 1e-9 * span; ++k)
    found.push_back(k * step + 0.0);  // not -0
  return found;
}

std::string draw_panel(const Plot& plot, double x, double y) {
  const auto title = title_lines(plot.title, plot.width - kLeft - kRight);
  const double top = kTop + (title.empty() ? 0 : kTitle + kTitleLine * static_cast<double>(title.size() - 1));
  const Axis across{plot.x_range.value_or(span_of(plot, true)), x + kLeft, x + plot.width - kRight};
  const Axis up{plot.y_range.value_or(span_of(plot, false)), y + plot.height - kBottom, y + top};
  std::string svg = "<g font-family='system-ui, sans-serif' font-size='12'>\n";
  for (std::size_t i = 0; i < title.size(); ++i)
    svg += text(across.from, y + kTitle - 2 + kTitleLine * static_cast<double>(i), title[i], "font-weight='bold'");
  svg += axes(plot, across, up);
  for (const auto& series : plot.series) svg += draw_series(series, across, up);
  return svg + "</g>\n";
}

std::string draw(const Plot& plot) {
  const bool any = std::any_of(plot.series.begin(), plot.series.end(), [](const PlotSeries& series) {
    return std::any_of(series.points.begin(), series.points.end(), finite);
  });
  if (!any) return "";
  return format_text("<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {} {}' role='img'>\n{}</svg>\n", plot.width,
                     plot.height, draw_panel(plot));
}

}  // namespace steer::core::detail
