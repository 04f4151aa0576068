#pragma once

#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace steer::core::detail {

struct PlotRange {
  double low = NAN, high = NAN;  ///< NaN: none
};

struct PlotPoint {
  double x = 0, y = 0;
  PlotRange x_bar = {}, y_bar = {};  ///< intervals around it
  std::string title = {};            ///< shown when pointed at
  double size = 3.5;                 ///< radius of its mark
  bool hollow = false;
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
  std::string title = {}, x_label = {}, y_label = {};
  std::vector<PlotSeries> series;
  int width = 520, height = 400;
  std::optional<PlotRange> x_range = {}, y_range = {};  ///< none: as the points need
};

/// &, <, > and quotes made safe for text and attributes of HTML and SVG.
std::string escape_markup(std::string_view text);

/// A colour for the i-th series that can be told from its neighbours on light and dark ground, by colour-blind readers
/// too (Okabe and Ito 2008, lightened where needed).
std::string palette(std::size_t i);

/// Round numbers inside a range, about `most` of them: ends and steps of 1, 2 or 5 times a power of ten.
std::vector<double> ticks(PlotRange range, int most);

/// One plot as a group of SVG elements, its corner at (x, y). Text and axes take the colour of what is around them
/// (currentColor), lines of the grid --grid where a page sets it. Points that are not finite are left out.
std::string draw_panel(const Plot& plot, double x = 0, double y = 0);
/// A plot alone as <svg>, of no fixed size; empty where it has no point.
std::string draw(const Plot& plot);

}  // namespace steer::core::detail
