#include "eval/report/plots.hpp"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include <fmt/format.h>

namespace steer::eval::detail {
namespace {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

/// Labels come from this library only, but a stray quote must not end a gnuplot string.
std::string quoted(std::string text) {
  replace_all(text, "\\", "");
  replace_all(text, "\"", "'");
  replace_all(text, "\n", " ");
  return '"' + text + '"';
}

std::string script_of(const Plot& plot) {
  std::string script = fmt::format(
      "set terminal svg size {},{} font \"system-ui,sans-serif,14\" noenhanced\n"
      "set border 3 lw 1\nset tics nomirror out scale 0.6\nset grid lc rgb \"#888888\" lw 0.4\nset key off\n"
      "set offsets graph 0.04, graph 0.04, graph 0.06, graph 0.06\nset xtics autofreq\nset xlabel {}\nset ylabel {}\n",
      plot.width, plot.height, quoted(plot.x_label), quoted(plot.y_label));
  if (plot.x_range) script += fmt::format("set xrange [{:.6g}:{:.6g}]\n", plot.x_range->low, plot.x_range->high);
  if (plot.y_range) script += fmt::format("set yrange [{:.6g}:{:.6g}]\n", plot.y_range->low, plot.y_range->high);
  if (plot.x_range || plot.y_range) script += "set offsets 0, 0, 0, 0\n";
  std::string drawing;
  const auto end_of = [](double end, double centre) { return std::isnan(end) ? centre : end; };
  for (std::size_t s = 0; s < plot.series.size(); ++s) {
    const auto& series = plot.series[s];
    std::string rows;
    for (const auto& p : series.points)
      if (std::isfinite(p.x) && std::isfinite(p.y))
        rows +=
            fmt::format("{:.6g} {:.6g} {:.6g} {:.6g} {:.6g} {:.6g}\n", p.x, p.y, end_of(p.x_interval.low, p.x),
                        end_of(p.x_interval.high, p.x), end_of(p.y_interval.low, p.y), end_of(p.y_interval.high, p.y));
    if (rows.empty()) continue;
    script += fmt::format("$d{} << EOD\n{}EOD\n", s, rows);
    const std::string comma = drawing.empty() ? "" : ", ";
    if (series.line)
      drawing += fmt::format("{}$d{} using 1:2 with lines lw 1.6 {} lc rgb \"{}\"", comma, s,
                             series.dashed ? "dt (6,4)" : "dt 1", series.colour);
    if (series.marks)
      drawing += fmt::format("{}$d{} using 1:2:3:4:5:6 with xyerrorbars pt 7 ps 0.9 lw 1.4 lc rgb \"{}\"",
                             drawing.empty() ? "" : ", ", s, series.colour);
  }
  return drawing.empty() ? "" : script + "plot " + drawing + "\n";
}

/// What gnuplot prints for a script; empty when it cannot be run.
std::string gnuplot(const std::string& script) {
  std::string name = (std::filesystem::temp_directory_path() / "steer-plot-XXXXXX").string();
  const int file = mkstemp(name.data());
  if (file < 0) return "";
  const bool written = write(file, script.data(), script.size()) == static_cast<ssize_t>(script.size());
  close(file);
  std::string output;
  if (written)
    if (FILE* pipe = popen(("gnuplot '" + name + "' 2>/dev/null").c_str(), "r")) {
      char buffer[1 << 14];
      for (std::size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) output.append(buffer, n);
      if (pclose(pipe) != 0) output.clear();
    }
  unlink(name.c_str());
  return output;
}

}  // namespace

std::string palette(std::size_t i) {
  static const char* const colours[] = {"#8a8a8a", "#e69f00", "#2f8fd0", "#0aa57a", "#d0609f",
                                        "#d9622b", "#8f7ad6", "#b5a400", "#4bb3c7", "#a0673c"};
  return colours[i % std::size(colours)];
}

std::optional<std::string> draw(const Plot& plot, const std::string& id) {
  const std::string script = script_of(plot);
  if (script.empty()) return std::nullopt;
  std::string svg = gnuplot(script);
  const auto open = svg.find("<svg");
  const auto content = svg.find("<g id=\"gnuplot_canvas\">");
  if (open == std::string::npos || content == std::string::npos) return std::nullopt;
  svg = fmt::format(
            "<svg viewBox=\"0 0 {} {}\" role=\"img\" xmlns=\"http://www.w3.org/2000/svg\" "
            "xmlns:xlink=\"http://www.w3.org/1999/xlink\">",
            plot.width, plot.height) +
        svg.substr(content);
  for (const char* quote : {"\"", "'"}) {
    replace_all(svg, fmt::format("={0}black{0}", quote), fmt::format("={0}currentColor{0}", quote));
    for (const char* name : {"gp", "gnuplot_", "textbox", "greybox"})
      replace_all(svg, fmt::format("id={}{}", quote, name), fmt::format("id={}{}-{}", quote, id, name));
  }
  replace_all(svg, "href='#gp", fmt::format("href='#{}-gp", id));
  replace_all(svg, "rgb(136, 136, 136)", "var(--grid)");
  return svg;
}

}  // namespace steer::eval::detail
