// Model::unembed: the end of a pass, of any activations. tests/model/golden_models_test.cpp compares it with
// transformers.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <steer/model/session.hpp>

#include "core/format_text.hpp"
#include "support.hpp"
#include "tiny_models.hpp"

namespace steer {
namespace {

const std::vector<std::int64_t> kIds{3, 1, 4, 1, 5, 9, 2};

std::string last_point(const Model& model) {
  return format_text("blocks.{}.hook_resid_post", model.config().n_layers - 1);
}

TEST(Unembed, OfTheLastLayerGivesTheModelsLogits) {
  for (const auto* family : test::kFamilies) {
    const Model model = test::tiny_model(family).load();
    Session session(model);
    const auto cache = session.run_with_cache(kIds, {last_point(model)});
    const at::Tensor lens = model.unembed(cache[last_point(model)]);
    EXPECT_EQ(lens.sizes(), cache.logits.sizes()) << family;
    EXPECT_LT((lens - cache.logits).abs().max().item<double>(), 1e-5 * cache.logits.abs().max().item<double>() + 1e-6)
        << family;
  }
}

/// By hand: GPT-2's final norm has a bias, and its residual stream a mean.
TEST(Unembed, IsTheFormulaWhereTheFinalNormHasABias) {
  auto tensors = test::tiny_model("gpt2");
  const at::Tensor bias = at::linspace(-2, 2, tensors["transformer.ln_f.bias"].numel());
  tensors["transformer.ln_f.bias"].copy_(bias);
  const Model model = tensors.load();
  const at::Tensor h = at::randn({5, model.config().d_model}) * 3 + 0.7, x = h.to(at::kDouble);
  const at::Tensor centred = x - x.mean(1, true);
  const at::Tensor normed = centred / at::sqrt(centred.square().mean(1, true) + model.config().norm_eps) *
                                model.final_norm_gain().to(at::kDouble) +
                            bias.to(at::kDouble);
  const at::Tensor want = at::matmul(normed, model.unembedding().to(at::kDouble).t());
  EXPECT_LT((model.unembed(h) - want).abs().max().item<double>(), 1e-5 * want.abs().max().item<double>());
  EXPECT_LT((model.unembed(h.to(at::kDouble)) - want).abs().max().item<double>(),
            1e-5 * want.abs().max().item<double>())
      << "any float dtype";
}

TEST(Unembed, ARowDoesNotDependOnTheOthersAndGradientsFlow) {
  const Model model = test::tiny_model("gemma2").load();  // with a soft cap
  const at::Tensor h = at::randn({40, model.config().d_model}) * 4;
  const at::Tensor together = model.unembed(h);
  for (const std::int64_t row : {0, 7, 39})
    EXPECT_TRUE(at::equal(model.unembed(h.narrow(0, row, 1))[0], together[row])) << row;
  EXPECT_EQ(model.unembed(h.narrow(0, 0, 0)).sizes(), (at::IntArrayRef{0, model.config().vocab_size}));

  const c10::AutoGradMode on(true);
  const at::Tensor leaf = h.narrow(0, 0, 2).clone().set_requires_grad(true);
  const at::Tensor probe = at::randn({2, model.config().d_model}), weight = at::randn({2, model.config().vocab_size});
  (model.unembed(leaf) * weight).sum().backward();
  constexpr double step = 1e-2;  // central differences, f32
  const auto value = [&](double by) { return (model.unembed(leaf.detach() + by * probe) * weight).sum(); };
  const double slope = (value(step) - value(-step)).item<double>() / (2 * step);
  EXPECT_NEAR((leaf.grad() * probe).sum().item<double>(), slope, 2e-2 * std::abs(slope) + 1e-2);
}

TEST(Unembed, BadInputIsNamed) {
  const Model model = test::tiny_model("llama").load();
  EXPECT_STEER_ERROR(model.unembed({}), ErrorCode::argument, "none");
  EXPECT_STEER_ERROR(model.unembed(at::zeros({2, model.config().d_model}, at::kLong)), ErrorCode::argument, "Long");
  EXPECT_STEER_ERROR(model.unembed(at::zeros({model.config().d_model})), ErrorCode::shape, "residual stream");
  EXPECT_STEER_ERROR(model.unembed(at::zeros({2, 3})), ErrorCode::shape, "[2, 3]");
}

}  // namespace
}  // namespace steer
