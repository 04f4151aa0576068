// Steering through real forward passes: the steered goldens of every model, and the promise that neither chunking, nor
// the cache, nor a batch changes what an edit does.
#include <ATen/ops/equal.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <gtest/gtest.h>

#include <steer/io/tensor_reader.hpp>
#include <steer/model/session.hpp>

#include "model/hook_table.hpp"
#include "steering/reference.hpp"
#include "support.hpp"

namespace steer {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<std::int64_t>;

Ids ids_of(const at::Tensor& row) {
  const at::Tensor r = row.contiguous();
  return {r.const_data_ptr<std::int64_t>(), r.const_data_ptr<std::int64_t>() + r.numel()};
}

std::vector<fs::path> golden_models() {
  const auto data = test::outside_data("STEER_GOLDEN_MODELS", "../shared/fixtures/golden/models");
  std::vector<fs::path> folders;
  if (data.present)
    for (const auto& entry : fs::directory_iterator(data.path))
      if (fs::exists(entry.path() / "golden.safetensors")) folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  return folders;
}

/// Greedy continuations of some prompts in one batch, each steered by its row; the prompt given in chunks.
struct Decoded {
  std::vector<Ids> ids;
  std::vector<at::Tensor> logits;  ///< by row, of every step's last token [steps, vocab]
};
Decoded decode(const Model& model, const std::vector<Ids>& prompts, std::span<const Steering> rows, std::int64_t count,
               std::size_t chunk = 0) {
  Session session(model, {.batch_invariant = true});
  std::vector<SequenceId> sequences;
  Decoded result;
  result.ids.resize(prompts.size());
  std::vector<std::vector<at::Tensor>> logits(prompts.size());
  for (std::size_t r = 0; r < prompts.size(); ++r) {
    sequences.push_back(session.open({.steering = rows[r]}));
    std::size_t done = 0;
    for (; chunk > 0 && done + chunk < prompts[r].size(); done += chunk)
      session.step({{sequences[r], std::span(prompts[r]).subspan(done, chunk), Phase::prompt,
                     static_cast<std::int64_t>(prompts[r].size() - done - chunk)}},
                   Logits::none);
    result.ids[r].assign(prompts[r].begin() + static_cast<std::ptrdiff_t>(done), prompts[r].end());
  }
  std::vector<Ids> next = result.ids;
  for (Ids& ids : result.ids) ids.clear();
  for (std::int64_t i = 0; i < count; ++i) {
    std::vector<StepInput> inputs;
    for (std::size_t r = 0; r < prompts.size(); ++r)
      inputs.push_back({sequences[r], next[r], i == 0 ? Phase::prompt : Phase::generated});
    const at::Tensor out = session.step(inputs, Logits::last);
    for (std::size_t r = 0; r < prompts.size(); ++r) {
      logits[r].push_back(out[static_cast<std::int64_t>(r)]);
      next[r] = {out[static_cast<std::int64_t>(r)].argmax().item<std::int64_t>()};
      result.ids[r].push_back(next[r][0]);
    }
  }
  for (const auto& row : logits) result.logits.push_back(at::stack(row));
  return result;
}

TEST(GoldenModelsSteered, LogitsAndContinuationsThroughSteering) {
  const auto folders = golden_models();
  if (folders.empty()) GTEST_SKIP() << "no golden models; set STEER_GOLDEN_MODELS";
  test::CaseCounter cases("golden.models (steered)");
  for (const fs::path& folder : folders) {
    const auto golden = open_tensors(folder / "golden.safetensors");
    const Model model = Model::load(folder);
    const HookPoint point = HookPoint::parse(golden->metadata().at("steer_site").get<std::string>());
    const at::Tensor ids = golden->read("input_ids"), vector = golden->read("steer_vector");
    for (std::int64_t r = 0; r < ids.size(0); ++r) {
      const Ids prompt = ids_of(ids[r]);
      const auto logits_under = [&](const Scope& scope) {
        return Session(model).forward(prompt, {.steering = Steering().add(vector, point, 1, {.scope = scope})});
      };
      const auto error = [](const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); };
      const double all = error(logits_under({.include_bos = true}), golden->read("steered_all.logits")[r]);
      const at::Tensor last = logits_under({.where = Where::last});
      const double only_last = error(last[last.size(0) - 1], golden->read("steered_last.logits_last")[r]);
      const double others =
          error(last.slice(0, 0, last.size(0) - 1), golden->read("logits")[r].slice(0, 0, last.size(0) - 1));
      const Steering everywhere = Steering().add(vector, point, 1, {.scope = {.include_bos = true}});
      const Ids wanted = ids_of(golden->read("steered_all.gen_ids")[r]);
      const bool same =
          decode(model, {prompt}, std::span(&everywhere, 1), static_cast<std::int64_t>(wanted.size())).ids[0] == wanted;
      const bool ok = all <= 1e-4 && only_last <= 1e-4 && others <= 1e-4 && same;
      cases.count(ok);
      EXPECT_TRUE(ok) << folder.filename() << " row " << r << ": all " << all << ", last " << only_last << ", others "
                      << others << ", continuation " << (same ? "equal" : "differs");
    }
  }
  if (cases.passed() + cases.failed() == 0) FAIL() << "no case found";
}

