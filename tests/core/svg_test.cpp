#include "core/svg.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace steer::core::detail {
namespace {

TEST(Svg, TicksAreRoundAndInside) {
  EXPECT_EQ(ticks({0, 1}, 6), (std::vector<double>{0, 0.2, 0.4, 0.6000000000000001, 0.8, 1}));
  EXPECT_EQ(ticks({0.85, 5.15}, 6), (std::vector<double>{1, 2, 3, 4, 5}));
  EXPECT_EQ(ticks({-30, 70}, 6), (std::vector<double>{-20, 0, 20, 40, 60}));
  EXPECT_TRUE(ticks({1, 1}, 6).empty());
  for (const double width : {1e-9, 0.37, 12345.0}) {
    const auto found = ticks({5, 5 + width}, 6);
    EXPECT_GE(found.size(), 2u) << width;
    EXPECT_LE(found.size(), 7u) << width;
  }
}

TEST(Svg, PointsAreWhereTheyBelongAndTextIsSafe) {
  const Plot plot{.x_label = "a < b",
                  .y_label = "y",
                  .series = {{.colour = "#123456",
                              .points = {{.x = 0, .y = 0}, {.x = 10, .y = 5, .title = "\"top\""}, {.x = NAN, .y = 1}},
                              .line = true}},
                  .width = 200,
                  .height = 100,
                  .x_range = PlotRange{0, 10},
                  .y_range = PlotRange{0, 5}};
  const std::string svg = draw(plot);
  EXPECT_NE(svg.find("<circle cx='52.0' cy='58.0'"), std::string::npos) << "bottom left, by the margins: " << svg;
  EXPECT_NE(svg.find("<circle cx='188.0' cy='10.0'"), std::string::npos) << "top right";
  EXPECT_NE(svg.find("a &lt; b"), std::string::npos);
  EXPECT_NE(svg.find("<title>&quot;top&quot;</title>"), std::string::npos);
  std::size_t circles = 0;
  for (auto at = svg.find("<circle"); at != std::string::npos; at = svg.find("<circle", at + 1)) ++circles;
  EXPECT_EQ(circles, 2u) << "a point that is no number is left out";
  EXPECT_EQ(draw({.series = {{.colour = "#000000", .points = {{.x = NAN, .y = 0}}}}}), "") << "nothing to show";
}

TEST(Svg, APlotOfOnePointHasAxes) {
  const std::string svg = draw({.series = {{.colour = "#000000", .points = {{.x = 3, .y = 3}}}}});
  EXPECT_NE(svg.find("<circle"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
}

TEST(Svg, ALongTitleIsBrokenBetweenWordsAndZeroHasNoSign) {
  const Plot plot{.title = "add the mean difference to the first 6 tokens",
                  .series = {{.colour = "#000000", .points = {{.x = 0, .y = 0}, {.x = 1, .y = 1}}}},
                  .width = 270,
                  .x_range = PlotRange{0, 1},
                  .y_range = PlotRange{0, 1}};
  const std::string svg = draw(plot);
  EXPECT_NE(svg.find(">add the mean difference to<"), std::string::npos) << svg;
  EXPECT_NE(svg.find(">the first 6 tokens<"), std::string::npos) << svg;
  EXPECT_EQ(svg.find(">-0<"), std::string::npos);
  EXPECT_NE(svg.find(">0<"), std::string::npos);
}

}  // namespace
}  // namespace steer::core::detail
