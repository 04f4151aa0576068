#include <steer/generate/generate.hpp>

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <set>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>

#include "generate/prefill.hpp"
#include "generate/row_rules.hpp"
#include "generate/sampler.hpp"
#include "generate/stop_matcher.hpp"
#include "model/log_probability.hpp"

namespace steer {
namespace {

void check(const Model& model, std::span<const GenerateRequest> requests, const GenerateOptions& options) {
  constexpr auto where = "generate";
  for (std::size_t r = 0; r < requests.size(); ++r)
    generation::detail::check_row(model, {requests[r].ids, options.sampling, options.max_tokens, options.stop},
                                  fmt::format("row {}", r), where);
  require(options.min_tokens >= 0 && options.min_tokens <= options.max_tokens, ErrorCode::argument, where,
          "expected min_tokens in [0, max_tokens] but got {} of {}", options.min_tokens, options.max_tokens);
  require(options.top >= 0 && options.top <= model.config().vocab_size, ErrorCode::argument, where,
          "expected top in [0, {}] but got {}", model.config().vocab_size, options.top);
  require(options.batch > 0, ErrorCode::argument, where, "expected a batch of at least 1 row but got {}",
          options.batch);
}

/// One request while it runs.
struct Row {
  std::size_t request;
  SequenceId sequence = -1;
  Rng rng;
  std::vector<std::int64_t> history;  ///< the request's and generated ids
  std::int64_t held = 0;              ///< tokens of its sequence before those
  std::optional<StreamDecoder> decoder;
  generation::detail::StopMatcher stops;
};

class Generation {
 public:
  Generation(Session& session, std::span<const GenerateRequest> requests, const GenerateOptions& options)
      : session_(session),
        model_(session.model()),
        requests_(requests),
        options_(options),
        stop_ids_(options.ignore_eos ? std::set(options.stop_ids.begin(), options.stop_ids.end())
                                     : generation::detail::stop_ids(model_, options.stop_ids)),
        results_(requests.size()) {
    // A steering that does not fit is an error now, not at row 100.
    for (const GenerateRequest& request : requests) session_.close(session_.open({.steering = steering(request)}));
  }
  ~Generation() {
    for (const Row& row : active_) session_.close(row.sequence);  // of a run that failed
  }
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  std::vector<GenerateResult> run() {
    std::size_t waiting = 0;
    const auto batch = static_cast<std::size_t>(options_.batch);
    while (waiting < requests_.size() || !active_.empty()) {
      // Prompts are admitted several at a time: a step for one new row alone would be dear.
      const std::size_t room = batch - active_.size();
      if (waiting < requests_.size() && (active_.empty() || room >= std::max<std::size_t>(1, batch / 4))) {
        const std::size_t end = std::min(requests_.size(), waiting + room);
        admit(waiting, end);
        waiting = end;
      } else {
        step();
      }
    }
    for (GenerateResult& result : results_) {
      if (options_.require_fired) result.audit.require_fired("generate");
      result.warnings = session_.warnings();
    }
    progress_.finish();
    return std::move(results_);
  }

 private:
  const Steering& steering(const GenerateRequest& request) const {
    return request.steering ? *request.steering : options_.steering;
  }

  void admit(std::size_t begin, std::size_t end) {
    std::vector<generation::detail::PrefillRow> rows;
    for (std::size_t r = begin; r < end; ++r) {
      const GenerateRequest& request = requests_[r];
      rows.push_back({.ids = request.ids,
                      .steering = steering(request),
                      .shareable = !request.after && !generation::detail::looks_at_prompt(steering(request)),
                      .after = request.after.value_or(-1),
                      .logits = {}});
    }
    generation::detail::prefill(session_, rows);
    std::vector<Row> admitted;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto& request = requests_[begin + i];
      Row row{.request = begin + i,
              .sequence = rows[i].sequence,
              .rng = Rng(request.seed.value_or(derive_seed(options_.seed, "row", begin + i))),
              .history = request.ids,
              .held = session_.length(rows[i].sequence) - std::ssize(request.ids),
              .decoder = {},
              .stops = generation::detail::StopMatcher(options_.stop)};
      if (model_.has_tokenizer()) row.decoder.emplace(model_.tokenizer(), DecodeOptions{.skip_special = true});
      admitted.push_back(std::move(row));
    }
    std::vector<at::Tensor> logits;
    for (const auto& row : rows) logits.push_back(row.logits);
    extend(admitted, at::stack(logits));
    std::ranges::move(admitted, std::back_inserter(active_));
  }

  void step() {
    std::vector<StepInput> inputs;
    for (const Row& row : active_) inputs.push_back({row.sequence, std::span(row.history).last(1), Phase::generated});
    extend(active_, session_.step(inputs, Logits::last));
  }

