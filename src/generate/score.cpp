#include <steer/generate/score.hpp>

#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <optional>
#include <utility>

#include <steer/core/error.hpp>
#include <steer/generate/engine.hpp>

#include "core/format_text.hpp"
#include "generate/batch.hpp"
#include "generate/divergence.hpp"
#include "model/log_probability.hpp"

namespace steer {
namespace {

constexpr auto kDivergence = "divergence_from_unsteered";

std::int64_t end_of(const ScoreRequest& request) { return request.end < 0 ? std::ssize(request.ids) : request.end; }

void check_texts(const Model& model, std::span<const ScoreRequest> requests, std::string_view where) {
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
  check_texts(model, requests, "score_texts");
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

/// Nats, of two rows of logits [vocab]. @throws Error(argument) if they are not finite.
double divergence(std::span<const float> p, std::span<const float> q, std::size_t text) {
  const double kl = model::detail::kl_divergence(p.data(), q.data(), std::ssize(p));
  require(std::isfinite(kl), ErrorCode::argument, kDivergence,
          "expected finite logits but text {} has a NaN or an infinity; check the weights and the steering's strength",
          text);
  return kl;
}

/// Is told of each token of a text's tail: of which row, at which place of the tail, and what it was drawn from.
using OnTail = std::function<void(std::size_t text, bool steered, std::size_t place, std::span<const float> logits)>;

/// Runs the texts, each once for every entry of `kinds`: whether steered. @return what is to be known of each text's
/// steering.
std::vector<std::vector<std::string>> read_tails(Engine& engine, std::span<const ScoreRequest> requests,
                                                 std::initializer_list<bool> kinds, const OnTail& on_tail,
                                                 Progress progress = {}) {
  std::vector<std::vector<std::string>> warnings(requests.size());
  const std::size_t copies = kinds.size();
  const std::vector<std::size_t> order = by_prompt(requests);
  std::optional<RowId> first;
  for (const std::size_t r : order)
    for (const bool steered : kinds) {
      EngineRequest row = row_of(requests[r], steered);
      row.on_logits = [&, r, steered](const LogitsObservation& seen) {
        on_tail(r, steered, static_cast<std::size_t>(seen.position - requests[r].begin), seen.logits);
      };
      const RowId id = engine.submit(std::move(row));
      if (!first) first = id;
    }
  const auto place_of = [&](RowId row) { return static_cast<std::size_t>(row - *first); };
  const auto text_of = [&](RowId row) { return order[place_of(row) / copies]; };
  run_tails(engine, kDivergence, text_of, [&](RowId row, const GenerateResult& read) {
    if (!read.warnings.empty()) warnings[text_of(row)] = read.warnings;
    if (place_of(row) % copies == copies - 1) progress.advance();
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

/// Both kinds side by side.
std::vector<TextDivergence> compare(Engine& engine, std::span<const ScoreRequest> requests,
                                    const Progress& progress = {}) {
  std::vector<TextDivergence> results = without_values(requests);
  // Distributions of one of a text's two rows, until the other one's come.
  std::map<std::pair<std::size_t, std::size_t>, std::vector<float>> waiting;
  auto warnings = read_tails(
      engine, requests, {false, true},
      [&](std::size_t r, bool steered, std::size_t place, std::span<const float> logits) {
        const auto other = waiting.find({r, place});
        if (other == waiting.end()) {
          waiting.emplace(std::pair(r, place), std::vector(logits.begin(), logits.end()));
          return;
        }
        const std::span<const float> before = other->second;
        results[r].values[place] = steered ? divergence(before, logits, r) : divergence(logits, before, r);
        waiting.erase(other);
      },
      progress);
  add_means_and_warnings(results, std::move(warnings));
  return results;
}

/// Logits that a meter keeps of the unsteered model, at most: 512 MB.
constexpr std::int64_t kMostKept = std::int64_t{1} << 27;

}  // namespace

std::vector<TextDivergence> divergence_from_unsteered(const Model& model, std::span<const ScoreRequest> requests,
                                                      const ScoreOptions& options) {
  check_texts(model, requests, kDivergence);
  if (requests.empty()) return {};
  const c10::NoGradGuard no_grad;
  Engine engine(model, engine_options(model, 2 * requests.size(), options));
  return compare(engine, requests, options.progress);
}

namespace generation::detail {

DivergenceMeter::DivergenceMeter(const Model& model, std::vector<ScoreRequest> texts)
    : texts_(std::move(texts)),
      vocabulary_(model.config().vocab_size),
      engine_(model, engine_options(model, 2 * texts_.size(), {})) {
  check_texts(model, texts_, kDivergence);
  const c10::NoGradGuard no_grad;
  std::int64_t tokens = 0;
  for (const ScoreRequest& text : texts_) tokens += end_of(text) - text.begin;
  if (tokens * vocabulary_ > kMostKept) return;
  for (const ScoreRequest& text : texts_)
    unsteered_.emplace_back(static_cast<std::size_t>((end_of(text) - text.begin) * vocabulary_));
  read_tails(engine_, texts_, {false}, [&](std::size_t r, bool, std::size_t place, std::span<const float> logits) {
    std::ranges::copy(logits, row_of(r, place).begin());
  });
}

std::span<float> DivergenceMeter::row_of(std::size_t text, std::size_t place) {
  const auto width = static_cast<std::size_t>(vocabulary_);
  return std::span(unsteered_[text]).subspan(place * width, width);
}

std::vector<TextDivergence> DivergenceMeter::of(const Steering& steering) {
  const c10::NoGradGuard no_grad;
  for (ScoreRequest& text : texts_) text.steering = steering;
  try {
    if (unsteered_.empty()) return compare(engine_, texts_);
    std::vector<TextDivergence> results = without_values(texts_);
    add_means_and_warnings(
        results,
        read_tails(engine_, texts_, {true}, [&](std::size_t r, bool, std::size_t place, std::span<const float> logits) {
          results[r].values[place] = divergence(row_of(r, place), logits, r);
        }));
    return results;
  } catch (...) {
    engine_.cancel_all();  // the rows that were left
    while (engine_.step()) {
    }
    throw;
  }
}

}  // namespace generation::detail
}  // namespace steer
