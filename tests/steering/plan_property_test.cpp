// Random SAEs, edits, scopes and batches against the plain version in reference.hpp.
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/norm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/zeros.h>

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <functional>
#include <map>

#include "core/format_text.hpp"
#include "steering/on_card.hpp"
#include "steering/reference.hpp"
#include "support.hpp"

namespace steer {
namespace {

using test::FakeStep;
using test::random_tensor;

const HookPoint kPoint{Site::resid_post, 1};

constexpr double kTolerance = 3e-5;

struct Case {
  std::int64_t width;
  std::vector<Sae> saes;
  std::vector<Steering> rows;
  FakeStep step;
  at::Tensor h;
};

Scope random_scope(Rng& rng, int depth = 0) {
  Scope s;
  s.include_bos = rng.below(3) == 0;
  switch (rng.below(10)) {
    case 0:
      s.where = Where::prompt;
      break;
    case 1:
      s.where = Where::generated;
      break;
    case 2:
      s.where = Where::onset, s.count = 1 + static_cast<std::int64_t>(rng.below(3));
      break;
    case 3:
      s.where = Where::last;
      break;
    case 4:
      s.where = Where::from_last;
      break;
    case 5:
      s.where = Where::span, s.begin = static_cast<std::int64_t>(rng.below(4)), s.end = s.begin + 2;
      break;
    case 6:
      s.where = Where::span, s.begin = -1 - static_cast<std::int64_t>(rng.below(4)), s.end = s.begin + 2;
      break;
    default:
      break;
  }
  if (rng.below(4) == 0) s.tokens = {5, 7};
  if (depth == 0 && rng.below(4) == 0) s.except.push_back(random_scope(rng, 1));
  return s;
}

/// How to make a random edit of each kind.
using MakeEdit = std::function<void(Rng&, Steering&, const Case&, const Sae&, EditOptions)>;
const std::map<std::string_view, MakeEdit>& makers() {
  const auto vec = [](Rng& rng, const Case& c) { return random_tensor(rng, {c.width}); };
  const auto feature = [](Rng& rng, const Sae& sae) { return static_cast<std::int64_t>(rng.below(sae.d_sae())); };
  const auto share = [](Rng& rng, EditOptions& o) {
    if (rng.below(2) == 0) o.unit = StrengthUnit::residual_norm;
    return o.unit == StrengthUnit::residual_norm;
  };
  const auto feature_unit = [](Rng& rng, EditOptions& o) {
    if (rng.below(3) == 0)
      o.unit = StrengthUnit::residual_norm;
    else if (rng.below(3) == 0)
      o.unit = StrengthUnit::max_activation, o.max_activation = 1.5;
  };
  static const std::map<std::string_view, MakeEdit> all{
      {"add",
       [=](Rng& rng, Steering& s, const Case& c, const Sae&, EditOptions o) {
         share(rng, o);
         s.add(vec(rng, c), kPoint, 0.5 * rng.normal(), o);
       }},
      {"nudge",
       [=](Rng& rng, Steering& s, const Case&, const Sae& sae, EditOptions o) {
         feature_unit(rng, o);
         s.nudge(sae, feature(rng, sae), rng.normal(), o);
       }},
      {"pin",
       [=](Rng& rng, Steering& s, const Case&, const Sae& sae, EditOptions o) {
         feature_unit(rng, o);
         s.pin(sae, feature(rng, sae), rng.uniform(), o);
       }},
      {"mul", [=](Rng& rng, Steering& s, const Case&, const Sae& sae,
                  EditOptions o) { s.mul(sae, feature(rng, sae), 3 * rng.uniform(), o); }},
      {"clamp",
       [=](Rng& rng, Steering& s, const Case&, const Sae& sae, EditOptions o) {
         feature_unit(rng, o);
         s.clamp(sae, feature(rng, sae), 0.2, 0.7, o);
       }},
      {"cap",
       [=](Rng& rng, Steering& s, const Case&, const Sae& sae, EditOptions o) {
         feature_unit(rng, o);
         s.cap(sae, feature(rng, sae), 0.3, o);
       }},
      {"ablate",
       [=](Rng& rng, Steering& s, const Case&, const Sae& sae, EditOptions o) { s.ablate(sae, feature(rng, sae), o); }},
      {"project_out",
       [=](Rng& rng, Steering& s, const Case& c, const Sae&, EditOptions o) { s.project_out(vec(rng, c), kPoint, o); }},
      {"scale_along", [=](Rng& rng, Steering& s, const Case& c, const Sae&,
                          EditOptions o) { s.scale_along(vec(rng, c), kPoint, 2 * rng.normal(), o); }},
      {"project_to",
       [=](Rng& rng, Steering& s, const Case& c, const Sae&, EditOptions o) {
         share(rng, o);
         s.project_to(vec(rng, c), kPoint, 0.3 * rng.normal(), static_cast<TargetSide>(rng.below(3)), o);
       }},
      {"set_along_metric",
       [=](Rng& rng, Steering& s, const Case& c, const Sae&, EditOptions o) {
         const at::Tensor a = random_tensor(rng, {c.width, c.width}, 0.3), v = vec(rng, c) / at::norm(vec(rng, c));
         const at::Tensor metric = at::matmul(a, a.t()) + at::eye(c.width);
         s.set_along_metric(v, ActivationMetric::of(metric), kPoint, rng.normal(), o);
       }},
      {"swap", [=](Rng& rng, Steering& s, const Case& c, const Sae&,
                   EditOptions o) { s.swap(vec(rng, c), vec(rng, c), kPoint, o); }},
      {"rotate", [=](Rng& rng, Steering& s, const Case& c, const Sae&,
                     EditOptions o) { s.rotate(vec(rng, c), vec(rng, c), kPoint, 2 * rng.normal(), o); }},
      {"gated_add", [=](Rng& rng, Steering& s, const Case& c, const Sae&,
                        EditOptions o) { s.gated_add(vec(rng, c), rng.normal(), vec(rng, c), kPoint, 0.3, o); }},
      {"splice", [=](Rng& rng, Steering& s, const Case& c, const Sae&,
                     EditOptions o) { s.splice(c.saes[0], rng.below(2) == 0, o); }},
      {"cap_norm",
       [=](Rng& rng, Steering& s, const Case&, const Sae&, EditOptions o) {
         const double limit = share(rng, o) ? 0.8 : 2;
         s.cap_norm(kPoint, limit, o);
       }},
      {"keep_norm", [=](Rng&, Steering& s, const Case&, const Sae&, EditOptions o) { s.keep_norm(kPoint, o); }},
      {"custom", [=](Rng&, Steering& s, const Case&, const Sae&, EditOptions o) {
         s.custom([](const CustomContext& at) { return at.h * 0.5 + at.position.to(at::kFloat).unsqueeze(1) * 0.01; },
                  kPoint, o);
       }}};
  return all;
}

/// One edit of a kind, or of any. Thresholds are read from values that move by rounding, so kinds that switch on one
/// (clamp, cap, project_to, gates) are continuous there, and SAEs see a token only on arrival, or are plain ReLU.
void random_edit(Rng& rng, Steering& s, const Case& c, bool first, std::string_view kind = {}) {
  const auto kinds = steering::detail::kinds();
  if (kind.empty()) kind = kinds[rng.below(kinds.size())]->kind;
  const EditOptions o{.scope = random_scope(rng)};
  const Sae& sae = first ? c.saes[rng.below(c.saes.size())] : c.saes[0];
  makers().at(kind)(rng, s, c, sae, o);
  if (rng.below(3) == 0) {
    Edit e = s.edits().back();
    Steering scaled;
    for (const Edit& before : s.edits().first(s.edits().size() - 1)) scaled.edit(before);
    e.strength *= 0.5;
    s = scaled.edit(e);
  }
}

/// @param kind  of the first edit of each row; empty: any, and perhaps none.
Case random_case(std::uint64_t seed, std::string_view kind = {}) {
  Rng rng(seed);
  Case c;
  c.width = 3 + static_cast<std::int64_t>(rng.below(60));
  // Plain ReLU first: later edits may use only it, whose activations move with h without jumps.
  const auto norm = static_cast<SaeNormalization>(rng.below(3));
  c.saes.push_back(test::random_sae(rng, c.width, 24, SaeActivation::relu, norm, rng.below(2) == 0));
  for (auto kind : {SaeActivation::jumprelu, SaeActivation::batchtopk, SaeActivation::gated, SaeActivation::topk})
    c.saes.push_back(
        test::random_sae(rng, c.width, 24, kind, static_cast<SaeNormalization>(rng.below(3)), rng.below(2) == 0));
  const auto rows = 1 + static_cast<std::int64_t>(rng.below(4));
  for (std::int64_t r = 0; r < rows; ++r) {
    Steering s;
    const auto edits = rng.below(5) + (kind.empty() ? 0 : 1);
    for (std::uint64_t e = 0; e < edits; ++e) random_edit(rng, s, c, e == 0, e == 0 ? kind : std::string_view());
    c.rows.push_back(s);
    const bool decode = rng.below(2) == 0;
    const auto prompt = 1 + static_cast<std::int64_t>(rng.below(5));
    if (decode)
      c.step.add(static_cast<SequenceId>(r), prompt + static_cast<std::int64_t>(rng.below(4)), 1, prompt,
                 Phase::generated);
    else
      c.step.add(static_cast<SequenceId>(r), 0, prompt, prompt, Phase::prompt);
  }
  c.h = random_tensor(rng, {c.step.size(), c.width});
  return c;
}

test::Rows rows_of(const Case& c, const CompileOptions& options = {}) {
  return {test::small_model(c.width), std::nullopt, c.rows, options};
}

double worst(const at::Tensor& got, const at::Tensor& wanted) {
  return ((got.to(at::kDouble) - wanted).abs() / (1 + wanted.abs().amax(1, true))).max().item<double>();
}

/// The rows that differ, in words.
std::string words(const Case& c, const at::Tensor& got, const at::Tensor& wanted) {
  std::string text;
  for (const TokenRun& run : c.step.runs)
    for (std::int64_t t = run.begin; t < run.end; ++t)
      if (const double error = worst(got.slice(0, t, t + 1), wanted.slice(0, t, t + 1)); error > kTolerance)
        text +=
            format_text("error {} at position {} ({}) of row {} of width {}:\n{}", error, run.position + t - run.begin,
                        to_string(run.phase), run.sequence, c.width, c.rows[run.sequence].describe());
  return text;
}

RC_GTEST_PROP(SteeringProperties, MatchesThePlainVersion, ()) {
  const Case c = random_case(*rc::gen::arbitrary<std::uint64_t>());
  auto rows = rows_of(c);
  const at::Tensor wanted = test::reference(c.rows, kPoint, c.step, c.h);
  const std::string errors = words(c, rows.apply(kPoint, c.step, c.h), wanted);
  if (!errors.empty()) RC_FAIL(errors);
}

RC_GTEST_PROP(SteeringProperties, TensorPathMatchesThePlainVersion, ()) {
  const Case c = random_case(*rc::gen::arbitrary<std::uint64_t>());
  auto rows = rows_of(c);
  const at::Tensor wanted = test::reference(c.rows, kPoint, c.step, c.h);
  at::Tensor value = c.h.clone().requires_grad_(true) * 1;  // recording gradients takes the operators' path
  rows.run(kPoint, c.step, value);
  const std::string errors = words(c, value.detach(), wanted);
  if (!errors.empty()) RC_FAIL(errors);
}

/// What is wrong with an audit, judged by the reference's; empty: nothing. Changes that are all rounding may or may not
/// count as edits.
std::string wrong(const EditAudit& got, const test::ReferenceAudit& wanted, std::int64_t seen) {
  constexpr double rounding = 1e-5;
  // Where nothing is to be done these may still round.
  const bool rounds =
      got.edit.starts_with("splice") || got.edit.starts_with("keep_norm") || got.edit.starts_with("cap_norm");
  std::int64_t sure = 0, rounded = 0;
  double sum = 0, most = 0;
  for (double c : wanted.changes) {
    sure += c > rounding;
    rounded += c <= rounding && (c > 0 || rounds);
    sum += c;
    most = std::max(most, c);
  }
  if (got.seen != seen) return format_text("seen {} but {}", got.seen, seen);
  if (got.in_scope != wanted.in_scope) return format_text("in scope {} but {}", got.in_scope, wanted.in_scope);
  if (got.edited < sure || got.edited > sure + rounded)
    return format_text("edited {} but [{}, {}]", got.edited, sure, sure + rounded);
  const double total = got.mean_change * static_cast<double>(got.edited);
  if (std::abs(total - sum) > 1e-4 * (1 + sum)) return format_text("changes sum up to {} but {}", total, sum);
  if (std::abs(got.max_change - most) > 1e-4 * (1 + most)) return format_text("max {} but {}", got.max_change, most);
  return "";
}

enum class Path { by_token, tensors, card };

/// Every kind, first alone or among others, on every path: values and audits.
TEST(Edits, EveryKindMatchesTheReferenceOnEveryPathAudited) {
  const at::Device device = test::card_device();
  // A card's threads one by one take long.
  const std::uint64_t on_card = !device.is_cpu() ? 150 : test::kEmulatesCard ? 20 : 0;
  test::CaseCounter cases("edits");
  for (const steering::detail::Factory* factory : steering::detail::kinds())
    for (std::uint64_t seed = 0; seed < 150; ++seed) {
      const Case c = random_case(derive_seed(9, factory->kind, seed), factory->kind);
      std::vector<std::vector<test::ReferenceAudit>> audits;
      const at::Tensor wanted = test::reference(c.rows, kPoint, c.step, c.h, &audits);
      for (const Path path : {Path::by_token, Path::tensors, Path::card}) {
        if (path == Path::card && seed >= on_card) continue;
        auto rows = rows_of(c);
        // Recording gradients takes the operators' path.
        at::Tensor value = path == Path::tensors ? c.h.clone().requires_grad_(true) * 1 : c.h.clone();
        const test::OnEmulatedCard card(path == Path::card && device.is_cpu());
        if (path == Path::card) value = value.to(device);
        rows.run(kPoint, c.step, value);
        value = value.detach().cpu();
        std::string errors = words(c, value, wanted);
        for (std::size_t r = 0; r < c.rows.size(); ++r) {
          const auto audit = rows.audit(static_cast<SequenceId>(r));
          for (std::size_t e = 0; e < audit.edits.size(); ++e) {
            // Edits that leave everything as it is compile to nothing.
            const Edit& edit = c.rows[r].edits()[e];
            if (edit.strength == 0 || edit.op->identity()) continue;
            if (const auto bad = wrong(audit.edits[e], audits[r][e], c.step.runs[r].end - c.step.runs[r].begin);
                !bad.empty())
              errors += format_text("audit of {}: {}\n", audit.edits[e].edit, bad);
          }
        }
        cases.count(errors.empty());
        EXPECT_EQ(errors, "") << factory->kind << " seed " << seed << " path " << static_cast<int>(path);
      }
    }
}

RC_GTEST_PROP(Invariance, ARowInABatchHasTheBitsOfTheRowAlone, ()) {
  const Case c = random_case(*rc::gen::arbitrary<std::uint64_t>());
  auto together = rows_of(c, {.batch_invariant = true});
  const at::Tensor all = together.apply(kPoint, c.step, c.h);
  for (const TokenRun& run : c.step.runs) {
    auto alone = rows_of(c, {.batch_invariant = true});
    FakeStep step;
    step.add(run.sequence, run.position, run.end - run.begin, run.prompt_length, run.phase);
    std::copy(c.step.ids.begin() + run.begin, c.step.ids.begin() + run.end, step.ids.begin());
    const at::Tensor one = alone.apply(kPoint, step, c.h.slice(0, run.begin, run.end));
    const at::Tensor same = all.slice(0, run.begin, run.end);
    RC_ASSERT(at::equal(one, same));
  }
}

RC_GTEST_PROP(SteeringProperties, UntouchedTokensKeepEveryBit, ()) {
  Case c = random_case(*rc::gen::arbitrary<std::uint64_t>());
  c.h.masked_fill_(c.h < -1.5, -0.0);
  auto rows = rows_of(c);
  const at::Tensor got = rows.apply(kPoint, c.step, c.h);
  for (const TokenRun& run : c.step.runs)
    for (std::int64_t t = run.begin; t < run.end; ++t) {
      bool selected = false;
      for (const Edit& e : c.rows[run.sequence].edits())
        selected |= test::in_scope(e.scope, run, run.position + t - run.begin, c.step.ids[t]);
      if (!selected)
        RC_ASSERT(
            std::memcmp(got[t].const_data_ptr<float>(), c.h[t].const_data_ptr<float>(), c.width * sizeof(float)) == 0);
    }
}

RC_GTEST_PROP(SteeringProperties, StrengthZeroKeepsEveryBit, ()) {
  Case c = random_case(*rc::gen::arbitrary<std::uint64_t>());
  for (Steering& s : c.rows) s = s.scaled(0);
  c.h.masked_fill_(c.h < -1.5, -0.0);
  auto rows = rows_of(c);
  const at::Tensor got = rows.apply(kPoint, c.step, c.h);
  for (std::size_t r = 0; r < c.rows.size(); ++r) RC_ASSERT(rows.program(static_cast<SequenceId>(r)).points().empty());
  RC_ASSERT(std::memcmp(got.const_data_ptr<float>(), c.h.const_data_ptr<float>(), c.h.numel() * sizeof(float)) == 0);
}

RC_GTEST_PROP(SteeringProperties, AdditionsAndEditsOfOtherFeaturesCommute, ()) {
  Rng rng(*rc::gen::arbitrary<std::uint64_t>());
  const std::int64_t width = 3 + static_cast<std::int64_t>(rng.below(60));
  const Sae sae = test::random_sae(rng, width, 24, SaeActivation::jumprelu);
  Steering a, b;
  if (rng.below(2)) {
    a.add(random_tensor(rng, {width}), kPoint, 1.5).nudge(sae, 3, 0.5);
    b.nudge(sae, 5, -0.25).add(random_tensor(rng, {width}), kPoint, -1, {.unit = StrengthUnit::residual_norm});
  } else {
    a.pin(sae, 3, 0.5).ablate(sae, 4);
    b.mul(sae, 5, 2).nudge(sae, 6, 1);
  }
  const std::vector<Steering> both{a + b, b + a};
  test::Rows rows(test::small_model(width), std::nullopt, both);
  FakeStep step;
  step.add(0, 1, 4, 9, Phase::prompt);
  step.add(1, 1, 4, 9, Phase::prompt);
  const at::Tensor h = random_tensor(rng, {4, width});
  const at::Tensor got = rows.apply(kPoint, step, at::cat({h, h}));
  RC_ASSERT((got.slice(0, 0, 4) - got.slice(0, 4, 8)).abs().max().item<double>() < 1e-5);
}

RC_GTEST_PROP(SteeringProperties, APinnedFeatureReadsBackItsValue, ()) {
  Rng rng(*rc::gen::arbitrary<std::uint64_t>());
  const std::int64_t width = 8 + static_cast<std::int64_t>(rng.below(56)), features = 8;
  // Orthonormal decoder rows, tied encoder: what the read-back promise is about.
  const at::Tensor q = std::get<0>(at::linalg_qr(random_tensor(rng, {width, features})));
  SaeConfig config;
  config.hook_in = kPoint;
  SaeWeights weights;
  weights.W_enc = q;
  weights.b_enc = at::zeros({features});
  weights.W_dec = q.t().contiguous();
  weights.b_dec = at::zeros({width});
  const Sae sae = Sae::from_weights(config, weights);
  const double one = 2 * rng.uniform() + 0.1, two = 2 * rng.uniform() + 0.1;
  Steering s;
  s.pin(sae, 1, one).pin(sae, 6, two);
  // Features that are inactive below 0 read 0 there; start from active ones, as the promise needs.
  const at::Tensor h = random_tensor(rng, {3, width});
  const at::Tensor active = h + at::matmul(at::relu(-at::matmul(h, q)) * 1.5, q.t());
  test::Rows rows(test::small_model(width), std::nullopt, std::vector{s});
  FakeStep step;
  step.add(0, 1, 3, 4, Phase::prompt);
  const at::Tensor read = sae.encode(rows.apply(kPoint, step, active));
  RC_ASSERT((read.select(1, 1) - one).abs().max().item<double>() < 1e-5);
  RC_ASSERT((read.select(1, 6) - two).abs().max().item<double>() < 1e-5);
}

}  // namespace
}  // namespace steer
