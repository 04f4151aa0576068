#include "generate/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_set>

#include <steer/core/error.hpp>

namespace steer::detail {
namespace {

struct Candidate {
  float logit;
  std::int64_t id;
  /// Heap order: the likeliest on top, the lower id among equals.
  bool operator<(const Candidate& other) const { return logit != other.logit ? logit < other.logit : id > other.id; }
};

/// log(sum(exp(logits))), in double. @throws Error(argument) for a NaN or nothing finite.
double log_sum_exp(std::span<const float> logits) {
  const float best = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits) sum += std::exp(static_cast<double>(logit) - best);
  require(
      std::isfinite(best) && std::isfinite(sum), ErrorCode::argument, "generate",
      "expected finite logits but got a NaN or an infinity (largest {}); check the weights and the steering's strength",
      best);
  return best + std::log(sum);
}

std::int64_t argmax(std::span<const float> logits) {
  return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

void penalise_seen(std::vector<float>& logits, std::span<const std::int64_t> seen, double penalty) {
  std::unordered_set<std::int64_t> done;
  for (std::int64_t id : seen)
    if (done.insert(id).second) {
      float& logit = logits[static_cast<std::size_t>(id)];
      logit = static_cast<float>(logit < 0 ? logit * penalty : logit / penalty);
    }
}

}  // namespace

void check(const SamplingOptions& o, std::string_view where) {
  require(o.temperature >= 0 && std::isfinite(o.temperature), ErrorCode::argument, where,
          "expected a temperature of 0 (greedy) or more but got {}", o.temperature);
  require(o.top_p > 0 && o.top_p <= 1, ErrorCode::argument, where, "expected top_p in (0, 1] but got {}", o.top_p);
  require(o.top_k >= 0, ErrorCode::argument, where, "expected top_k of 0 (all) or more but got {}", o.top_k);
  require(o.min_p >= 0 && o.min_p <= 1, ErrorCode::argument, where, "expected min_p in [0, 1] but got {}", o.min_p);
  require(o.repetition_penalty > 0 && std::isfinite(o.repetition_penalty), ErrorCode::argument, where,
          "expected a repetition penalty above 0 (1: none) but got {}", o.repetition_penalty);
}

Draw draw_token(std::span<const float> logits, std::span<const std::int64_t> seen, const SamplingOptions& options,
                Rng& rng) {
  const double normaliser = log_sum_exp(logits);
  const auto drawn = [&](std::int64_t id) { return Draw{id, logits[static_cast<std::size_t>(id)] - normaliser}; };

  std::vector<float> penalised;
  std::span<const float> weights = logits;
  if (options.repetition_penalty != 1) {
    penalised.assign(logits.begin(), logits.end());
    penalise_seen(penalised, seen, options.repetition_penalty);
    weights = penalised;
  }
  if (options.temperature == 0) return drawn(argmax(weights));

  // The heap yields candidates from the likeliest down, so that a filter that keeps few never sorts the vocabulary.
  std::vector<Candidate> heap(weights.size());
  for (std::size_t i = 0; i < weights.size(); ++i) heap[i] = {weights[i], static_cast<std::int64_t>(i)};
  if (options.top_k > 0 && options.top_k < static_cast<std::int64_t>(heap.size())) {
    std::nth_element(heap.begin(), heap.begin() + options.top_k, heap.end(), [](auto& a, auto& b) { return b < a; });
    heap.resize(static_cast<std::size_t>(options.top_k));
  }
  const double best = std::max_element(heap.begin(), heap.end())->logit;
  const auto weight = [&](float logit) { return std::exp((logit - best) / options.temperature); };
  double total = 0;
  for (const Candidate& candidate : heap) total += weight(candidate.logit);

  std::make_heap(heap.begin(), heap.end());
  std::vector<std::pair<std::int64_t, double>> kept;
  double mass = 0;
  for (auto end = heap.end(); end != heap.begin(); --end) {
    std::pop_heap(heap.begin(), end);
    const double w = weight((end - 1)->logit);
    if (w < options.min_p) break;  // the likeliest weighs 1
    kept.emplace_back((end - 1)->id, w);
    mass += w;
    if (options.top_p < 1 && mass >= options.top_p * total) break;
  }
  double point = rng.uniform() * mass;
  for (const auto& [id, w] : kept)
    if ((point -= w) < 0) return drawn(id);
  return drawn(kept.back().first);
}

}  // namespace steer::detail
