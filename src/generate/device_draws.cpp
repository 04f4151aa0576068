#include "generate/device_draws.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/max.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <unordered_map>
#include <unordered_set>

#include "model/send.hpp"

namespace steer::generation::detail {

bool draws_on_device_for_testing = false;

namespace {

/// Places in a flat [rows * vocab] and a number for each.
struct Changes {
  std::vector<std::int64_t> places;
  std::vector<float> numbers;
  void add(std::int64_t place, double number) {
    places.push_back(place);
    numbers.push_back(static_cast<float>(number));
  }
};

template <class T>
at::Tensor on(const at::Device& device, const std::vector<T>& values) {
  return model::detail::send(at::tensor(at::ArrayRef<T>(values)), device);
}

/// The logits that rows are drawn from: `adjust` of sampler.cpp, in its order.
at::Tensor adjusted(const at::Tensor& own, std::span<const DeviceReading> readings) {
  const std::int64_t vocabulary = own.size(1);
  Changes biased, repeated, counted, barred;
  for (std::int64_t r = 0; r < std::ssize(readings); ++r) {
    const DeviceReading& reading = readings[static_cast<std::size_t>(r)];
    if (reading.known >= 0) continue;
    const SamplingOptions& o = *reading.sampling;
    const std::int64_t row = r * vocabulary;
    for (const auto& [id, bias] : o.logit_bias) biased.add(row + id, bias);
    if (o.repetition_penalty != 1)
      for (const std::int64_t id : std::unordered_set<std::int64_t>(reading.seen.begin(), reading.seen.end()))
        repeated.add(row + id, o.repetition_penalty);
    if (o.presence_penalty != 0 || o.frequency_penalty != 0) {
      std::unordered_map<std::int64_t, std::int64_t> counts;
      for (const std::int64_t id : reading.generated) ++counts[id];
      for (const auto& [id, count] : counts)
        counted.add(row + id, -o.presence_penalty - o.frequency_penalty * static_cast<double>(count));
    }
    for (const std::int64_t id : reading.barred)
      if (id >= 0 && id < vocabulary) barred.add(row + id, 0);
  }
  if (biased.places.empty() && repeated.places.empty() && counted.places.empty() && barred.places.empty()) return own;
  at::Tensor flat = own.clone().flatten();
  const at::Device device = own.device();
  const auto add = [&](const Changes& changes) {
    if (!changes.places.empty()) flat.index_add_(0, on(device, changes.places), on(device, changes.numbers));
  };
  add(biased);
  if (!repeated.places.empty()) {
    const at::Tensor places = on(device, repeated.places), by = on(device, repeated.numbers);
    const at::Tensor now = flat.index_select(0, places);
    flat.index_copy_(0, places, at::where(now < 0, now * by, now / by));
  }
  add(counted);
  if (!barred.places.empty()) flat.index_fill_(0, on(device, barred.places), -std::numeric_limits<double>::infinity());
  return flat.view(own.sizes());
}

/// Tokens [rows] of rows that have a temperature: `choose` of sampler.cpp, over tokens from the likeliest on.
at::Tensor sampled(const at::Tensor& logits, std::span<const DeviceReading* const> readings) {
  const std::int64_t vocabulary = logits.size(1);
  std::vector<double> temperature, top_k, top_p, min_p, uniform;
  for (const DeviceReading* r : readings) {
    const SamplingOptions& o = *r->sampling;
    temperature.push_back(std::max(o.temperature, 1e-30));
    top_k.push_back(o.top_k > 0 ? static_cast<double>(o.top_k) : static_cast<double>(vocabulary));
    top_p.push_back(o.top_p < 1 ? o.top_p : std::numeric_limits<double>::infinity());
    min_p.push_back(o.min_p);
    uniform.push_back(r->uniform);
  }
  const auto column = [&](const std::vector<double>& values) { return on(logits.device(), values).unsqueeze(1); };
  const auto [descending, ids] = at::sort(logits, /*stable=*/true, /*dim=*/1, /*descending=*/true);
  const at::Tensor best = descending.narrow(1, 0, 1).to(at::kDouble);
  at::Tensor weights = ((descending.to(at::kDouble) - best) / column(temperature)).exp();
  const at::Tensor rank = at::arange(vocabulary, weights.options()).unsqueeze(0);
  weights = weights * (rank < column(top_k));
  const at::Tensor before = at::cumsum(weights, 1) - weights;
  const at::Tensor within = (before < column(top_p) * weights.sum(1, true)) | (rank < 1);
  weights = weights * (within & (weights >= column(min_p)));
  // Of a row without a number nothing is left: `at` refuses it.
  const at::Tensor until = at::cumsum(weights, 1);
  const at::Tensor mass = until.narrow(1, vocabulary - 1, 1), last = ((weights > 0).sum(1, true) - 1).clamp_min(0);
  const at::Tensor place = (until <= column(uniform) * mass).sum(1, true).minimum(last);
  return ids.gather(1, place).squeeze(1);
}

template <class T>
std::vector<T> to_host(const at::Tensor& t) {
  const at::Tensor host = t.cpu().contiguous();
  return {host.const_data_ptr<T>(), host.const_data_ptr<T>() + host.numel()};
}

}  // namespace

DeviceDraws::DeviceDraws(const at::Tensor& logits, std::span<const DeviceReading> readings) {
  if (readings.empty()) return;
  const at::NoGradGuard no_grad;
  std::vector<std::int64_t> rows, known, with_temperature;
  std::vector<const DeviceReading*> samples;
  for (std::int64_t i = 0; i < std::ssize(readings); ++i) {
    const DeviceReading& reading = readings[static_cast<std::size_t>(i)];
    rows.push_back(reading.row);
    known.push_back(reading.known);
    if (reading.known >= 0 || reading.sampling->temperature == 0) continue;
    with_temperature.push_back(i);
    samples.push_back(&reading);
  }
  const at::Device device = logits.device();
  // As they are where each is read once, as of a scored prompt: they may be gigabytes.
  std::vector<std::int64_t> each(static_cast<std::size_t>(logits.size(0)));
  std::iota(each.begin(), each.end(), 0);
  const at::Tensor own = (rows == each ? logits : logits.index_select(0, on(device, rows))).to(at::kFloat);
  const at::Tensor from = adjusted(own, readings);
  const auto [best, likeliest] = at::max(from, 1);
  const at::Tensor given = on(device, known);
  at::Tensor ids = at::where(given >= 0, given, likeliest);
  if (!samples.empty()) {
    const at::Tensor places = on(device, with_temperature);
    ids.index_copy_(0, places, sampled(from.index_select(0, places), samples));
  }
  const at::Tensor numbers = at::stack({at::logsumexp(own, 1), best, own.gather(1, ids.unsqueeze(1)).squeeze(1)}).cpu();
  ids_ = to_host<std::int64_t>(ids);
  log_sums_ = to_host<float>(numbers[0]);
  best_ = to_host<float>(numbers[1]);
  chosen_ = to_host<float>(numbers[2]);
}

Draw DeviceDraws::at(std::size_t i) const {
  require_finite_logits(log_sums_[i]);
  require_a_token(best_[i]);
  return {ids_[i], static_cast<double>(chosen_[i]) - static_cast<double>(log_sums_[i]), {}};
}

}  // namespace steer::generation::detail
