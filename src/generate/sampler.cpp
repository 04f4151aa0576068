#include "generate/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_set>

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <steer/core/error.hpp>

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

DrawRows::DrawRows(const at::Tensor& logits, const SamplingOptions& options)
    : logits_(logits.to(at::TensorOptions(at::kCPU).dtype(at::kFloat)).contiguous()),
      log_sum_(static_cast<std::size_t>(logits.size(0))) {
  // Row by row, in one order: at::logsumexp over all rows rounds as their number has it.
  const std::int64_t vocabulary = logits_.size(1);
  const float* all = logits_.const_data_ptr<float>();
  at::parallel_for(0, logits_.size(0), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r)
      log_sum_[static_cast<std::size_t>(r)] = model::detail::log_sum_exp(all + r * vocabulary, vocabulary);
  });
  // A penalty changes each row in another way.
  if (options.temperature > 0 && options.repetition_penalty == 1)
    weights_ = logits_.sub(logits_.amax({-1}, true)).div_(options.temperature).exp_();
}

DrawRows::Row DrawRows::operator[](std::size_t row) const {
  const auto width = static_cast<std::size_t>(logits_.size(1));
  const auto of = [&](const at::Tensor& t) {
    return t.defined() ? std::span(t.const_data_ptr<float>() + row * width, width) : std::span<const float>();
  };
  return {of(logits_), of(weights_), log_sum_[row]};
}

Draw draw_token(const DrawRows::Row& row, std::span<const std::int64_t> seen, const SamplingOptions& options, Rng& rng,
                std::span<const std::int64_t> barred) {
  require(std::isfinite(row.log_sum), ErrorCode::argument, "generate",
          "expected finite logits but got a NaN or an infinity; check the weights and the steering's strength");
  const auto drawn = [&](std::int64_t id) {
    return Draw{id, row.logits[static_cast<std::size_t>(id)] - row.log_sum, {}};
  };

  std::vector<float> penalised, penalised_weights;
  std::span<const float> logits = row.logits, weights = row.weights;
  if (options.repetition_penalty != 1 || !barred.empty()) {
    penalised.assign(logits.begin(), logits.end());
    if (options.repetition_penalty != 1) penalise_seen(penalised, seen, options.repetition_penalty);
    for (std::int64_t id : barred)
      if (id >= 0 && id < std::ssize(penalised))
        penalised[static_cast<std::size_t>(id)] = -std::numeric_limits<float>::infinity();
    logits = penalised;
    const float best = logits[static_cast<std::size_t>(argmax(logits))];
    require(std::isfinite(best), ErrorCode::argument, "generate",
            "expected a token that may be drawn but min_tokens bars every one of them");
    if (options.temperature > 0)
      for (float logit : logits)
        penalised_weights.push_back(
            static_cast<float>(std::exp((static_cast<double>(logit) - best) / options.temperature)));
    weights = penalised_weights;
  }
  if (options.temperature == 0) return drawn(argmax(logits));

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
    if ((point -= candidates[i].weight) < 0) return drawn(candidates[i].id);
  return drawn(candidates[kept - 1].id);
}

}  // namespace steer::generation::detail
