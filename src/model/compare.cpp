#include <steer/model/compare.hpp>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"
#include "model/hook_table.hpp"

namespace steer {
namespace {

constexpr auto kCompare = "compare_backends";

/// The values of one pass at all points, in the order of computation; the logits last.
using Pass = std::vector<std::pair<HookPoint, at::Tensor>>;

/// One pass of a session with everything recorded.
Pass record(Session& session, const std::vector<HookPoint>& points, const StepInput& input, const Pass* inputs) {
  std::vector<HookHandle> handles;
  Pass pass;
  for (const auto& point : points) {
    if (inputs && point.site == Site::resid_pre)
      handles.push_back(session.hook(point, [inputs](HookContext& at) {
        const auto same = std::ranges::find(*inputs, at.point, &Pass::value_type::first);
        at.value = same->second.to(at.value.device());
      }));
    handles.push_back(session.hook(
        point,
        [&pass](HookContext& at) { pass.emplace_back(at.point, at.value.to(at::kCPU, at::kFloat, false, true)); },
        {.read_only = true, .order = std::numeric_limits<int>::max()}));
  }
  const at::Tensor logits = session.step({input}, Logits::all);
  pass.emplace_back(HookPoint{}, logits.to(at::kCPU, at::kFloat));
  return pass;
}

PointComparison compare(std::string name, std::int64_t position, const at::Tensor& tested,
                        const at::Tensor& reference) {
  PointComparison out{.name = std::move(name), .position = position};
  const at::Tensor difference = (tested - reference).abs();
  // Infinite where either is not a number: NaN would be largest or not, as the comparison goes.
  const at::Tensor ordered = difference.nan_to_num(std::numeric_limits<double>::infinity());
  const std::int64_t place = ordered.argmax().item<std::int64_t>(), width = reference.size(-1);
  out.largest = difference.flatten()[place].item<double>();
  out.scale = reference.abs().max().item<double>();
  // A pattern is [heads, queries, keys]; all others are [tokens, width].
  out.at_position = position + place / width % reference.size(-2);
  out.at_index = place % width;
  return out;
}

void check(const Session& tested, const Session& reference, std::span<const std::int64_t> ids,
           const CompareOptions& options) {
  const ModelConfig &a = tested.model().config(), &b = reference.model().config();
  require(&tested != &reference, ErrorCode::argument, kCompare,
          "expected two sessions but got one twice; open one for each backend");
  require(a.n_layers == b.n_layers && a.d_model == b.d_model && a.vocab_size == b.vocab_size &&
              a.n_heads == b.n_heads && a.d_head == b.d_head && a.d_mlp == b.d_mlp,
          ErrorCode::argument, kCompare,
          "expected models of one shape but got {} layers of {} and {} layers of {}; load the same model twice",
          a.n_layers, a.d_model, b.n_layers, b.d_model);
  require(options.decoded >= 0 && std::ssize(ids) > options.decoded, ErrorCode::argument, kCompare,
          "expected more than {} tokens (those that come one by one) but got {}; give a longer prompt", options.decoded,
          ids.size());
}

}  // namespace

double PointComparison::relative() const { return largest / std::max(scale, 1e-30); }

const PointComparison* BackendComparison::first_difference() const {
  const auto found = std::ranges::find_if(points, [&](const auto& p) { return !(p.relative() <= tolerance); });
  return found == points.end() ? nullptr : &*found;
}

std::string BackendComparison::text() const {
  const auto line = [](const PointComparison& p, const char* mark) {
    return format_text("{:1} {:5} {:34} {:10.3g} {:10.3g} {:10.3g}   token {}, index {}\n", mark, p.position, p.name,
                       p.largest, p.scale, p.relative(), p.at_position, p.at_index);
  };
  std::string out =
      format_text("{:7} {:34} {:>10} {:>10} {:>10}\n", "pass at", "point", "difference", "largest", "ratio");
  const PointComparison* first = first_difference();
  if (!first) {
    const auto worst = std::ranges::max_element(points, {}, &PointComparison::relative);
    if (worst != points.end()) out += line(*worst, "");
    return out + format_text("no difference above {:g} at {} points\n", tolerance, points.size());
  }
  const auto at = first - points.data();
  constexpr std::ptrdiff_t kAround = 3;
  for (auto i = std::max<std::ptrdiff_t>(at - kAround, 0); i < std::min(at + kAround + 1, std::ssize(points)); ++i)
    out += line(points[static_cast<std::size_t>(i)], i == at ? ">" : "");
  return out + format_text("first difference above {:g}: {}\n", tolerance, first->name);
}

BackendComparison compare_backends(Session& tested, Session& reference, std::span<const std::int64_t> ids,
                                   const CompareOptions& options) {
  check(tested, reference, ids, options);
  const at::NoGradGuard no_grad;
  const auto points = model::detail::HookTable(reference.model().config()).points();
  const SequenceId a = tested.open(), b = reference.open();
  const auto close = [&](void*) { tested.close(a), reference.close(b); };
  const std::unique_ptr<void, decltype(close)> closing(&tested, close);

  BackendComparison out{.points = {}, .tolerance = options.tolerance};
  const std::int64_t prompt = std::ssize(ids) - options.decoded;
  for (std::int64_t position = 0; position < std::ssize(ids);) {
    const std::int64_t count = position == 0 ? prompt : 1;
    const auto tokens = ids.subspan(static_cast<std::size_t>(position), static_cast<std::size_t>(count));
    const Phase phase = position == 0 ? Phase::prompt : Phase::generated;
    const Pass expected = record(reference, points, {b, tokens, phase}, nullptr);
    const Pass actual = record(tested, points, {a, tokens, phase}, options.layers_alone ? &expected : nullptr);
    require(actual.size() == expected.size(), ErrorCode::argument, kCompare,
            "expected prompts of at most prompt_chunk tokens but got {} in pieces; give fewer, or a larger chunk",
            count);
    for (std::size_t i = 0; i < actual.size(); ++i)
      out.points.push_back(compare(i + 1 < actual.size() ? actual[i].first.name() : "logits", position,
                                   actual[i].second, expected[i].second));
    position += count;
  }
  return out;
}

}  // namespace steer
