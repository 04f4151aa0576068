#include <steer/features/auto_conditional.hpp>

#include <ATen/ops/tensor.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>

namespace steer {
namespace {

/// Rows of a matrix in two halves, drawn at random.
struct Halves {
  at::Tensor fit, held_out;
};

Halves split(const at::Tensor& rows, std::uint64_t seed) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(rows.size(0)));
  std::iota(order.begin(), order.end(), 0);
  Rng rng(seed);
  rng.shuffle(order);
  const at::Tensor index = at::tensor(order);
  const std::int64_t half = rows.size(0) / 2;
  return {rows.index_select(0, index.slice(0, 0, half)), rows.index_select(0, index.slice(0, half))};
}

std::vector<float> sorted_column(const at::Tensor& rows, std::int64_t feature) {
  const at::Tensor column = rows.select(1, feature).contiguous();
  std::vector<float> values(column.data_ptr<float>(), column.data_ptr<float>() + column.numel());
  std::ranges::sort(values, std::greater{});
  return values;
}

/// Share of descending values above a threshold.
double share_above(const std::vector<float>& values, double threshold) {
  const auto count = std::ranges::lower_bound(values, static_cast<float>(threshold), std::greater{}) - values.begin();
  return static_cast<double>(count) / static_cast<double>(values.size());
}

/// The lowest threshold whose false-positive rate on `negative` keeps to the bound.
double threshold_for(const std::vector<float>& negative, double max_false_positive) {
  const auto allowed = static_cast<std::size_t>(max_false_positive * static_cast<double>(negative.size()));
  return allowed < negative.size() ? negative[allowed] : 0.0;
}

}  // namespace

AutoConditional auto_conditional(Session& session, const Sae& sae, std::span<const TokenizedText> about,
                                 std::span<const TokenizedText> other, const AutoConditionalOptions& options) {
  constexpr auto where = "auto_conditional";
  require(about.size() >= 4 && other.size() >= 4, ErrorCode::argument, where,
          "expected at least 4 texts about the subject and 4 others but got {} and {}", about.size(), other.size());
  require(options.candidates > 0 && options.max_false_positive >= 0 && options.max_false_positive < 1,
          ErrorCode::argument, where,
          "expected at least one candidate and a false-positive rate in [0, 1) but got {} and {}", options.candidates,
          options.max_false_positive);
  const Halves positive = split(pooled_features(session, sae, about, Pooling::max), derive_seed(options.seed, "about"));
  const Halves negative = split(pooled_features(session, sae, other, Pooling::max), derive_seed(options.seed, "other"));

  auto ranked = contrast_features(positive.fit, negative.fit,
                                  {.limit = options.candidates, .bootstrap = 0, .seed = options.seed});
  const auto best = std::ranges::max_element(ranked, {}, &FeatureContrast::auroc);
  require(
      best != ranked.end() && best->auroc > 0.5, ErrorCode::argument, where,
      "expected a feature that tells the two sets apart but the best one's AUROC is {:.2f}; give more or clearer texts",
      best == ranked.end() ? 0.5 : best->auroc);

  AutoConditional result;
  result.feature = *best;
  result.threshold = threshold_for(sorted_column(negative.fit, best->feature), options.max_false_positive);
  result.condition =
      Condition::feature_above(sae, best->feature, result.threshold, {.point = {}, .release = 0, .sticky = true});
  const auto yes = sorted_column(positive.held_out, best->feature),
             no = sorted_column(negative.held_out, best->feature);
  result.true_positive = share_above(yes, result.threshold);
  result.false_positive = share_above(no, result.threshold);
  result.held_out_positive = static_cast<std::int64_t>(yes.size());
  result.held_out_negative = static_cast<std::int64_t>(no.size());

  std::vector<float> thresholds(yes);
  thresholds.insert(thresholds.end(), no.begin(), no.end());
  std::ranges::sort(thresholds, std::greater{});
  thresholds.erase(std::ranges::unique(thresholds).begin(), thresholds.end());
  result.auroc = 0;
  RocPoint last{std::numeric_limits<double>::max(), 0, 0};
  const auto extend = [&](double threshold, double tp, double fp) {
    result.auroc += (fp - last.false_positive) * (tp + last.true_positive) / 2;
    last = {threshold, tp, fp};
    result.roc.push_back(last);
  };
  for (float threshold : thresholds) extend(threshold, share_above(yes, threshold), share_above(no, threshold));
  extend(-std::numeric_limits<double>::max(), 1, 1);
  return result;
}

nlohmann::json AutoConditional::to_json() const {
  nlohmann::json curve = nlohmann::json::array();
  for (const auto& point : roc)
    curve.push_back({{"threshold", point.threshold},
                     {"true_positive", point.true_positive},
                     {"false_positive", point.false_positive}});
  return {{"condition", condition.describe()},
          {"feature", feature.feature},
          {"threshold", threshold},
          {"auroc", auroc},
          {"true_positive", true_positive},
          {"false_positive", false_positive},
          {"held_out_positive", held_out_positive},
          {"held_out_negative", held_out_negative},
          {"roc", curve}};
}

}  // namespace steer
