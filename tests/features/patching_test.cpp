#include <gtest/gtest.h>

#include <steer/core/random.hpp>
#include <steer/features/patching.hpp>

#include "support.hpp"
#include "tiny_model.hpp"

namespace steer {
namespace {

const std::vector<std::int64_t> kClean{1, 9, 12, 7, 30, 22, 5}, kCorrupt{1, 9, 40, 7, 30, 33, 5};

double difference(const at::Tensor& logits) { return (logits[11] - logits[17]).item<double>(); }

/// One whole forward pass with the one activation put in place.
double patched(Session& session, Site site, std::int64_t layer, std::int64_t position) {
  const std::string name = HookPoint{site, layer}.name();
  const at::Tensor clean = session.run_with_cache(kClean, std::span(&name, 1))[name];
  const auto hook = session.hook(name, [&](HookContext& at) { at.value[position].copy_(clean[position]); });
  return difference(session.forward(kCorrupt)[-1]);
}

TEST(PatchSweep, EqualsOneWholePassForEveryPlace) {
  Session session(test::tiny_model(), {.batch_invariant = true});
  for (const Site site :
       {Site::resid_pre, Site::resid_mid, Site::attn_z, Site::attn_k, Site::mlp_out, Site::resid_post})
    for (const std::int64_t rows : {1, 3, 16}) {
      const PatchSweep sweep = patch_sweep(session, site, kClean, kCorrupt, difference, {.rows = rows});
      ASSERT_EQ(sweep.metric.sizes(), (std::vector<std::int64_t>{3, 7}));
      for (std::int64_t l = 0; l < 3; ++l)
        for (std::int64_t p = 0; p < 7; ++p)
          EXPECT_NEAR(sweep.metric[l][p].item<double>(), patched(session, site, l, p), 1e-5)
              << to_string(site) << " layer " << l << " position " << p;
    }
}

TEST(PatchSweep, RestoresWhatIsKnown) {
  Session session(test::tiny_model());
  std::vector<std::int64_t> one_differs = kClean;
  one_differs[4] = 50;
  const PatchSweep sweep = patch_sweep(session, Site::resid_pre, kClean, one_differs, difference);
  EXPECT_NEAR(sweep.clean, difference(session.forward(kClean)[-1]), 1e-5);
  EXPECT_NEAR(sweep.corrupt, difference(session.forward(one_differs)[-1]), 1e-5);
  const at::Tensor restored = sweep.restored();
  for (std::int64_t p = 0; p < 7; ++p)  // at the first layer the tokens differ in one place only
    EXPECT_NEAR(restored[0][p].item<double>(), p == 4 ? 1 : 0, 1e-4) << p;
  for (std::int64_t l = 0; l < 3; ++l)  // what precedes the place is the same in both runs
    for (std::int64_t p = 0; p < 4; ++p) EXPECT_NEAR(restored[l][p].item<double>(), 0, 1e-4);
}

TEST(PatchSweep, ChoosesLayersAndPositionsAndRefusesOthers) {
  Session session(test::tiny_model());
  const auto all = patch_sweep(session, Site::mlp_out, kClean, kCorrupt, difference);
  const auto some =
      patch_sweep(session, Site::mlp_out, kClean, kCorrupt, difference, {.layers = {2, 0}, .positions = {6, 2}});
  EXPECT_NEAR(some.metric[0][1].item<double>(), all.metric[2][2].item<double>(), 1e-5);
  EXPECT_NEAR(some.metric[1][0].item<double>(), all.metric[0][6].item<double>(), 1e-5);
  const std::span<const std::int64_t> shorter = std::span(kClean).first(3);
  EXPECT_STEER_ERROR(patch_sweep(session, Site::mlp_out, shorter, kCorrupt, difference), ErrorCode::argument,
                     "one length");
  EXPECT_STEER_ERROR(patch_sweep(session, Site::embed, kClean, kCorrupt, difference), ErrorCode::argument,
                     "hook_embed");
  EXPECT_STEER_ERROR(patch_sweep(session, Site::mlp_out, kClean, kCorrupt, difference, {.layers = {3}}),
                     ErrorCode::argument, "below 3");
  EXPECT_STEER_ERROR(patch_sweep(session, Site::mlp_out, kClean, kClean, difference).restored(), ErrorCode::argument,
                     "other prompts");
  EXPECT_STEER_ERROR(patch_sweep(session, Site::mlp_out, kClean, kCorrupt, [](const at::Tensor&) { return NAN; }),
                     ErrorCode::argument, "finite");
}

}  // namespace
}  // namespace steer
