#include "generate/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include <steer/core/error.hpp>

#include "model/cpu_loops.hpp"
#include "model/log_probability.hpp"

namespace steer::generation::detail {
namespace {

struct Candidate {
  float logit;
  std::int64_t id;
  double weight;
  /// The likeliest first, the lower id among equals.
  bool operator<(const Candidate& other) const { return logit != other.logit ? logit > other.logit : id < other.id; }
};

std::int64_t argmax(std::span<const float> logits) {
  return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

/// Which tokens are likely before temperature and filters. @return whether `logits` differ from the model's.
bool adjust(std::vector<float>& adjusted, const DrawInput& input, const SamplingOptions& o) {
  const bool penalised = o.repetition_penalty != 1 || o.presence_penalty != 0 || o.frequency_penalty != 0;
  if (!penalised && o.logit_bias.empty() && input.barred.empty()) return false;
  adjusted.assign(input.logits.begin(), input.logits.end());
  const auto at = [&](std::int64_t id) -> float& { return adjusted[static_cast<std::size_t>(id)]; };
  for (const auto& [id, bias] : o.logit_bias) at(id) = static_cast<float>(at(id) + bias);
  if (o.repetition_penalty != 1) {
    const std::unordered_set<std::int64_t> seen(input.seen.begin(), input.seen.end());
    for (std::int64_t id : seen)
      at(id) = static_cast<float>(at(id) < 0 ? at(id) * o.repetition_penalty : at(id) / o.repetition_penalty);
  }
  if (o.presence_penalty != 0 || o.frequency_penalty != 0) {
    std::unordered_map<std::int64_t, std::int64_t> counts;
    for (std::int64_t id : input.generated) ++counts[id];
    for (const auto& [id, count] : counts)
      at(id) = static_cast<float>(at(id) - o.presence_penalty - o.frequency_penalty * static_cast<double>(count));
  }
  for (std::int64_t id : input.barred)
    if (id >= 0 && id < std::ssize(adjusted)) at(id) = -std::numeric_limits<float>::infinity();
  return true;
}

double finite_log_sum(std::span<const float> logits) {
  const double log_sum = model::detail::log_sum_exp(logits.data(), std::ssize(logits));
  require_finite_logits(log_sum);
  return log_sum;
}

Draw drawn(std::span<const float> logits, double log_sum, std::int64_t id, std::int64_t top) {
  Draw draw{id, static_cast<double>(logits[static_cast<std::size_t>(id)]) - log_sum, {}};
  if (top > 0) draw.top = model::detail::likeliest(logits.data(), std::ssize(logits), log_sum, top);
  return draw;
}

/// Which token: by temperature and filters.
std::int64_t choose(std::span<const float> logits, const SamplingOptions& options, Rng& rng) {
  const std::int64_t likeliest = argmax(logits);
  const float best = logits[static_cast<std::size_t>(likeliest)];
  require_a_token(best);
  if (options.temperature == 0) return likeliest;
  thread_local std::vector<float> weights;  // as large as a vocabulary: kept
  weights.resize(logits.size());
  model::detail::cpu::loops().exp_relative(logits.data(), std::ssize(logits), best,
                                           std::max(static_cast<float>(options.temperature), 1e-30f), weights.data());
  // The likeliest weighs 1. Tokens that weigh less than `least` weigh less than 1 - top_p together, or less than min_p
  // each: nothing that is kept is among them, and the vocabulary need not be sorted.
  double total = 0;
  for (float w : weights) total += w;
  const bool ranked = options.top_k > 0 && options.top_k < static_cast<std::int64_t>(weights.size());
  double least = 0;
  if (!ranked && options.top_p < 1) least = 0.999 * (1 - options.top_p) * total / static_cast<double>(weights.size());
  if (!ranked) least = std::max(least, options.min_p);
  std::vector<Candidate> candidates;
  for (std::size_t i = 0; i < weights.size(); ++i)
    if (weights[i] >= least) candidates.push_back({logits[i], static_cast<std::int64_t>(i), weights[i]});
  const auto last = candidates.begin() +
                    (ranked ? std::min<std::ptrdiff_t>(options.top_k, std::ssize(candidates)) : std::ssize(candidates));
  if (ranked || options.top_p < 1) std::partial_sort(candidates.begin(), last, candidates.end());
  candidates.erase(last, candidates.end());
  if (ranked) {  // top-p is a share of what top-k kept
    total = 0;
    for (const auto& candidate : candidates) total += candidate.weight;
  }
  double mass = 0;
  std::size_t kept = 0;
  while (kept < candidates.size() && candidates[kept].weight >= options.min_p &&
         (kept == 0 || options.top_p >= 1 || mass < options.top_p * total))
    mass += candidates[kept++].weight;
  double point = rng.uniform() * mass;
  for (std::size_t i = 0; i < kept; ++i)
    if ((point -= candidates[i].weight) < 0) return candidates[i].id;
  return candidates[kept - 1].id;
}

}  // namespace

void require_finite_logits(double log_sum) {
  require(std::isfinite(log_sum), ErrorCode::argument, "generate",
          "expected finite logits but got a NaN or an infinity; check the weights and the steering's strength");
}

void require_a_token(double best) {
  require(std::isfinite(best), ErrorCode::argument, "generate",
          "expected a token that may be drawn but min_tokens and logit_bias bar every one of them");
}

void check(const SamplingOptions& o, std::int64_t vocabulary, std::string_view where) {
  require(o.temperature >= 0 && std::isfinite(o.temperature), ErrorCode::argument, where,
          "expected a temperature of 0 (greedy) or more but got {}", o.temperature);
  require(o.top_p > 0 && o.top_p <= 1, ErrorCode::argument, where, "expected top_p in (0, 1] but got {}", o.top_p);
  require(o.top_k >= 0, ErrorCode::argument, where, "expected top_k of 0 (all) or more but got {}", o.top_k);
  require(o.min_p >= 0 && o.min_p <= 1, ErrorCode::argument, where, "expected min_p in [0, 1] but got {}", o.min_p);
  require(o.repetition_penalty > 0 && std::isfinite(o.repetition_penalty), ErrorCode::argument, where,
          "expected a repetition penalty above 0 (1: none) but got {}", o.repetition_penalty);
  constexpr double kMost = 1e6;
  require(std::abs(o.presence_penalty) <= kMost && std::abs(o.frequency_penalty) <= kMost, ErrorCode::argument, where,
          "expected presence and frequency penalties within +-{} but got {} and {}", kMost, o.presence_penalty,
          o.frequency_penalty);
  for (const auto& [id, bias] : o.logit_bias) {
    require(id >= 0 && id < vocabulary, ErrorCode::argument, where,
            "expected logit_bias of token ids in [0, {}) but got {}", vocabulary, id);
    require(std::abs(bias) <= kMost || bias == -std::numeric_limits<double>::infinity(), ErrorCode::argument, where,
            "expected a logit_bias within +-{}, or -infinity, but got {} for token {}", kMost, bias, id);
  }
}

Draw draw_token(const DrawInput& input, const SamplingOptions& options, Rng& rng) {
  const double log_sum = finite_log_sum(input.logits);
  std::vector<float> adjusted;
  const bool changed = adjust(adjusted, input, options);
  return drawn(input.logits, log_sum, choose(changed ? adjusted : input.logits, options, rng), input.top);
}

Draw read_token(std::span<const float> logits, std::int64_t id, std::int64_t top) {
  return drawn(logits, finite_log_sum(logits), id, top);
}

}  // namespace steer::generation::detail
