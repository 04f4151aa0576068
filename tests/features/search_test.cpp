#include <steer/features/search.hpp>

#include <gtest/gtest.h>

#include <cmath>

#include "support.hpp"

namespace steer {
namespace {

FeatureLabels store(const test::TempDir& dir, const std::vector<std::string>& texts) {
  std::vector<FeatureRecord> records;
  for (std::size_t i = 0; i < texts.size(); ++i)
    records.push_back({static_cast<std::int64_t>(i), {texts[i]}, {}, {}, {}});
  FeatureLabels::write(dir / "labels", records);
  return FeatureLabels::open(dir / "labels");
}

std::vector<std::int64_t> features(const std::vector<LabelHit>& hits) {
  std::vector<std::int64_t> all;
  for (const auto& hit : hits) all.push_back(hit.feature);
  return all;
}

TEST(SearchLabels, RanksByBm25) {
  test::TempDir dir;
  const auto labels = store(
      dir, {"jokes and funny stories", "legal contracts", "Funny",
            "a very long label that mentions something funny at its end, after much else", "wordplay, puns, jokes"});
  EXPECT_EQ(features(search_labels(labels, "funny")), (std::vector<std::int64_t>{2, 0, 3}));
  EXPECT_EQ(features(search_labels(labels, "FUNNY jokes")).front(), 0);
  // BM25 by hand: N = 5, df = 3, tf = 1, one word, mean length (4 + 2 + 1 + 14 + 3) / 5.
  const double average = 24.0 / 5, idf = std::log(1 + (5 - 3 + 0.5) / 3.5);
  EXPECT_NEAR(search_labels(labels, "funny")[0].score, idf * 2.2 / (1 + 1.2 * (0.25 + 0.75 / average)), 1e-9);
}

TEST(SearchLabels, FindsPrefixesAndIndices) {
  test::TempDir dir;
  const auto labels = store(dir, {"joke", "jokes", "year 3", "nothing", "über Wörter"});
  EXPECT_EQ(features(search_labels(labels, "joke")), (std::vector<std::int64_t>{0, 1}));
  EXPECT_EQ(features(search_labels(labels, "3")), (std::vector<std::int64_t>{3, 2}));
  EXPECT_EQ(features(search_labels(labels, "wörter")), (std::vector<std::int64_t>{4}));
  EXPECT_TRUE(search_labels(labels, "absent").empty());
  EXPECT_EQ(search_labels(labels, "joke", 1).size(), 1u);
  EXPECT_STEER_ERROR(search_labels(labels, " ,"), ErrorCode::argument, "at least one word");
  EXPECT_STEER_ERROR(search_labels(labels, "joke", 0), ErrorCode::argument, "limit");
}

TEST(SearchLabels, ContrastDecidesAmongHits) {
  test::TempDir dir;
  const auto labels = store(dir, {"joke a", "joke b", "joke c"});
  const std::vector<FeatureContrast> contrasts = {{.feature = 2, .standardised = 1.5},
                                                  {.feature = 1, .standardised = -2}};
  EXPECT_EQ(features(rerank_by_contrast(search_labels(labels, "joke"), contrasts)),
            (std::vector<std::int64_t>{2, 0, 1}));
}

}  // namespace
}  // namespace steer
