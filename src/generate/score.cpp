#include <steer/generate/score.hpp>

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/isinf.h>
#include <ATen/ops/where.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <utility>

#include <steer/core/error.hpp>
#include <steer/generate/engine.hpp>

#include "core/format_text.hpp"
#include "generate/batch.hpp"
#include "generate/divergence.hpp"
#include "model/log_probability.hpp"

namespace steer {
namespace {

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

/// Texts whose prompts are equal come together: then each is computed once.
std::vector<std::size_t> by_prompt(std::span<const ScoreRequest> requests) {
  std::vector<std::size_t> order(requests.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto head = [&](std::size_t r) {
    return std::span(requests[r].ids).first(static_cast<std::size_t>(requests[r].begin));
  };
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::ranges::lexicographical_compare(head(a), head(b));
  });
  return order;
}

/// A row that is given its tail.
EngineRequest row_of(const ScoreRequest& request, bool steered) {
  const auto begin = request.ids.begin() + request.begin, end = request.ids.begin() + end_of(request);
  return {.ids = {request.ids.begin(), begin},
          .steering = steered && request.steering ? *request.steering : Steering(),
          .max_tokens = end - begin,
          .given = {begin, end}};
}

/// Runs what was submitted. @param ended  is told of the row's result. @throws what a row failed with, naming its text.
void run_tails(Engine& engine, std::string_view where, const std::function<std::size_t(RowId)>& text_of,
               const std::function<void(RowId, const GenerateResult&)>& ended) {
  const auto name_of = [&](RowId row, const GenerateResult& read) {
    return format_text("text {}, token {} of its tail", text_of(row), read.ids.size());
  };
  generation::detail::run_batch(engine, where, name_of, ended);
}

EngineOptions engine_options(const Model& model, std::size_t rows, const ScoreOptions& options) {
  EngineOptions result = generation::detail::batch_options(model, rows);
  result.on_warning = options.on_warning;
  return result;
}

}  // namespace