/// A small model to put edits into: the first golden one.
std::optional<Model> some_model() {
  const auto folders = golden_models();
  if (folders.empty()) return {};
  for (const auto& folder : folders)
    if (folder.filename() == "llama3") return Model::load(folder);
  return Model::load(folders.front());
}

/// One steering a kind of edit, at resid_post of layer 1.
std::vector<std::pair<std::string, Steering>> one_of_each_kind(const Model& model) {
  const std::int64_t d = model.config().d_model;
  const HookPoint point{Site::resid_post, 1};
  Rng rng(4);
  const Sae sae = test::random_sae(rng, d, 64, SaeActivation::relu),
            top = test::random_sae(rng, d, 64, SaeActivation::topk);
  const at::Tensor v = test::random_tensor(rng, {d}), w = test::random_tensor(rng, {d});
  std::vector<std::pair<std::string, Steering>> kinds{
      {"add", Steering().add(v, point, 1)},
      {"add by norm", Steering().add(v, point, 0.3, {.unit = StrengthUnit::residual_norm})},
      {"nudge", Steering().nudge(sae, 3, 2)},
      {"pin", Steering().pin(sae, 3, 4)},
      {"mul", Steering().mul(sae, 3, 5).mul(sae, 4, 5).mul(sae, 5, 5).mul(sae, 6, -5)},
      {"clamp", Steering().clamp(sae, 3, 2, 3)},
      {"cap", Steering().cap(sae, 3, -1)},
      {"ablate", Steering().ablate(sae, 3).ablate(sae, 4).ablate(sae, 5).ablate(sae, 6)},
      {"pin in topk", Steering().pin(top, 3, 4)},
      {"project out", Steering().project_out(v, point)},
      {"scale along", Steering().scale_along(v, point, 3)},
      {"project to", Steering().project_to(v, point, 3, TargetSide::both)},
      {"rotate", Steering().rotate(v, w, point, 1)},
      {"gated add", Steering().gated_add(v, 500, w, point, 0.01)},
      {"splice", Steering().splice(sae, false, {.point = point})},
      {"cap norm", Steering().cap_norm(point, 0.5)},
      {"keep norm", Steering().add(v, point, 2).keep_norm(point)},
      {"custom", Steering().custom([](const CustomContext& at) { return -at.h; }, point)}};
  return kinds;
}

TEST(SteeredSession, EveryEditReachesDecodeSteps) {
  const auto model = some_model();
  if (!model) GTEST_SKIP() << "no golden models";
  const Ids prompt{1, 5, 9, 30, 7};
  const Steering nothing;
  const Decoded plain = decode(*model, {prompt}, std::span(&nothing, 1), 3);
  for (const auto& [name, steering] : one_of_each_kind(*model)) {
    // Generated tokens only: what the prompt leaves in the cache cannot be what changes the logits.
    Steering generated;
    for (Edit e : steering.edits()) {
      e.scope.where = Where::generated;
      generated.edit(e);
    }
    Session session(*model);
    const SequenceId s = session.open({.steering = generated});
    const at::Tensor after_prompt = session.step({{s, prompt, Phase::prompt}});
    EXPECT_TRUE(at::equal(after_prompt[0], plain.logits[0][0])) << name;
    for (int step = 1; step < 3; ++step) {
      const Ids next{plain.ids[0][step - 1]};
      const at::Tensor logits = session.step({{s, next, Phase::generated}});
      EXPECT_GT((logits[0] - plain.logits[0][step]).abs().max().item<double>(), 1e-4) << name << " at step " << step;
    }
    const auto audit = session.audit(s);
    EXPECT_EQ(audit.edits.back().seen, 7) << name;
    EXPECT_EQ(audit.edits.back().in_scope, 2) << name;
    EXPECT_GE(audit.edited(), 1) << name;
  }
}

TEST(SteeredSession, EverySiteReachesDecodeSteps) {
  const auto model = some_model();
  if (!model) GTEST_SKIP() << "no golden models";
  const auto& c = model->config();
  for (const auto& entry : EnumTable<Site>::entries) {
    const bool whole = entry.value == Site::embed || entry.value == Site::ln_final;
    const HookPoint point{entry.value, whole ? 0 : 1};
    if (entry.value == Site::attn_pattern || !model::detail::why_not_computed(c, point).empty()) continue;
    const std::int64_t width = model::detail::hook_width(c, point);
    Session session(*model);
    Rng rng(1);
    const Steering add =
        Steering().add(test::random_tensor(rng, {width}), point, 3, {.scope = {.where = Where::generated}});
    const SequenceId steered = session.open({.steering = add}), plain = session.open();
    const Ids prompt{1, 5, 9}, next{7};
    session.step({{steered, prompt, Phase::prompt}, {plain, prompt, Phase::prompt}});
    const at::Tensor logits = session.step({{steered, next, Phase::generated}, {plain, next, Phase::generated}});
    EXPECT_GT((logits[0] - logits[1]).abs().max().item<double>(), 1e-4) << point.name();
    EXPECT_EQ(session.audit(steered).edits[0].edited, 1) << point.name();
  }
}

