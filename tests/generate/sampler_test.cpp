#include "generate/sampler.hpp"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "generate/stop_matcher.hpp"
#include "support.hpp"

namespace steer::generation::detail {
namespace {

Draw draw(const std::vector<float>& logits, const std::vector<std::int64_t>& seen, const SamplingOptions& options,
          Rng& rng) {
  return draw_token({.logits = logits, .seen = seen, .generated = {}}, options, rng);
}

/// Of 8 rows at a vocabulary of Gemma 3's size, wherever they lie, drawn on several threads or on one.
TEST(Invariance, LogProbabilitiesOfARowAreItsOwn) {
  test::CaseCounter cases("invariance (log-probabilities)");
  at::manual_seed(3);
  const at::Tensor logits = at::randn({8, 262144}) * 4;
  const auto row_of = [](const at::Tensor& t, std::int64_t r) {
    return std::span(t.const_data_ptr<float>() + r * t.size(1), static_cast<std::size_t>(t.size(1)));
  };
  for (const double temperature : {0.0, 0.7}) {
    const SamplingOptions options{.temperature = temperature, .top_p = 0.9};
    std::vector<Draw> together(8);
    at::parallel_for(0, 8, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        Rng rng(5);
        together[static_cast<std::size_t>(r)] =
            draw_token({.logits = row_of(logits, r), .seen = {}, .generated = {}}, options, rng);
      }
    });
    for (std::int64_t r = 0; r < 8; ++r) {
      const at::Tensor own = logits.narrow(0, r, 1).clone();
      Rng rng(5);
      const Draw alone = draw_token({.logits = row_of(own, 0), .seen = {}, .generated = {}}, options, rng);
      const Draw& x = together[static_cast<std::size_t>(r)];
      const bool same = x.id == alone.id && x.log_probability == alone.log_probability;
      cases.count(same);
      EXPECT_TRUE(same) << r;
      EXPECT_NEAR(x.log_probability, at::log_softmax(logits[r].to(at::kDouble), 0)[x.id].item<double>(), 1e-5);
    }
  }
}

std::map<std::int64_t, double> frequencies(const std::vector<float>& logits, const SamplingOptions& options,
                                           const std::vector<std::int64_t>& seen = {}) {
  std::map<std::int64_t, double> counts;
  Rng rng(5);
  constexpr int n = 40000;
  for (int i = 0; i < n; ++i) counts[draw(logits, seen, options, rng).id] += 1.0 / n;
  return counts;
}

// What the filters keep, written as the definitions read: sort everything, then cut.
std::map<std::int64_t, double> distribution(std::vector<float> logits, const SamplingOptions& o,
                                            const std::vector<std::int64_t>& seen = {}) {
  std::map<std::int64_t, bool> once;
  for (auto id : seen)
    if (!std::exchange(once[id], true)) logits[id] *= logits[id] < 0 ? o.repetition_penalty : 1 / o.repetition_penalty;
  std::vector<std::int64_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return logits[a] > logits[b]; });
  if (o.top_k > 0) order.resize(std::min<std::size_t>(order.size(), o.top_k));
  std::vector<double> p;
  for (auto id : order) p.push_back(std::exp(logits[id] / o.temperature));
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  std::map<std::int64_t, double> kept;
  double mass = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (p[i] < o.min_p * p[0]) break;
    kept[order[i]] = p[i];
    mass += p[i];
    if (mass >= o.top_p * total && o.top_p < 1) break;
  }
  for (auto& [id, value] : kept) value /= mass;
  return kept;
}

TEST(Sampler, DrawsFromTheFilteredDistribution) {
  const std::vector<float> logits = {1.5f, -0.5f, 0.25f, 2.0f, -3.0f, 2.0f, 0.0f};
  const std::vector<SamplingOptions> cases = {
      {.temperature = 1},
      {.temperature = 0.6, .top_p = 0.9},
      {.temperature = 2, .top_k = 3},
      {.temperature = 1, .min_p = 0.2},
      {.temperature = 0.7, .top_p = 0.8, .top_k = 5, .min_p = 0.05, .repetition_penalty = 1.4},
  };
  for (const auto& options : cases) {
    const std::vector<std::int64_t> seen = {3, 3, 1};
    const auto expected = distribution(logits, options, seen);
    const auto got = frequencies(logits, options, seen);
    for (const auto& [id, probability] : expected)
      EXPECT_NEAR(got.contains(id) ? got.at(id) : 0, probability, 0.012) << id;
    for (const auto& [id, share] : got) EXPECT_TRUE(expected.contains(id)) << id;
  }
}

TEST(Sampler, TemperatureZeroTakesTheLowestOfTheBest) {
  Rng rng(1);
  const std::vector<float> logits = {0, 2, 2, 1};
  const auto drawn = draw(logits, {}, {}, rng);
  EXPECT_EQ(drawn.id, 1);
  EXPECT_NEAR(drawn.log_probability, 2 - std::log(1 + 2 * std::exp(2) + std::exp(1)), 1e-6);
}

TEST(Sampler, RefusesWhatCannotBeDrawnFrom) {
  Rng rng(1);
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  EXPECT_STEER_ERROR(draw(std::vector<float>{1, nan}, {}, {}, rng), ErrorCode::argument, "finite logits");
  EXPECT_STEER_ERROR(draw(std::vector<float>{-inf, -inf}, {}, {}, rng), ErrorCode::argument, "finite logits");
  EXPECT_STEER_ERROR(check({.temperature = -1}, 64, "generate"), ErrorCode::argument, "temperature");
  EXPECT_STEER_ERROR(check({.temperature = nan}, 64, "generate"), ErrorCode::argument, "temperature");
  EXPECT_STEER_ERROR(check({.top_p = 0}, 64, "generate"), ErrorCode::argument, "top_p");
  EXPECT_STEER_ERROR(check({.top_k = -1}, 64, "generate"), ErrorCode::argument, "top_k");
  EXPECT_STEER_ERROR(check({.min_p = 2}, 64, "generate"), ErrorCode::argument, "min_p");
  EXPECT_STEER_ERROR(check({.repetition_penalty = 0}, 64, "generate"), ErrorCode::argument, "repetition penalty");
}

TEST(StopMatcher, HoldsBackWhatMayBecomeAStopString) {
  const std::vector<std::string> stops = {"</answer>", "\n\n"};
  StopMatcher matcher(stops);
  EXPECT_EQ(matcher.push("one <"), "one ");
  EXPECT_EQ(matcher.push("/b"), "</b");
  EXPECT_EQ(matcher.push("\n"), "");
  EXPECT_EQ(matcher.push("x</ans"), "\nx");
  EXPECT_EQ(matcher.push("wer> more"), "");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.text(), "one </b\nx");
}

TEST(StopMatcher, GivesBackTheRestAtTheEnd) {
  const std::vector<std::string> stops = {"END"};
  StopMatcher matcher(stops);
  EXPECT_EQ(matcher.push("the EN"), "the ");
  EXPECT_EQ(matcher.finish(), "EN");
  EXPECT_FALSE(matcher.stopped());
}

}  // namespace
}  // namespace steer::generation::detail
