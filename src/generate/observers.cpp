#include "generate/observers.hpp"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <limits>

#include <steer/core/error.hpp>

namespace steer {
namespace generation::detail {

void Observers::add(EngineRow& row) {
  const auto& observers = row.order->request.observers;
  if (observers.empty()) return;
  row.told.resize(observers.size(), row.prompt());
  rows_[row.sequence] = &row;
  for (const Observer& observer : observers) {
    Point& point = points_[observer.point];
    if (++point.users == 1)
      point.hook = session_.hook(observer.point, [this](HookContext& at) { see(at); },
                                 {.read_only = true, .order = std::numeric_limits<int>::max()});
  }
}

void Observers::remove(const EngineRow& row) {
  if (rows_.erase(row.sequence) == 0) return;
  for (const Observer& observer : row.order->request.observers)
    if (const auto point = points_.find(observer.point); --point->second.users == 0) points_.erase(point);
}

void Observers::see(HookContext& at) {
  const at::NoGradGuard no_grad;
  for (const TokenRun& run : at.batch.runs) {
    const auto found = rows_.find(run.sequence);
    if (found == rows_.end()) continue;
    EngineRow& row = *found->second;
    const auto& observers = row.order->request.observers;
    for (std::size_t i = 0; i < observers.size() && !row.failure; ++i) {
      if (observers[i].point != at.point) continue;
      try {
        tell(row, i, run, at);
      } catch (...) {
        row.failure = std::current_exception();
      }
    }
  }
}

void Observers::tell(EngineRow& row, std::size_t i, const TokenRun& run, HookContext& at) {
  const Observer& observer = row.order->request.observers[i];
  if (run.phase == Phase::prompt && !observer.prompt) return;
  // Samples share what was told of their prompt; a row that was set back computes tokens anew that were told before.
  std::int64_t& told = run.phase == Phase::prompt ? row.order->told[i] : row.told[i];
  const std::int64_t begin = run.position - row.held, end = begin + run.end - run.begin;
  if (end <= told) return;
  const std::int64_t first = std::max(begin, told), skipped = first - begin;
  const bool pattern = at.point.site == Site::attn_pattern;
  const at::Tensor value =
      pattern ? at.value.slice(1, skipped, end - begin) : at.value.slice(0, run.begin + skipped, run.end);
  observer.on_tokens(
      {.row = row.id,
       .point = at.point,
       .position = run.position + skipped,
       .ids = std::span(row.ids).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(end - first)),
       .phase = run.phase,
       .value = value});
  told = end;
}

}  // namespace generation::detail

Observer observe_features(const Sae& sae, std::function<void(const FeatureObservation&)> on_features,
                          const ObserveFeaturesOptions& options) {
  constexpr auto kWhere = "observe_features";
  require(static_cast<bool>(on_features), ErrorCode::argument, kWhere, "expected a function but got an empty one");
  require(options.top >= 0 && (options.top == 0 || options.features.empty()), ErrorCode::argument, kWhere,
          "expected top of 0 or more, and 0 with named features, but got {} and {} features", options.top,
          options.features.size());
  for (const std::int64_t feature : options.features)
    require(feature >= 0 && feature < sae.d_sae(), ErrorCode::argument, kWhere,
            "expected features in [0, {}) but got {}", sae.d_sae(), feature);
  const std::optional<HookPoint> point = options.point ? options.point : sae.config().hook_in;
  require(point.has_value(), ErrorCode::config, kWhere,
          "expected an SAE that says where it was trained but got one without a hook point; name it in the options");
  const auto see = [sae, on_features = std::move(on_features), top = options.top,
                    features = options.features](const Observation& seen) {
    std::vector<std::vector<std::pair<std::int64_t, float>>> active(static_cast<std::size_t>(seen.value.size(0)));
    if (features.empty()) {
      const SparseActivations found = sae.encode_sparse(seen.value, top);
      const at::Tensor offsets = found.offsets.to(at::kCPU), index = found.index.to(at::kCPU),
                       value = found.value.to(at::kCPU);
      const auto* offset = offsets.const_data_ptr<std::int64_t>();
      for (std::size_t token = 0; token < active.size(); ++token)
        for (std::int64_t i = offset[token]; i < offset[token + 1]; ++i)
          active[token].emplace_back(index.const_data_ptr<std::int64_t>()[i], value.const_data_ptr<float>()[i]);
    } else {
      const at::Tensor values = sae.encode_subset(seen.value, features).to(at::kCPU).contiguous();
      const float* value = values.const_data_ptr<float>();
      for (auto& token : active)
        for (const std::int64_t feature : features) token.emplace_back(feature, *value++);
    }
    on_features({.row = seen.row, .position = seen.position, .ids = seen.ids, .phase = seen.phase, .active = active});
  };
  return {.point = *point, .on_tokens = see, .prompt = options.prompt};
}

}  // namespace steer