/// Of every kind of edit, with conditions and SAEs of every kind: the bits of a row do not depend on who shares its
/// batch, nor on how its prompt is cut.
TEST(Invariance, ChunksCacheAndBatchChangeNoBit) {
  const auto model = some_model();
  if (!model) GTEST_SKIP() << "no golden models";
  test::CaseCounter cases("invariance (steered rows)");
  std::vector<Steering> rows;
  std::vector<Ids> prompts;
  Rng rng(9);
  auto kinds = one_of_each_kind(*model);
  const HookPoint point{Site::resid_post, 1};
  const at::Tensor v = test::random_tensor(rng, {model->config().d_model});
  for (const auto activation : {SaeActivation::relu, SaeActivation::jumprelu, SaeActivation::topk, SaeActivation::gated,
                                SaeActivation::batchtopk})
    for (const auto norm :
         {SaeNormalization::none, SaeNormalization::layer_norm, SaeNormalization::constant_norm_rescale}) {
      const Sae sae = test::random_sae(rng, model->config().d_model, 64, activation, norm);
      kinds.emplace_back("condition", Steering().add(v, point, 0.5, {.when = Condition::feature_above(sae, 5, 0.05)}));
      kinds.emplace_back("pin", Steering().pin(sae, 3, 1.5).nudge(sae, 4, 1));
      kinds.emplace_back("splice", Steering().splice(sae, norm == SaeNormalization::none, {.point = point}));
    }
  for (const auto& [name, steering] : kinds) {
    rows.push_back(steering);
    Ids prompt{1};
    for (std::uint64_t i = 0; i < 3 + rng.below(9); ++i)
      prompt.push_back(static_cast<std::int64_t>(3 + rng.below(200)));
    prompts.push_back(prompt);
  }
  rows.emplace_back();
  prompts.push_back({1, 8, 9});
  const Decoded together = decode(*model, prompts, rows, 8), chunked = decode(*model, prompts, rows, 8, 3);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const Decoded alone = decode(*model, {prompts[r]}, std::span(&rows[r], 1), 8);
    const bool same = alone.ids[0] == together.ids[r] && at::equal(alone.logits[0], together.logits[r]) &&
                      alone.ids[0] == chunked.ids[r] && at::equal(alone.logits[0], chunked.logits[r]);
    cases.count(same);
    EXPECT_TRUE(same) << rows[r].describe() << "together differs by "
                      << (alone.logits[0] - together.logits[r]).abs().max().item<double>() << ", chunked by "
                      << (alone.logits[0] - chunked.logits[r]).abs().max().item<double>();
  }
}

TEST(SteeredSession, StrengthZeroAndEmptySteeringGiveTheSameBits) {
  const auto model = some_model();
  if (!model) GTEST_SKIP() << "no golden models";
  const Ids prompt{1, 5, 9, 30, 7, 22};
  const at::Tensor plain = Session(*model).forward(prompt);
  std::vector<Steering> nothing{{}};
  for (const auto& [name, steering] : one_of_each_kind(*model)) {
    nothing.push_back(steering.scaled(0));
    Steering never;
    for (Edit e : steering.edits()) {
      e.when = Condition::probe_above(at::zeros({model->config().d_model}), -1, {.point = e.point});
      never.edit(e);
    }
    nothing.push_back(never);
  }
  for (const Steering& s : nothing) {
    EXPECT_TRUE(at::equal(Session(*model).forward(prompt, {.steering = s}), plain)) << s.describe();
  }
}

TEST(SteeredSession, AbortReasonsAndReadBackOfAPinnedFeature) {
  const auto model = some_model();
  if (!model) GTEST_SKIP() << "no golden models";
  Rng rng(4);
  const Sae sae = test::random_sae(rng, model->config().d_model, 64, SaeActivation::relu);
  Steering s;
  s.abort_when(Condition::feature_above(sae, 3, 0.0), "feature 3 is on");
  Session session(*model);
  const Ids prompt{1, 5, 9, 30, 7, 22, 40, 41, 42, 43};
  const at::Tensor f =
      sae.encode(session.run_with_cache(prompt, {"blocks.1.hook_resid_post"})["blocks.1.hook_resid_post"]);
  const SequenceId sequence = session.open({.steering = s});
  session.step({{sequence, prompt, Phase::prompt}});
  EXPECT_EQ(session.abort_reason(sequence).has_value(), (f.select(1, 3) > 0).any().item<bool>());
}

}  // namespace
}  // namespace steer
