#include "generate/sampler.hpp"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "generate/device_draws.hpp"
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

const std::vector<float> kLogits = {1.5f, -0.5f, 0.25f, 2.0f, -3.0f, 2.0f, 0.0f};
const std::vector<SamplingOptions> kSamplings = {
    {.temperature = 1},
    {.temperature = 0.6, .top_p = 0.9},
    {.temperature = 2, .top_k = 3},
    {.temperature = 1, .min_p = 0.2},
    {.temperature = 0.7, .top_p = 0.8, .top_k = 5, .min_p = 0.05, .repetition_penalty = 1.4},
};

TEST(Sampler, DrawsFromTheFilteredDistribution) {
  const auto& logits = kLogits;
  for (const auto& options : kSamplings) {
    const std::vector<std::int64_t> seen = {3, 3, 1};
    const auto expected = distribution(logits, options, seen);
    const auto got = frequencies(logits, options, seen);
    for (const auto& [id, probability] : expected)
      EXPECT_NEAR(got.contains(id) ? got.at(id) : 0, probability, 0.012) << id;
    for (const auto& [id, share] : got) EXPECT_TRUE(expected.contains(id)) << id;
  }
}

/// Numbers spread evenly over [0, 1) meet each token as often as it is likely, whichever rows are drawn together.
TEST(DeviceDraws, AreOfTheFilteredDistribution) {
  constexpr std::int64_t kDraws = 4000;
  const std::vector<std::int64_t> seen = {3, 3, 1};
  const at::Tensor logits = at::stack({at::randn({7}), at::tensor(kLogits)});
  std::vector<DeviceReading> readings;
  for (std::int64_t i = 0; i < kDraws; ++i)
    for (const auto& options : kSamplings)
      readings.push_back({.row = 1,
                          .sampling = &options,
                          .uniform = (static_cast<double>(i) + 0.5) / kDraws,
                          .seen = options.repetition_penalty != 1 ? std::span(seen) : std::span<const std::int64_t>()});
  const DeviceDraws draws(logits, readings);
  for (std::size_t s = 0; s < kSamplings.size(); ++s) {
    std::map<std::int64_t, double> got;
    for (std::size_t i = s; i < readings.size(); i += kSamplings.size()) got[draws.at(i).id] += 1.0 / kDraws;
    const auto expected =
        distribution(kLogits, kSamplings[s], readings[s].seen.empty() ? std::vector<std::int64_t>() : seen);
    EXPECT_EQ(got.size(), expected.size()) << s;
    for (const auto& [id, probability] : expected) EXPECT_NEAR(got[id], probability, 2.0 / kDraws) << s << " " << id;
  }
}

/// Whatever changes the logits, greedy draws and tokens that are given are those of the host.
TEST(DeviceDraws, GreedyAndGivenTokensAreTheHosts) {
  at::manual_seed(4);
  const at::Tensor logits = at::randn({5, 300}) * 3;
  const std::vector<std::int64_t> seen = {7, 9, 9, 11}, generated = {9, 9, 11};
  const auto favourite = [&](std::int64_t row) { return logits[row].argmax().item<std::int64_t>(); };
  const std::vector<std::int64_t> barred = {favourite(0), favourite(1), -1, 300};
  const std::vector<SamplingOptions> greedy = {
      {},
      {.logit_bias = {{5, 40}, {8, -std::numeric_limits<double>::infinity()}}},
      {.presence_penalty = 2, .frequency_penalty = 10, .logit_bias = {{9, 30}, {11, 29}}},
      {.repetition_penalty = 1.7, .presence_penalty = 2, .frequency_penalty = 0.5, .logit_bias = {{9, 30}, {11, 29}}}};
  std::vector<DeviceReading> readings;
  for (std::int64_t row = 0; row < 5; ++row) {
    for (const auto& options : greedy)
      for (const bool bars : {false, true})
        readings.push_back({.row = row,
                            .sampling = &options,
                            .seen = seen,
                            .generated = generated,
                            .barred = bars ? std::span(barred) : std::span<const std::int64_t>()});
    readings.push_back(
        {.row = row, .known = 17 * row, .sampling = &greedy.back(), .seen = seen, .generated = generated});
  }
  const DeviceDraws draws(logits, readings);
  std::set<std::int64_t> ids;
  for (std::size_t i = 0; i < readings.size(); ++i) {
    const DeviceReading& r = readings[i];
    const std::span own(logits.const_data_ptr<float>() + r.row * 300, 300);
    Rng rng(1);
    const Draw expected =
        r.known >= 0 ? read_token(own, r.known, 0)
                     : draw_token({.logits = own, .seen = r.seen, .generated = r.generated, .barred = r.barred},
                                  *r.sampling, rng);
    EXPECT_EQ(draws.at(i).id, expected.id) << i;
    EXPECT_NEAR(draws.at(i).log_probability, expected.log_probability, 1e-5) << i;
    ids.insert(expected.id);
  }
  EXPECT_GT(ids.size(), 10u) << "the options must matter";
}

TEST(DeviceDraws, RefuseByRow) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const at::Tensor logits = at::tensor({1.0f, 2.0f, 1.0f, nan}).view({2, 2});
  const SamplingOptions greedy, sampled{.temperature = 1};
  const std::vector<std::int64_t> both = {0, 1};
  const std::vector<DeviceReading> readings = {{.row = 0, .sampling = &greedy},
                                               {.row = 1, .sampling = &sampled},
                                               {.row = 0, .sampling = &sampled, .barred = both},
                                               {.row = 1, .known = 0}};
  const DeviceDraws draws(logits, readings);
  EXPECT_EQ(draws.at(0).id, 1);
  EXPECT_STEER_ERROR(draws.at(1), ErrorCode::argument, "finite logits");
  EXPECT_STEER_ERROR(draws.at(2), ErrorCode::argument, "a token that may be drawn");
  EXPECT_STEER_ERROR(draws.at(3), ErrorCode::argument, "finite logits");
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
