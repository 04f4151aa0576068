#include <ATen/ops/cat.h>
#include <ATen/ops/cosine_similarity.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <gtest/gtest.h>

#include <c10/core/GradMode.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include <steer/core/random.hpp>
#include <steer/features/attribution.hpp>
#include <steer/features/auto_conditional.hpp>
#include <steer/features/contrast.hpp>
#include <steer/features/inspect.hpp>
#include <steer/features/neighbours.hpp>

#include "support.hpp"
#include "tiny_model.hpp"

namespace steer {
namespace {

Sae random_sae(std::int64_t d_in = 32, std::int64_t d_sae = 40, std::int64_t layer = 1) {
  at::manual_seed(6);
  SaeConfig config{.d_in = d_in, .d_out = d_in, .d_sae = d_sae, .hook_in = HookPoint{Site::resid_post, layer}};
  return Sae::from_weights(config, {.W_enc = at::randn({d_in, d_sae}) / std::sqrt(d_in),
                                    .b_enc = 0.1 * at::randn({d_sae}),
                                    .W_dec = at::randn({d_sae, d_in}) / std::sqrt(d_in),
                                    .b_dec = 0.1 * at::randn({d_in})});
}

std::vector<std::int64_t> random_ids(Rng& rng, std::size_t length) {
  std::vector<std::int64_t> ids{1};
  while (ids.size() < length) ids.push_back(3 + static_cast<std::int64_t>(rng.below(60)));
  return ids;
}

std::vector<TokenizedText> random_texts(std::size_t count, std::size_t longest = 40) {
  Rng rng(12);
  std::vector<TokenizedText> texts;
  for (std::size_t i = 0; i < count; ++i) {
    TokenizedText text{.ids = random_ids(rng, 2 + rng.below(longest))};
    text.begin = static_cast<std::int64_t>(rng.below(text.ids.size()));
    texts.push_back(text);
  }
  return texts;
}

TEST(Activations, PoolingEqualsOneTextAtATime) {
  const Model model = test::tiny_model();
  const Sae sae = random_sae();
  Session session(model);
  const auto texts = random_texts(70);  // more than one step's tokens
  for (auto pooling : {Pooling::mean, Pooling::max, Pooling::last, Pooling::active}) {
    const at::Tensor rows = pooled_features(session, sae, texts, pooling);
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const auto cache = session.run_with_cache(texts[i].ids, {"blocks.1.hook_resid_post"});
      const at::Tensor f =
          sae.encode(cache["blocks.1.hook_resid_post"]).slice(0, std::max<std::int64_t>(1, texts[i].begin));
      const at::Tensor expected = f.size(0) == 0             ? at::zeros({40})
                                  : pooling == Pooling::mean ? f.mean(0)
                                  : pooling == Pooling::max  ? f.amax(0)
                                  : pooling == Pooling::last ? f[-1]
                                                             : f.ne(0).to(at::kFloat).mean(0);
      EXPECT_LT((rows[static_cast<std::int64_t>(i)] - expected).abs().max().item<double>(),
                pooling == Pooling::active ? 0.06 : 1e-4)
          << i;
    }
  }
}

TEST(Activations, RefuseWhatDoesNotFit) {
  const Model model = test::tiny_model();
  Session session(model);
  const std::vector<TokenizedText> fine = {{{1, 4, 5}}};
  EXPECT_STEER_ERROR(pooled_features(session, random_sae(24), fine), ErrorCode::shape, "width 32");
  EXPECT_STEER_ERROR(pooled_features(session, random_sae(32, 40, 3), fine), ErrorCode::shape, "3 layers");
  EXPECT_STEER_ERROR(pooled_features(session, random_sae(), std::vector<TokenizedText>{{{}}}), ErrorCode::argument,
                     "text 0 is empty");
  EXPECT_STEER_ERROR(pooled_features(session, random_sae(), std::vector<TokenizedText>{{{1, 2}, 1, 5}}),
                     ErrorCode::argument, "[1, 5)");
}

/// AUROC by its definition: all pairs.
double auroc_by_pairs(const at::Tensor& positive, const at::Tensor& negative, std::int64_t f) {
  double wins = 0;
  for (std::int64_t i = 0; i < positive.size(0); ++i)
    for (std::int64_t j = 0; j < negative.size(0); ++j) {
      const float a = positive[i][f].item<float>(), b = negative[j][f].item<float>();
      wins += a > b ? 1 : a == b ? 0.5 : 0;
    }
  return wins / static_cast<double>(positive.size(0) * negative.size(0));
}

TEST(Contrast, EqualsTheDefinitions) {
  at::manual_seed(2);
  at::Tensor positive = at::relu(at::randn({25, 12})), negative = at::relu(at::randn({18, 12}));
  positive.select(1, 3).add_(1.5);
  positive.select(1, 7).fill_(2);  // constant within both sets, different between them
  negative.select(1, 7).fill_(1);
  positive.select(1, 9).zero_();
  negative.select(1, 9).zero_();  // never active: not listed
  const auto ranked = contrast_features(positive, negative, {.limit = 0, .bootstrap = 400});
  EXPECT_EQ(ranked.size(), 11u);
  for (const auto& result : ranked) {
    const auto f = result.feature;
    EXPECT_NE(f, 9);
    EXPECT_NEAR(result.auroc, auroc_by_pairs(positive, negative, f), 1e-9) << f;
    EXPECT_LE(result.auroc_low, result.auroc + 1e-9);
    EXPECT_GE(result.auroc_high, result.auroc - 1e-9);
    if (f == 7) continue;
    const double sd = std::sqrt(
        (24 * positive.select(1, f).var().item<double>() + 17 * negative.select(1, f).var().item<double>()) / 41);
    EXPECT_NEAR(result.standardised, (positive.select(1, f).mean() - negative.select(1, f).mean()).item<double>() / sd,
                1e-4)
        << f;
  }
  // 7 is a perfect separator but active on every row of both sets, so it is listed last and flagged.
  EXPECT_EQ(ranked.front().feature, 3);
  EXPECT_EQ(ranked.back().feature, 7);
  EXPECT_TRUE(ranked.back().always_on);
  EXPECT_EQ(ranked.back().auroc, 1);
}

TEST(Contrast, RefusesSetsThatSayNothing) {
  const at::Tensor x = at::rand({4, 3});
  EXPECT_STEER_ERROR(contrast_features(x, x), ErrorCode::argument, "same activations");
  EXPECT_STEER_ERROR(contrast_features(x, x.slice(0, 0, 1)), ErrorCode::argument, "4 and 1");
  EXPECT_STEER_ERROR(contrast_features(x, at::rand({4, 2})), ErrorCode::shape, "3 and 2");
}

TEST(Attribution, EqualsFiniteDifferences) {
  const Model model = test::tiny_model();
  const Sae sae = random_sae();
  Session session(model);
  Rng rng(3);
  const auto ids = random_ids(rng, 14);
  const auto metric = logit_difference(5, 9);
  const auto result = attribute_features(session, sae, ids, metric);
  const auto cache = session.run_with_cache(ids, {"blocks.1.hook_resid_post"});
  const at::Tensor x = cache["blocks.1.hook_resid_post"].clone();
  const auto metric_at = [&](const at::Tensor& value) {
    const auto hook = session.hook("blocks.1.hook_resid_post", [&](HookContext& at) { at.value = value.clone(); });
    c10::NoGradGuard no_grad;
    return metric(session.forward(ids).to(at::kDouble)).item<double>();
  };
  EXPECT_NEAR(result.metric, metric_at(x), 1e-4);
  at::manual_seed(1);
  for (int trial = 0; trial < 8; ++trial) {
    const at::Tensor direction = at::randn_like(x) / std::sqrt(x.numel());
    const double h = 1e-2;
    const double difference = (metric_at(x + h * direction) - metric_at(x - h * direction)) / (2 * h);
    EXPECT_NEAR((result.gradient * direction).sum().item<double>(), difference, 2e-3 + 0.02 * std::abs(difference));
  }
}

/// Spearman's rank correlation without ties.
double rank_correlation(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor ra = a.argsort().argsort().to(at::kDouble), rb = b.argsort().argsort().to(at::kDouble);
  const at::Tensor ca = ra - ra.mean(), cb = rb - rb.mean();
  return ((ca * cb).sum() / (ca.norm() * cb.norm())).item<double>();
}

TEST(Attribution, RanksFeaturesAsTrueAblationDoes) {
  const Model model = test::tiny_model();
  const Sae sae = random_sae();
  Session session(model);
  Rng rng(5);
  double sum = 0;
  constexpr int texts = 6;
  for (int t = 0; t < texts; ++t) {
    const auto ids = random_ids(rng, 12);
    const auto metric = sequence_log_probability(ids, 6, 12);
    const auto first_order = attribute_features(session, sae, ids, metric).effect;
    std::vector<std::int64_t> active;
    for (std::int64_t f = 0; f < 40; ++f)
      if (first_order[f].item<float>() != 0) active.push_back(f);
    const at::Tensor truth = ablation_effects(session, sae, active, ids, metric);
    sum += rank_correlation(first_order.index_select(0, at::tensor(active)), truth);
  }
  std::printf("attribution against true ablation: mean rank correlation %.3f over %d texts\n", sum / texts, texts);
  EXPECT_GT(sum / texts, 0.8);
}

TEST(Attribution, RefusesMetricsWithoutAGradient) {
  const Model model = test::tiny_model();
  Session session(model);
  const std::vector<std::int64_t> ids = {1, 4, 5};
  EXPECT_STEER_ERROR(attribute_features(session, random_sae(), ids, [](const at::Tensor&) { return at::ones({}); }),
                     ErrorCode::argument, "differentiable");
  EXPECT_STEER_ERROR(attribute_features(session, random_sae(), ids, [](const at::Tensor& l) { return l; }),
                     ErrorCode::argument, "one number");
  EXPECT_STEER_ERROR(sequence_log_probability(ids, 0, 2), ErrorCode::argument, "[0, 2)");
  EXPECT_STEER_ERROR(logit_effects(model, random_sae(), 40), ErrorCode::argument, "40");
}

TEST(Attribution, LogitEffectsFollowTheUnembedding) {
  const Model model = test::tiny_model();
  const Sae sae = random_sae();
  const std::int64_t feature[] = {17};
  const at::Tensor effects = at::mv(model.unembedding(), sae.decoder_rows(feature)[0] * model.final_norm_gain());
  const auto found = logit_effects(model, sae, 17, 5);
  ASSERT_EQ(found.promoted.size(), 5u);
  EXPECT_EQ(found.promoted[0].token, effects.argmax().item<std::int64_t>());
  EXPECT_EQ(found.suppressed[0].token, effects.argmin().item<std::int64_t>());
  EXPECT_NEAR(found.promoted[0].effect - found.suppressed[0].effect, (effects.max() - effects.min()).item<double>(),
              1e-4);
}

TEST(Neighbours, ByDecoderIsCosine) {
  const Sae sae = random_sae();
  const auto found = neighbours_by_decoder(sae, 4, 39);
  ASSERT_EQ(found.size(), 39u);
  for (const auto& [feature, similarity] : found) {
    EXPECT_NE(feature, 4);
    EXPECT_NEAR(similarity, at::cosine_similarity(sae.W_dec()[4], sae.W_dec()[feature], 0).item<double>(), 1e-5);
  }
  EXPECT_TRUE(std::ranges::is_sorted(found, std::greater{}, &FeatureNeighbour::similarity));
  EXPECT_STEER_ERROR(neighbours_by_decoder(sae, 40), ErrorCode::argument, "[0, 40)");
}

TEST(Neighbours, ByCoactivationIsPhi) {
  const Model model = test::tiny_model();
  const Sae sae = random_sae();
  Session session(model);
  const auto texts = random_texts(12);
  std::vector<at::Tensor> rows;
  visit_activations(session, sae, texts,
                    [&](std::size_t, const at::Tensor& x) { rows.push_back(sae.encode(x).ne(0).to(at::kDouble)); });
  const at::Tensor on = at::cat(rows);
  const auto found = neighbours_by_coactivation(session, sae, 4, texts, 5);
  for (const auto& [feature, similarity] : found) {
    const at::Tensor a = on.select(1, 4) - on.select(1, 4).mean(),
                     b = on.select(1, feature) - on.select(1, feature).mean();
    EXPECT_NEAR(similarity, ((a * b).sum() / (a.norm() * b.norm())).item<double>(), 1e-6);
  }
}

TEST(Inspect, ListsWhatEncodeSays) {
  const Model model = test::tiny_model();
  const Sae sae = random_sae();
  Session session(model);
  Rng rng(9);
  const auto ids = random_ids(rng, 20);
  const auto result = inspect_features(session, sae, ids, {.top_features = 10, .label = [](std::int64_t f) {
                                                             return "label </script> " + std::to_string(f);
                                                           }});
  const auto cache = session.run_with_cache(ids, {"blocks.1.hook_resid_post"});
  at::Tensor f = sae.encode(cache["blocks.1.hook_resid_post"]).clone();
  f[0].zero_();
  EXPECT_TRUE(result.tokens[0].top.empty());
  for (const auto& feature : result.features) {
    EXPECT_NEAR(feature.max, f.select(1, feature.feature).max().item<double>(), 1e-4);
    for (std::size_t t = 0; t < ids.size(); ++t)
      EXPECT_NEAR(feature.activations[t], f[static_cast<std::int64_t>(t)][feature.feature].item<double>(), 1e-4);
  }
  EXPECT_NEAR(result.features[0].max, f.max().item<double>(), 1e-4) << "the strongest comes first";
  const std::string page = result.to_html("<b>");
  EXPECT_NE(page.find("&lt;b>"), std::string::npos);
  EXPECT_EQ(page.find("label </script>"), std::string::npos) << "a label must not end the script element";
  test::TempDir dir;
  result.write(dir / "page.html");
  result.write(dir / "page.json");
  EXPECT_EQ(nlohmann::json::parse(test::read_file(dir / "page.json"))["tokens"].size(), 20u);
  EXPECT_STEER_ERROR(result.write(dir / "absent" / "x.html"), ErrorCode::io, "absent");
  EXPECT_STEER_ERROR(inspect_features(session, sae, std::vector<std::int64_t>{}), ErrorCode::argument, "empty");
}

TEST(AutoConditional, FindsASubjectAndMeasuresItOnHeldOutTexts) {
  const Model model = test::tiny_model();
  const Sae sae = random_sae();
  Session session(model);
  Rng rng(21);
  std::vector<TokenizedText> about, other;
  for (int i = 0; i < 40; ++i) {
    auto text = random_ids(rng, 16);
    for (auto& id : text)
      if (id == 33) id = 34;
    other.push_back({text});
    text[3 + rng.below(10)] = 33;  // the subject is one word
    about.push_back({text});
  }
  const auto found = auto_conditional(session, sae, about, other, {.max_false_positive = 0.1});
  EXPECT_EQ(found.held_out_positive, 20);
  EXPECT_EQ(found.held_out_negative, 20);
  EXPECT_GT(found.auroc, 0.6);
  EXPECT_GT(found.true_positive, found.false_positive);
  // The area under the listed curve is the AUROC by pairs.
  EXPECT_EQ(found.roc.back().true_positive, 1);
  EXPECT_TRUE(std::ranges::is_sorted(found.roc, {}, &RocPoint::false_positive));
  EXPECT_STEER_ERROR(auto_conditional(session, sae, std::span(about).first(3), other), ErrorCode::argument, "3 and 40");
}

}  // namespace
}  // namespace steer
