// The layer sweep against a plain version: one run for each prompt and layer, sums over plain arrays, and every pair of
// every fold compared one by one.
#include <ATen/ops/empty.h>

#include <gtest/gtest.h>

#include <steer/core/random.hpp>
#include <steer/steering/vectors.hpp>

#include "core/format_text.hpp"
#include "support.hpp"
#include "tiny_model.hpp"

namespace steer {
namespace {

using Ids = std::vector<std::int64_t>;
using Row = std::vector<double>;

/// Prompts of 4 to 11 tokens, on the positive side one of a single token too; that side holds one token more often.
std::vector<Ids> prompts(Rng& rng, std::size_t count, bool positive) {
  std::vector<Ids> result;
  for (std::size_t i = 0; i < count; ++i) {
    Ids ids{1};
    for (std::uint64_t length = positive && i == 4 ? 0 : 3 + rng.below(8); length > 0; --length)
      ids.push_back(positive && rng.below(2) ? 7 : 3 + static_cast<std::int64_t>(rng.below(60)));
    result.push_back(ids);
  }
  return result;
}

Row example(Session& session, const Ids& ids, const HookPoint& point, ExampleTokens tokens) {
  const std::vector<std::string> name{point.name()};
  const at::Tensor x = session.run_with_cache(ids, name)[name[0]];
  const std::int64_t length = x.size(0), first = tokens == ExampleTokens::mean && length > 1 ? 1 : length - 1;
  Row row(static_cast<std::size_t>(x.size(1)), 0.0);
  for (std::int64_t t = first; t < length; ++t)
    for (std::size_t i = 0; i < row.size(); ++i)
      row[i] += x[t][static_cast<std::int64_t>(i)].item<double>() / static_cast<double>(length - first);
  return row;
}

at::Tensor matrix(const std::vector<Row>& rows) {
  at::Tensor m =
      at::empty({static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(rows[0].size())}, at::kDouble);
  for (std::size_t r = 0; r < rows.size(); ++r)
    for (std::size_t i = 0; i < rows[r].size(); ++i)
      m[static_cast<std::int64_t>(r)][static_cast<std::int64_t>(i)] = rows[r][i];
  return m;
}

/// The direction of a method: sums for the difference of means, the public functions for the other two.
Row direction(const std::vector<Row>& positive, const std::vector<Row>& negative, VectorMethod method) {
  const std::size_t width = positive[0].size();
  Row result(width, 0.0);
  if (method == VectorMethod::difference_of_means) {
    for (std::size_t i = 0; i < width; ++i) {
      for (const Row& row : positive) result[i] += row[i] / static_cast<double>(positive.size());
      for (const Row& row : negative) result[i] -= row[i] / static_cast<double>(negative.size());
    }
    return result;
  }
  const at::Tensor p = matrix(positive), n = matrix(negative);
  const at::Tensor v = method == VectorMethod::principal_direction ? principal_direction(p, n) : logistic_probe(p, n).w;
  for (std::size_t i = 0; i < width; ++i) result[i] = v[static_cast<std::int64_t>(i)].item<double>();
  return result;
}

double projection(const Row& row, const Row& v) {
  double sum = 0;
  for (std::size_t i = 0; i < v.size(); ++i) sum += row[i] * v[i];
  return sum;
}

double separation(const std::vector<Row>& positive, const std::vector<Row>& negative, VectorMethod method) {
  const std::size_t folds = std::min<std::size_t>(5, std::min(positive.size(), negative.size()));
  double in_order = 0, pairs = 0;
  for (std::size_t fold = 0; fold < folds; ++fold) {
    std::vector<Row> fit_p, fit_n, held_p, held_n;
    for (std::size_t i = 0; i < positive.size(); ++i) (i % folds == fold ? held_p : fit_p).push_back(positive[i]);
    for (std::size_t i = 0; i < negative.size(); ++i) (i % folds == fold ? held_n : fit_n).push_back(negative[i]);
    const Row v = direction(fit_p, fit_n, method);
    for (const Row& p : held_p)
      for (const Row& n : held_n) {
        const double a = projection(p, v), b = projection(n, v);
        in_order += a > b ? 1.0 : a == b ? 0.5 : 0.0;
        pairs += 1;
      }
  }
  return in_order / pairs;
}

TEST(SweepLayers, AgreesWithThePlainVersion) {
  const Model model = test::tiny_model();
  Rng rng(5);
  // The sides differ in size, so that folds are uneven and principal_direction takes its unpaired form.
  const auto positive = prompts(rng, 13, true), negative = prompts(rng, 11, false);
  for (const Site site : {Site::resid_post, Site::mlp_out})
    for (const VectorMethod method :
         {VectorMethod::difference_of_means, VectorMethod::principal_direction, VectorMethod::logistic_probe})
      for (const ExampleTokens tokens : {ExampleTokens::last, ExampleTokens::mean}) {
        SCOPED_TRACE(format_text("{} {} {}", to_string(site), to_string(method), to_string(tokens)));
        Session session(model);
        const auto swept =
            sweep_layers(session, positive, negative, {.site = site, .method = method, .tokens = tokens});
        ASSERT_EQ(static_cast<std::int64_t>(swept.size()), model.config().n_layers);
        for (std::int64_t layer = 0; layer < model.config().n_layers; ++layer) {
          const SweepResult& got = swept[static_cast<std::size_t>(layer)];
          ASSERT_EQ(got.point, (HookPoint{site, layer}));
          Session plain(model);
          std::vector<Row> p, n;
          for (const Ids& ids : positive) p.push_back(example(plain, ids, got.point, tokens));
          for (const Ids& ids : negative) n.push_back(example(plain, ids, got.point, tokens));
          const Row v = direction(p, n, method);
          ASSERT_EQ(got.vector.scalar_type(), at::kFloat);
          const at::Tensor want = matrix({v})[0];
          EXPECT_LE((got.vector.to(at::kDouble) - want).norm().item<double>(), 1e-4 * want.norm().item<double>());
          EXPECT_NEAR(got.separation, separation(p, n, method), 1e-9);
        }
      }
}

TEST(SweepLayers, RefusesWhatItCannotUse) {
  const Model model = test::tiny_model();
  Session session(model);
  const std::vector<Ids> two{{1, 2}, {1, 3}}, one{{1, 2}}, empty{{1, 2}, {}};
  EXPECT_STEER_ERROR(sweep_layers(session, two, one), ErrorCode::argument, "2 and 1");
  EXPECT_STEER_ERROR(sweep_layers(session, two, empty), ErrorCode::argument, "empty");
  EXPECT_STEER_ERROR(sweep_layers(session, two, two, {.site = Site::embed}), ErrorCode::unsupported, "embed");
}

}  // namespace
}  // namespace steer
