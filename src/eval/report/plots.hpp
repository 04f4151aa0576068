#pragma once

#include <optional>
#include <string>
#include <vector>

#include <steer/stats/statistics.hpp>

namespace steer::eval::detail {

struct PlotPoint {
  double x = 0, y = 0;
  Interval x_interval, y_interval;  ///< NaN ends: no bar
};

/// Points of one colour, joined by a line or not.
struct PlotSeries {
  std::string colour;  ///< "#rrggbb"
  std::vector<PlotPoint> points;
  bool line = false;
  bool marks = true;
  bool dashed = false;
};

struct Plot {
  std::string x_label, y_label;
  std::vector<PlotSeries> series;
  int width = 520, height = 400;
  std::optional<Interval> x_range = {}, y_range = {};  ///< none: as the points need
};

/// Draws plots with gnuplot's svg terminal, made to sit in a page: no fixed size, text and axes in the page's own
/// colour, ids unique by `id`. Nothing when gnuplot cannot be run.
std::optional<std::string> draw(const Plot& plot, const std::string& id);

/// A colour for the i-th arm that can be told from its neighbours on light and dark ground, by colour-blind readers too
/// (Okabe and Ito 2008, lightened where needed).
std::string palette(std::size_t i);

}  // namespace steer::eval::detail
