// What must hold in every family, tried on the golden folder's: each hook point fires and edits, our kernels and
// libtorch's operators agree, a row's bits depend on nobody else, sequences fork and steps are taken back.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include <steer/model/session.hpp>

#include "support.hpp"

namespace steer {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<std::int64_t>;

std::vector<fs::path> families() {
  const auto data = test::outside_data("STEER_GOLDEN_DIR", "../shared/fixtures/golden");
  std::vector<fs::path> out;
  for (const char* part : {"families", "models"})
    if (fs::is_directory(data.path / part))
      for (const auto& entry : fs::directory_iterator(data.path / part))
        if (fs::exists(entry.path() / "config.json")) out.push_back(entry.path());
  std::sort(out.begin(), out.end());
  return out;
}

Ids some_ids(const Model& model, std::int64_t count, std::int64_t seed) {
  Ids ids;
  for (std::int64_t i = 0; i < count; ++i) ids.push_back((i * 31 + seed * 17 + 3) % model.config().vocab_size);
  return ids;
}

double distance(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

/// Calls `check` with each family's model, and counts those in which nothing failed.
template <class Check>
void in_each_family(const char* what, const Check& check) {
  const auto folders = families();
  ASSERT_FALSE(folders.empty() && test::outside_data("STEER_GOLDEN_DIR", "../shared/fixtures/golden").named)
      << "STEER_GOLDEN_DIR names a folder without families or models";
  if (folders.empty()) GTEST_SKIP() << "no golden families (STEER_GOLDEN_DIR names them)";
  test::CaseCounter counter(std::string("golden.families (") + what + ")");
  for (const auto& folder : folders) {
    SCOPED_TRACE(folder.filename().string());
    const auto failures = ::testing::UnitTest::GetInstance()->current_test_info()->result()->total_part_count();
    try {
      check(Model::load(folder));
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
    counter.count(::testing::UnitTest::GetInstance()->current_test_info()->result()->total_part_count() == failures);
  }
}

TEST(GoldenFamiliesHold, EveryPointFiresAndEdits) {
  in_each_family("hooks", [](const Model& model) {
    Session session(model);
    const Ids ids = some_ids(model, 9, 1);
    const auto plain = session.run_with_cache(ids, {"*"});
    for (const auto& [point, value] : plain.all()) {
      const auto off =
          session.hook(point, [](HookContext& at) { at.value.mul_(at::linspace(0.2, 1.8, at.value.size(-1))); });
      EXPECT_GT(distance(session.forward(ids), plain.logits), 1e-5) << point.name();
    }
    const std::int64_t layers = model.config().n_layers;
    for (std::int64_t layer = 0; layer < layers; ++layer)
      for (const auto& site : EnumTable<Site>::entries) {
        const HookPoint point{site.value, layer};
        if (site.value == Site::embed || site.value == Site::ln_final || plain.contains(point)) continue;
        EXPECT_STEER_ERROR((void)session.hook(point, [](HookContext&) {}), ErrorCode::argument, ": ");
      }
  });
}

TEST(GoldenFamiliesHold, KernelsAndOperatorsAgree) {
  in_each_family("operators", [](const Model& model) {
    Session session(model);
    const Ids ids = some_ids(model, 23, 2);
    const at::Tensor ours = session.forward(ids);
    const at::AutoGradMode gradients(true);
    const auto off = session.hook("hook_embed", [](HookContext& at) { at.value = at.value.clone().requires_grad_(); });
    const at::Tensor theirs = session.forward(ids);
    EXPECT_TRUE(theirs.requires_grad());
    EXPECT_LT(distance(ours, theirs.detach()), 1e-4);
  });
}

TEST(GoldenFamiliesHold, ARowDependsOnNobodyElse) {
  in_each_family("invariance", [](const Model& model) {
    const std::vector<Ids> prompts = {some_ids(model, 23, 1), some_ids(model, 5, 2), some_ids(model, 14, 3)};
    const Ids after = some_ids(model, 6, 4);
    // The prompt's last logits and those of six more tokens.
    const auto alone = [&](const Ids& prompt, std::int64_t chunk) {
      Session session(model, {.batch_invariant = true, .prompt_chunk = chunk});
      const SequenceId s = session.open();
      std::vector<at::Tensor> out{session.step({{s, prompt}})};
      for (const auto& id : after) out.push_back(session.step({{s, {&id, 1}, Phase::generated}}));
      return at::cat(out);
    };
    Session session(model, {.batch_invariant = true});
    std::vector<SequenceId> sequences;
    std::vector<StepInput> inputs;
    for (const auto& prompt : prompts) {
      sequences.push_back(session.open());
      inputs.push_back({sequences.back(), prompt});
    }
    std::vector<at::Tensor> together{session.step(inputs)};
    for (const auto& id : after) {
      std::vector<StepInput> step;
      for (const auto s : sequences) step.push_back({s, {&id, 1}, Phase::generated});
      together.push_back(session.step(step));
    }
    const at::Tensor all = at::stack(together, 1);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      EXPECT_TRUE(at::equal(all[static_cast<std::int64_t>(i)], alone(prompts[i], 512))) << "in a batch, row " << i;
      EXPECT_TRUE(at::equal(alone(prompts[i], 3), alone(prompts[i], 512))) << "in chunks, row " << i;
    }
  });
}

TEST(GoldenFamiliesHold, SequencesForkAndStepsAreTakenBack) {
  in_each_family("forks", [](const Model& model) {
    Session session(model, {.batch_invariant = true, .prompt_chunk = 4});
    const Ids prompt = some_ids(model, 11, 1), left = some_ids(model, 6, 2), right = some_ids(model, 6, 3);
    const auto go_on = [&](SequenceId s, const Ids& ids) {
      at::Tensor logits;
      for (const auto& id : ids) logits = session.step({{s, {&id, 1}, Phase::generated}});
      return logits;
    };
    const auto whole = [&](const Ids& ids) {
      const SequenceId s = session.open();
      session.step({{s, prompt}});
      return go_on(s, ids);
    };
    const SequenceId source = session.open();
    session.step({{source, prompt}});
    const SequenceId fork = session.fork(source);
    EXPECT_TRUE(at::equal(go_on(source, left), whole(left)));
    EXPECT_TRUE(at::equal(go_on(fork, right), whole(right)));

    const SequenceId broken = session.open();
    session.step({{broken, prompt}});
    int calls = 0;
    {
      // Within the second piece of a step that is computed in pieces.
      const auto off = session.hook(HookPoint{Site::resid_post, model.config().n_layers - 1}, [&](HookContext&) {
        if (++calls == 2) throw std::runtime_error("on purpose");
      });
      EXPECT_THROW(session.step({{broken, some_ids(model, 9, 5), Phase::generated}}), std::runtime_error);
    }
    EXPECT_EQ(session.length(broken), std::ssize(prompt));
    EXPECT_TRUE(at::equal(go_on(broken, left), whole(left)));
  });
}

}  // namespace
}  // namespace steer
