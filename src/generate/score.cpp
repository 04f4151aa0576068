#include <steer/generate/score.hpp>

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>

#include <steer/core/error.hpp>
#include <steer/model/session.hpp>

#include "model/log_probability.hpp"
#include "model/reproducible.hpp"

namespace steer {
namespace {

/// Bounds of one step: enough tokens to fill the products, and no more logits than a quarter of a gigabyte.
constexpr std::int64_t tokens_a_step = 1024;
constexpr std::int64_t logits_a_step = std::int64_t{1} << 26;

std::int64_t end_of(const ScoreRequest& request) { return request.end < 0 ? std::ssize(request.ids) : request.end; }

void check(const Model& model, std::span<const ScoreRequest> requests, std::string_view where) {
  for (std::size_t r = 0; r < requests.size(); ++r) {
    const auto& ids = requests[r].ids;
    const std::int64_t begin = requests[r].begin, end = end_of(requests[r]);
    require(begin >= 1 && begin < std::ssize(ids), ErrorCode::argument, where,
            "expected texts whose scored tail begins in [1, {}) but text {} says {}", ids.size(), r, begin);
    require(end > begin && end <= std::ssize(ids), ErrorCode::argument, where,
            "expected texts whose scored tail ends in ({}, {}] but text {} says {}", begin, ids.size(), r, end);
    require(static_cast<std::int64_t>(ids.size()) <= model.config().context, ErrorCode::shape, where,
            "expected texts of at most {} tokens but text {} has {}", model.config().context, r, ids.size());
  }
}

/// Runs rows' texts and hands over the logits [tail tokens, vocab] that predict each tail.
/// @param rows  indices of requests; `steered[i]` says whether row i runs under its request's steering.
class TailRunner {
 public:
  TailRunner(const Model& model, std::span<const ScoreRequest> requests, std::string_view where)
      : requests_(requests), where_(where), session_(model, model::detail::reproducible(model)) {
    for (std::size_t r = 0; r < requests.size(); ++r) {
      const SequenceId sequence = session_.open({.steering = steering(r)});
      require(!session_.needs_logits(sequence), ErrorCode::unsupported, where_,
              "expected a steering without entropy conditions but text {} has one; generate instead", r);
      session_.close(sequence);
    }
  }
  const std::vector<std::string>& warnings() const { return session_.warnings(); }

  struct Row {
    std::size_t request;
    bool steered;
  };

  std::vector<at::Tensor> run(std::span<const Row> rows) {
    std::vector<StepInput> heads, tails;
    std::vector<SequenceId> sequences;
    // Unsteered texts of one prompt: the first one's sequence computes it, the others fork from there.
    std::map<std::vector<std::int64_t>, SequenceId> prompts;
    std::vector<std::pair<std::size_t, SequenceId>> forks;  // place in `rows`, from which sequence
    for (const auto& [r, steered] : rows) {
      const auto ids = std::span(requests_[r].ids);
      const auto begin = static_cast<std::size_t>(requests_[r].begin);
      if (!steered && begin > 1) {
        const auto head = ids.first(begin - 1);
        const auto [known, is_new] = prompts.try_emplace({head.begin(), head.end()}, -1);
        if (is_new) {
          known->second = session_.open();
          heads.push_back({known->second, head, Phase::prompt, /*prompt_left=*/1});
        }
        forks.emplace_back(sequences.size(), known->second);
        sequences.push_back(-1);
        continue;
      }
      const SequenceId sequence = session_.open({.steering = steered ? steering(r) : nullptr});
      sequences.push_back(sequence);
      if (begin > 1) heads.push_back({sequence, ids.first(begin - 1), Phase::prompt, /*prompt_left=*/1});
    }
    if (!heads.empty()) session_.step(heads, Logits::none);
    for (const auto& [place, prompt] : forks) sequences[place] = session_.fork(prompt);
    for (const auto& [head, sequence] : prompts) session_.close(sequence);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto ids = std::span(requests_[rows[i].request].ids);
      const auto begin = static_cast<std::size_t>(requests_[rows[i].request].begin);
      tails.push_back({sequences[i], ids.subspan(begin - 1, 1), Phase::prompt});
      const auto more = static_cast<std::size_t>(tail_tokens(rows[i].request) - 1);
      if (more > 0) tails.push_back({sequences[i], ids.subspan(begin, more), Phase::generated});
    }
    const at::Tensor logits = session_.step(tails, Logits::all);
    std::vector<at::Tensor> results;
    std::int64_t at = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto tokens = tail_tokens(rows[i].request);
      results.push_back(logits.slice(0, at, at + tokens));
      at += tokens;
      session_.close(sequences[i]);
    }
    return results;
  }

  std::int64_t tail_tokens(std::size_t r) const { return end_of(requests_[r]) - requests_[r].begin; }

