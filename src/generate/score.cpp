#include <steer/generate/score.hpp>

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>

#include <steer/core/error.hpp>
#include <steer/model/session.hpp>
#include <steer/steering/plan.hpp>

#include "model/reproducible.hpp"

namespace steer {
namespace {

/// Bounds of one step: enough tokens to fill the products, and no more logits than a quarter of a gigabyte.
constexpr std::int64_t tokens_a_step = 1024;
constexpr std::int64_t logits_a_step = std::int64_t{1} << 26;

void check(const Model& model, std::span<const ScoreRequest> requests, std::string_view where) {
  for (std::size_t r = 0; r < requests.size(); ++r) {
    const auto& [ids, begin, steering] = requests[r];
    require(begin >= 1 && begin < static_cast<std::int64_t>(ids.size()), ErrorCode::argument, where,
            "expected texts whose scored tail begins in [1, {}) but text {} says {}", ids.size(), r, begin);
    (void)steering;
    require(static_cast<std::int64_t>(ids.size()) <= model.config().context, ErrorCode::shape, where,
            "expected texts of at most {} tokens but text {} has {}", model.config().context, r, ids.size());
  }
}

/// Runs rows' texts and hands over the logits [tail tokens, vocab] that predict each tail.
/// @param rows  indices of requests; `steered[i]` says whether row i runs under its request's steering.
class TailRunner {
 public:
  TailRunner(const Model& model, std::span<const ScoreRequest> requests, std::string_view where)
      : requests_(requests),
        where_(where),
        plan_(SteeringPlan::compile(model, steerings(requests))),
        session_(model, model::detail::reproducible(model)),
        hooks_(plan_.attach(session_)) {}

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
          heads.push_back({known->second, head, Phase::prompt});
        }
        forks.emplace_back(sequences.size(), known->second);
        sequences.push_back(-1);
        continue;
      }
      const SequenceId sequence = session_.open();
      sequences.push_back(sequence);
      if (steered) {
        plan_.bind(sequence, static_cast<std::int64_t>(r));
        require(!plan_.needs_logits(sequence), ErrorCode::unsupported, where_,
                "expected a steering without entropy conditions but text {} has one; generate instead", r);
      }
      if (begin > 1) heads.push_back({sequence, ids.first(begin - 1), Phase::prompt});
    }
    if (!heads.empty()) session_.step(heads, Logits::none);
    for (const auto& [place, prompt] : forks) sequences[place] = session_.fork(prompt);
    for (const auto& [head, sequence] : prompts) session_.close(sequence);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto ids = std::span(requests_[rows[i].request].ids);
      const auto begin = static_cast<std::size_t>(requests_[rows[i].request].begin);
      tails.push_back({sequences[i], ids.subspan(begin - 1, 1), Phase::prompt});
      if (ids.size() - begin > 1)
        tails.push_back({sequences[i], ids.subspan(begin, ids.size() - begin - 1), Phase::generated});
    }
    const at::Tensor logits = session_.step(tails, Logits::all);
    std::vector<at::Tensor> results;
    std::int64_t at = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto tokens = tail_tokens(rows[i].request);
      results.push_back(logits.slice(0, at, at + tokens));
      at += tokens;
      plan_.unbind(sequences[i]);
      session_.close(sequences[i]);
    }
    return results;
  }

  std::int64_t tail_tokens(std::size_t r) const {
    return static_cast<std::int64_t>(requests_[r].ids.size()) - requests_[r].begin;
  }

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
  static std::vector<Steering> steerings(std::span<const ScoreRequest> requests) {
    std::vector<Steering> all;
    for (const auto& request : requests) all.push_back(request.steering.value_or(Steering{}));
    return all;
  }

  std::span<const ScoreRequest> requests_;
  std::string_view where_;
  SteeringPlan plan_;
  Session session_;
  std::vector<HookHandle> hooks_;
};

}  // namespace

std::vector<TextScore> score(const Model& model, std::span<const ScoreRequest> requests, const Progress& shown) {
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
      const auto& [ids, first, steering] = requests[batch[i]];
      const at::Tensor& tail = logits[i];
      const at::Tensor targets =
          at::tensor(std::vector<std::int64_t>(ids.begin() + first, ids.end())).to(tail.device());
      const at::Tensor chosen = at::log_softmax(tail, -1).gather(1, targets.unsqueeze(1));
      const at::Tensor each = chosen.to(at::kCPU, at::kDouble).contiguous();
      const double* p = each.data_ptr<double>();
      results[batch[i]] = {chosen.sum(at::kDouble).item<double>(), runner.tail_tokens(batch[i]), {p, p + each.numel()}};
    }
    progress.advance(static_cast<std::int64_t>(batch.size()));
  });
  return results;
}

std::vector<double> kl_from_unsteered(const Model& model, std::span<const ScoreRequest> requests,
                                      const Progress& shown) {
  check(model, requests, "kl_from_unsteered");
  if (requests.empty()) return {};
  c10::NoGradGuard no_grad;
  Progress progress = shown;
  TailRunner runner(model, requests, "kl_from_unsteered");
  std::vector<double> results(requests.size());
  runner.in_batches(2, [&](std::span<const std::size_t> batch) {
    std::vector<TailRunner::Row> rows;
    for (std::size_t r : batch) {
      rows.push_back({r, false});
      rows.push_back({r, true});
    }
    const auto logits = runner.run(rows);
    for (std::size_t i = 0; i < batch.size(); ++i) {
      const at::Tensor base = at::log_softmax(logits[2 * i], -1), steered = at::log_softmax(logits[2 * i + 1], -1);
      results[batch[i]] = ((base - steered) * base.exp()).sum(at::kDouble).item<double>() /
                          static_cast<double>(runner.tail_tokens(batch[i]));
    }
    progress.advance(static_cast<std::int64_t>(batch.size()));
  });
  return results;
}

}  // namespace steer