  /// Draws every row's next token from logits [rows, vocab], on all threads, and drops the rows that end.
  void extend(std::vector<Row>& rows, const at::Tensor& logits) {
    std::vector<std::optional<std::string>> aborted;
    for (const Row& row : rows) aborted.push_back(session_.abort_reason(row.sequence));
    const generation::detail::DrawRows prepared(logits, options_.sampling);
    std::vector<generation::detail::Draw> draws(rows.size());
    const std::vector<std::int64_t> none, ends(stop_ids_.begin(), stop_ids_.end());
    at::parallel_for(0, std::ssize(rows), 16, [&](std::int64_t begin, std::int64_t end) {
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
        if (aborted[i]) continue;
        const bool early = std::ssize(results_[rows[i].request].ids) < options_.min_tokens;
        draws[i] = generation::detail::draw_token(prepared[i], rows[i].history, options_.sampling, rows[i].rng,
                                                  early ? ends : none);
        if (options_.top > 0) {
          const auto row = prepared[i];
          draws[i].top = model::detail::likeliest(row.logits.data(), std::ssize(row.logits), row.log_sum, options_.top);
        }
      }
    });
    std::vector<Row> still;
    for (std::size_t i = 0; i < rows.size(); ++i)
      if (take(rows[i], std::move(draws[i]), std::move(aborted[i]))) still.push_back(std::move(rows[i]));
    rows = std::move(still);
  }

  /// Adds a drawn token to its row. @return whether the row goes on.
  bool take(Row& row, generation::detail::Draw draw, std::optional<std::string> aborted) {
    GenerateResult& result = results_[row.request];
    if (aborted) {
      result.abort_reason = *std::move(aborted);
      return finish(row, FinishReason::aborted);
    }
    const auto id = draw.id;
    const double log_probability = draw.log_probability;
    if (stop_ids_.contains(id)) return finish(row, FinishReason::stop_token);

    row.history.push_back(id);
    result.ids.push_back(id);
    result.log_probabilities.push_back(log_probability);
    if (options_.top > 0) result.top.push_back(std::move(draw.top));
    const std::string text = row.decoder ? row.stops.push(row.decoder->push(id)) : "";
    if (options_.on_token && !options_.on_token({static_cast<std::int64_t>(row.request), id, text, log_probability})) {
      result.abort_reason = "on_token returned false";
      return finish(row, FinishReason::aborted);
    }
    if (row.stops.stopped()) return finish(row, FinishReason::stop_string);
    if (static_cast<std::int64_t>(result.ids.size()) >= options_.max_tokens) return finish(row, FinishReason::length);
    if (row.held + std::ssize(row.history) >= model_.config().context) return finish(row, FinishReason::context);
    return true;
  }

  bool finish(Row& row, FinishReason reason) {
    GenerateResult& result = results_[row.request];
    result.finish = reason;
    if (row.decoder && !row.stops.stopped()) {
      std::string rest = row.stops.push(row.decoder->finish());
      if (!row.stops.stopped()) rest += row.stops.finish();
      if (options_.on_token && !rest.empty()) options_.on_token({static_cast<std::int64_t>(row.request), -1, rest, 0});
    }
    result.text = row.stops.text();
    result.audit = session_.audit(row.sequence);
    if (options_.keep_sequences)
      keep(row, result);
    else
      session_.close(row.sequence);
    progress_.advance();
    return false;
  }

  /// Leaves the row's sequence open, with all its tokens: the last one drawn was not computed yet.
  void keep(const Row& row, GenerateResult& result) {
    const std::int64_t wanted = row.held + std::ssize(row.history), missing = wanted - session_.length(row.sequence);
    if (missing > 0)
      session_.step({{row.sequence, std::span(row.history).last(static_cast<std::size_t>(missing)), Phase::generated}},
                    Logits::none);
    result.sequence = row.sequence;
  }

  Session& session_;
  const Model& model_;
  std::span<const GenerateRequest> requests_;
  const GenerateOptions& options_;
  std::set<std::int64_t> stop_ids_;
  std::vector<GenerateResult> results_;
  std::vector<Row> active_;
  Progress progress_ = options_.progress;
};

}  // namespace

std::vector<GenerateResult> generate(Session& session, std::span<const GenerateRequest> requests,
                                     const GenerateOptions& options) {
  check(session.model(), requests, options);
  if (requests.empty()) return {};
  return Generation(session, requests, options).run();
}

std::vector<GenerateResult> generate(const Model& model, std::span<const GenerateRequest> requests,
                                     const GenerateOptions& options) {
  check(model, requests, options);
  require(!options.keep_sequences && std::ranges::none_of(requests, [](const auto& r) { return r.after.has_value(); }),
          ErrorCode::argument, "generate",
          "expected a Session for keep_sequences and GenerateRequest::after but got a Model");
  Session session(model, {.batch_invariant = options.batch_invariant, .on_warning = options.on_warning});
  return generate(session, requests, options);
}

GenerateResult generate(const Model& model, const std::vector<Message>& chat, const GenerateOptions& options) {
  const GenerateRequest request{.ids = model.chat().render(chat).ids, .steering = {}, .seed = {}, .after = {}};
  return generate(model, {&request, 1}, options).front();
}

std::string generate(const Model& model, std::string_view text, const GenerateOptions& options) {
  return generate(model, std::vector<Message>{{Role::user, std::string(text)}}, options).text;
}

}  // namespace steer