  /// Cuts the requests, ordered by prompt, into runs that keep to the bounds; `copies` sequences run for each.
  void in_batches(std::int64_t copies, const std::function<void(std::span<const std::size_t>)>& run_batch) {
    const std::int64_t vocabulary = session_.model().config().vocab_size;
    std::vector<std::size_t> order(requests_.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const auto head = [&](std::size_t r) {
      return std::span(requests_[r].ids).first(static_cast<std::size_t>(requests_[r].begin - 1));
    };
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return std::ranges::lexicographical_compare(head(a), head(b));
    });
    for (std::size_t begin = 0; begin < order.size();) {
      std::int64_t tokens = 0, tail = 0;
      std::size_t end = begin;
      for (; end < order.size(); ++end) {
        const std::size_t r = order[end];
        const bool computed =
            end > begin && !requests_[r].steering && std::ranges::equal(head(r), head(order[end - 1]));
        tokens += copies * tail_tokens(r) + (computed ? 0 : copies * requests_[r].begin);
        tail += copies * tail_tokens(r);
        if (end > begin && (tokens > tokens_a_step || tail * vocabulary > logits_a_step)) break;
      }
      run_batch(std::span(order).subspan(begin, end - begin));
      begin = end;
    }
  }

 private:
  InterventionPtr steering(std::size_t r) const {
    return requests_[r].steering ? InterventionPtr(*requests_[r].steering) : nullptr;
  }

  std::span<const ScoreRequest> requests_;
  std::string_view where_;
  Session session_;
};

}  // namespace

std::vector<TextScore> score_texts(const Model& model, std::span<const ScoreRequest> requests, const Progress& shown) {
  check(model, requests, "score");
  if (requests.empty()) return {};
  c10::NoGradGuard no_grad;
  Progress progress = shown;
  TailRunner runner(model, requests, "score");
  std::vector<TextScore> results(requests.size());
  runner.in_batches(1, [&](std::span<const std::size_t> batch) {
    std::vector<TailRunner::Row> rows;
    for (std::size_t r : batch) rows.push_back({r, requests[r].steering.has_value()});
    const auto logits = runner.run(rows);
    for (std::size_t i = 0; i < batch.size(); ++i) {
      const ScoreRequest& request = requests[batch[i]];
      const at::Tensor tail = logits[i].to(at::kCPU).contiguous();
      LogProbabilities read;
      const std::string where = fmt::format("score, text {}", batch[i]);
      for (std::int64_t t = 0; t < tail.size(0); ++t)
        model::detail::append_log_probabilities(read, tail[t], request.ids[static_cast<std::size_t>(request.begin + t)],
                                                /*top=*/0, where);
      TextScore& result = results[batch[i]];
      result.token_log_probabilities = std::move(read.tokens);
      result.tokens = std::ssize(result.token_log_probabilities);
      result.log_probability =
          std::accumulate(result.token_log_probabilities.begin(), result.token_log_probabilities.end(), 0.0);
      result.warnings = runner.warnings();
    }
    progress.advance(static_cast<std::int64_t>(batch.size()));
  });
  return results;
}

namespace {

/// KL(p || q) of two rows of logits [vocab], f32, CPU.
double divergence(const at::Tensor& p, const at::Tensor& q, std::size_t text) {
  const auto log_p = [&](const at::Tensor& x) {
    return x - model::detail::log_sum_exp(x.const_data_ptr<float>(), x.numel());
  };
  const at::Tensor a = log_p(p), b = log_p(q);
  // Tokens that p rules out add nothing; 0 * -inf would.
  const double sum = at::where(at::isinf(a), 0.0, (a - b) * a.exp()).sum(at::kDouble).item<double>();
  require(std::isfinite(sum), ErrorCode::argument, "kl_from_unsteered",
          "expected finite logits but text {} has a NaN or an infinity; check the weights and the steering's strength",
          text);
  return sum;
}

}  // namespace

std::vector<TextDivergence> divergence_from_unsteered(const Model& model, std::span<const ScoreRequest> requests,
                                                      const Progress& shown) {
  check(model, requests, "kl_from_unsteered");
  if (requests.empty()) return {};
  c10::NoGradGuard no_grad;
  Progress progress = shown;
  TailRunner runner(model, requests, "kl_from_unsteered");
  std::vector<TextDivergence> results(requests.size());
  runner.in_batches(2, [&](std::span<const std::size_t> batch) {
    std::vector<TailRunner::Row> rows;
    for (std::size_t r : batch) {
      rows.push_back({r, false});
      rows.push_back({r, true});
    }
    const auto logits = runner.run(rows);
    for (std::size_t i = 0; i < batch.size(); ++i) {
      const at::Tensor plain = logits[2 * i].to(at::kCPU).contiguous();
      const at::Tensor steered = logits[2 * i + 1].to(at::kCPU).contiguous();
      TextDivergence& result = results[batch[i]];
      for (std::int64_t t = 0; t < plain.size(0); ++t)
        result.values.push_back(divergence(plain[t], steered[t], batch[i]));
      result.mean =
          std::accumulate(result.values.begin(), result.values.end(), 0.0) / static_cast<double>(result.values.size());
    }
    progress.advance(static_cast<std::int64_t>(batch.size()));
  });
  return results;
}

std::vector<double> kl_from_unsteered(const Model& model, std::span<const ScoreRequest> requests,
                                      const Progress& shown) {
  std::vector<double> means;
  for (const TextDivergence& text : divergence_from_unsteered(model, requests, shown)) means.push_back(text.mean);
  return means;
}

}  // namespace steer