std::vector<TextScore> score_texts(const Model& model, std::span<const ScoreRequest> requests,
                                   const ScoreOptions& options) {
  check(model, requests, "score_texts");
  if (requests.empty()) return {};
  const c10::NoGradGuard no_grad;
  Progress progress = options.progress;
  Engine engine(model, engine_options(model, requests.size(), options));
  const std::vector<std::size_t> order = by_prompt(requests);
  for (const std::size_t r : order) engine.submit(row_of(requests[r], true));
  std::vector<TextScore> results(requests.size());
  const auto text_of = [&](RowId row) { return order[static_cast<std::size_t>(row)]; };
  run_tails(engine, "score_texts", text_of, [&](RowId row, const GenerateResult& read) {
    TextScore& result = results[text_of(row)];
    result.token_log_probabilities = read.log_probabilities;
    result.tokens = std::ssize(result.token_log_probabilities);
    result.log_probability =
        std::accumulate(result.token_log_probabilities.begin(), result.token_log_probabilities.end(), 0.0);
    result.warnings = read.warnings;
    progress.advance();
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
  require(std::isfinite(sum), ErrorCode::argument, "divergence_from_unsteered",
          "expected finite logits but text {} has a NaN or an infinity; check the weights and the steering's strength",
          text);
  return sum;
}

at::Tensor row_of_logits(std::span<const float> logits) {
  return at::from_blob(const_cast<float*>(logits.data()), {std::ssize(logits)}, at::kFloat);
}

/// Is told of each token of a text's tail: of which row, at which place of the tail, and what it was drawn from.
using OnTail = std::function<void(std::size_t text, bool steered, std::size_t place, const at::Tensor& logits)>;

/// Runs the texts, each once for every entry of `kinds`: whether steered. @return what is to be known of each text's
/// steering.
std::vector<std::vector<std::string>> read_tails(const Model& model, std::span<const ScoreRequest> requests,
                                                 std::initializer_list<bool> kinds, const OnTail& on_tail,
                                                 const ScoreOptions& options = {}) {
  constexpr auto kWhere = "divergence_from_unsteered";
  check(model, requests, kWhere);
  std::vector<std::vector<std::string>> warnings(requests.size());
  if (requests.empty()) return warnings;
  const c10::NoGradGuard no_grad;
  Progress progress = options.progress;
  const std::size_t copies = kinds.size();
  Engine engine(model, engine_options(model, copies * requests.size(), options));
  const std::vector<std::size_t> order = by_prompt(requests);
  for (const std::size_t r : order)
    for (const bool steered : kinds) {
      EngineRequest row = row_of(requests[r], steered);
      row.on_logits = [&, r, steered](const LogitsObservation& seen) {
        on_tail(r, steered, static_cast<std::size_t>(seen.position - requests[r].begin), row_of_logits(seen.logits));
      };
      engine.submit(std::move(row));
    }
  const auto text_of = [&](RowId row) { return order[static_cast<std::size_t>(row) / copies]; };
  run_tails(engine, kWhere, text_of, [&](RowId row, const GenerateResult& read) {
    if (!read.warnings.empty()) warnings[text_of(row)] = read.warnings;
    if (static_cast<std::size_t>(row) % copies == copies - 1) progress.advance();
  });
  return warnings;
}

std::vector<TextDivergence> without_values(std::span<const ScoreRequest> requests) {
  std::vector<TextDivergence> results(requests.size());
  for (std::size_t r = 0; r < requests.size(); ++r)
    results[r].values.resize(static_cast<std::size_t>(end_of(requests[r]) - requests[r].begin));
  return results;
}

void add_means_and_warnings(std::vector<TextDivergence>& results, std::vector<std::vector<std::string>> warnings) {
  for (std::size_t r = 0; r < results.size(); ++r) {
    const std::vector<double>& values = results[r].values;
    results[r].mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
    results[r].warnings = std::move(warnings[r]);
  }
}

}  // namespace

namespace generation::detail {

TailLogits unsteered_logits(const Model& model, std::span<const ScoreRequest> requests) {
  TailLogits out(requests.size());
  read_tails(model, requests, {false}, [&](std::size_t r, bool, std::size_t place, const at::Tensor& logits) {
    if (!out[r].defined())
      out[r] = at::empty({end_of(requests[r]) - requests[r].begin, logits.numel()}, logits.options());
    out[r][static_cast<std::int64_t>(place)].copy_(logits);
  });
  return out;
}

std::vector<TextDivergence> divergence_from(const TailLogits& unsteered, const Model& model,
                                            std::span<const ScoreRequest> requests) {
  std::vector<TextDivergence> results = without_values(requests);
  auto warnings =
      read_tails(model, requests, {true}, [&](std::size_t r, bool, std::size_t place, const at::Tensor& logits) {
        results[r].values[place] = divergence(unsteered[r][static_cast<std::int64_t>(place)], logits, r);
      });
  add_means_and_warnings(results, std::move(warnings));
  return results;
}

}  // namespace generation::detail

std::vector<TextDivergence> divergence_from_unsteered(const Model& model, std::span<const ScoreRequest> requests,
                                                      const ScoreOptions& options) {
  check(model, requests, "divergence_from_unsteered");
  std::vector<TextDivergence> results = without_values(requests);
  // Distributions of one of a text's two rows, until the other one's come.
  std::map<std::pair<std::size_t, std::size_t>, at::Tensor> waiting;
  auto warnings = read_tails(
      model, requests, {false, true},
      [&](std::size_t r, bool steered, std::size_t place, const at::Tensor& logits) {
        const auto other = waiting.find({r, place});
        if (other == waiting.end()) {
          waiting.emplace(std::pair(r, place), logits.clone());
          return;
        }
        const at::Tensor& before = other->second;
        results[r].values[place] = steered ? divergence(before, logits, r) : divergence(logits, before, r);
        waiting.erase(other);
      },
      options);
  add_means_and_warnings(results, std::move(warnings));
  return results;
}

}  // namespace steer
