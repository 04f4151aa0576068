// An SAE whose features are known: some read a concept, one of them also acts on the output, the others do neither.

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_pinv.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include <steer/core/random.hpp>
#include <steer/features/activations.hpp>
#include <steer/features/attribution.hpp>
#include <steer/features/contrast.hpp>

#include "support.hpp"
#include "tiny_model.hpp"

namespace steer {
namespace {

constexpr std::int64_t width = 96, features = 24, reader = 5, actor = 11, promoted = 7;

std::vector<TokenizedText> texts(bool with_concept) {
  Rng rng(with_concept ? 1 : 2);
  std::vector<TokenizedText> result(24);
  for (auto& text : result)
    for (int t = 0; t < 16; ++t)
      text.ids.push_back(with_concept && t % 2 == 1 ? 9 : 3 + static_cast<std::int64_t>(rng.below(6)));
  return result;
}

struct Synthetic {
  Model model = test::tiny_model({.vocabulary = 64, .width = width, .layers = 2});
  HookPoint point{Site::resid_post, 1};
  Session session{model};
  Sae sae = make();

  Sae make() {
    at::manual_seed(14);
    const at::Tensor positive = pooled_residuals(session, point, texts(true)),
                     negative = pooled_residuals(session, point, texts(false));
    at::Tensor concept_direction = positive.mean(0) - negative.mean(0);
    concept_direction = concept_direction / concept_direction.norm();
    const double middle =
        0.5 * (at::mv(positive, concept_direction).mean() + at::mv(negative, concept_direction).mean()).item<double>();
    at::Tensor encoder = at::randn({width, features}) / std::sqrt(width), bias = at::zeros({features});
    at::Tensor decoder = at::randn({features, width});
    decoder = decoder / decoder.norm(2, 1, true);
    // What the logits see of a change at the last layer is W_U (gain * d): 64 tokens leave a third of the directions
    // free.
    const at::Tensor seen = model.unembedding() * model.final_norm_gain();  // [vocab, width]
    const at::Tensor coordinates = at::linalg_pinv(seen);                   // [width, vocab]
    const at::Tensor any = at::randn({width});
    const at::Tensor unseen = any - at::mv(coordinates, at::mv(seen, any));
    const at::Tensor acts = coordinates.select(1, promoted);
    for (const std::int64_t feature : {reader, actor}) {
      encoder.select(1, feature).copy_(concept_direction);
      bias[feature] = -middle;
    }
    bias[reader] += 0.2;  // fires earlier, so that it tells the texts apart no worse
    decoder[reader].copy_(unseen / unseen.norm());
    decoder[actor].copy_(acts / acts.norm());
    return Sae::from_weights({.d_in = width, .d_out = width, .d_sae = features, .hook_in = point},
                             {.W_enc = encoder, .b_enc = bias, .W_dec = decoder, .b_dec = at::zeros({width})});
  }
};

TEST(SyntheticSae, OutputScoreTellsActorsFromReaders) {
  Synthetic s;
  const auto found = contrast_features(pooled_features(s.session, s.sae, texts(true)),
                                       pooled_features(s.session, s.sae, texts(false)), {.limit = 2, .bootstrap = 0});
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(std::set<std::int64_t>({found[0].feature, found[1].feature}), std::set<std::int64_t>({reader, actor}))
      << "contrast sees both";
  const std::vector<std::vector<std::int64_t>> prompts = {{3, 4, 5, 6}, {8, 3, 7, 4}, {5, 5, 6}};
  const std::vector<FeatureValue> candidates = {{reader, 6.0}, {actor, 6.0}};
  const auto kept = filter_by_output_score(s.session, s.sae, candidates, prompts, 1);
  ASSERT_EQ(kept.size(), 1u);
  EXPECT_EQ(kept[0].feature, actor);
  const double acts = output_score(s.session, s.sae, actor, 6, prompts),
               reads = output_score(s.session, s.sae, reader, 6, prompts);
  EXPECT_GT(acts, 0.2) << "the promoted tokens become much likelier";
  EXPECT_LT(std::abs(reads), 0.35 * acts);
}

TEST(SyntheticSae, WhatDoesNotActIsLeftOut) {
  Synthetic s;
  const std::vector<std::vector<std::int64_t>> prompts = {{3, 4, 5, 6}};
  // Nudged against its direction the actor makes its tokens less likely: no score above 0.
  const std::vector<FeatureValue> backwards = {{actor, -6.0}};
  EXPECT_TRUE(filter_by_output_score(s.session, s.sae, backwards, prompts).empty());
  EXPECT_STEER_ERROR(filter_by_output_score(s.session, s.sae, backwards, prompts, 0), ErrorCode::argument,
                     "at least one feature");
  EXPECT_STEER_ERROR(filter_by_output_score(s.session, s.sae, backwards, {}), ErrorCode::argument, "one prompt");
}

}  // namespace
}  // namespace steer
