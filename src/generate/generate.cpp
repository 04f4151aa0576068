#include <steer/generate/generate.hpp>

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <set>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>

#include "generate/prefill.hpp"
#include "generate/sampler.hpp"
#include "generate/stop_matcher.hpp"

namespace steer {
namespace {

/// Whether a steering may act on, or remember, a prompt token: then the row computes its whole prompt itself.
bool looks_at_prompt(const Steering& steering) {
  if (!steering.watches().empty()) return true;
  return std::ranges::any_of(steering.edits(), [](const Edit& edit) {
    return edit.when || (edit.scope.where != Where::generated && edit.scope.where != Where::onset);
  });
}

/// The token that ends an assistant's message in a chat format, besides the end of sequence.
std::string_view end_of_turn(ChatFormat format) {
  switch (format) {
    case ChatFormat::llama3:
    case ChatFormat::llama3_1:
      return "<|eot_id|>";
    case ChatFormat::gemma:
      return "<end_of_turn>";
    case ChatFormat::chatml:
      return "<|im_end|>";
    default:
      return "";
  }
}

std::set<std::int64_t> stop_ids(const Model& model, const GenerateOptions& options) {
  std::set<std::int64_t> ids(options.stop_ids.begin(), options.stop_ids.end());
  ids.insert(model.config().eos_ids.begin(), model.config().eos_ids.end());
  if (model.has_tokenizer())
    if (const auto token = end_of_turn(model.chat().format()); !token.empty())
      if (const auto id = model.tokenizer().id_of(token)) ids.insert(*id);
  return ids;
}

void check(const Model& model, std::span<const GenerateRequest> requests, const GenerateOptions& options) {
  constexpr auto where = "generate";
  generation::detail::check(options.sampling, where);
  require(options.max_tokens > 0, ErrorCode::argument, where, "expected max_tokens of at least 1 but got {}",
          options.max_tokens);
  require(options.batch > 0, ErrorCode::argument, where, "expected a batch of at least 1 row but got {}",
          options.batch);
  require(options.stop.empty() || model.has_tokenizer(), ErrorCode::config, where,
          "expected a model with a tokenizer for stop strings but got one without; use stop_ids");
  for (const auto& stop : options.stop)
    require(!stop.empty(), ErrorCode::argument, where,
            "expected stop strings of at least one byte but got an empty one");
  const auto vocabulary = model.config().vocab_size, context = model.config().context;
  for (std::size_t r = 0; r < requests.size(); ++r) {
    const auto& ids = requests[r].ids;
    require(!ids.empty(), ErrorCode::argument, where, "expected a prompt of at least one token but row {} is empty", r);
    require(static_cast<std::int64_t>(ids.size()) < context, ErrorCode::shape, where,
            "expected prompts shorter than the context of {} tokens but row {} has {}; shorten it", context, r,
            ids.size());
    for (auto id : ids)
      require(id >= 0 && id < vocabulary, ErrorCode::argument, where,
              "expected token ids in [0, {}) but row {} holds {}; was it made by another model's tokenizer?",
              vocabulary, r, id);
  }
}

/// One request while it runs.
struct Row {
  std::size_t request;
  SequenceId sequence = -1;
  Rng rng;
  std::vector<std::int64_t> history;  ///< prompt and generated ids
  std::optional<StreamDecoder> decoder;
  generation::detail::StopMatcher stops;
};

class Generation {
 public:
  Generation(const Model& model, std::span<const GenerateRequest> requests, const GenerateOptions& options)
      : model_(model),
        requests_(requests),
        options_(options),
        stop_ids_(stop_ids(model, options)),
        steerings_(steerings(requests, options)),
        plan_(SteeringPlan::compile(model, steerings_)),
        session_(model, {.batch_invariant = options.batch_invariant}),
        hooks_(plan_.attach(session_)),
        results_(requests.size()) {}

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
    for (std::size_t r = 0; r < results_.size(); ++r) {
      results_[r].audit = plan_.audit(static_cast<std::int64_t>(r));
      if (options_.require_fired) results_[r].audit.require_fired("generate");
    }
    progress_.finish();
    return std::move(results_);
  }

 private:
  static std::vector<Steering> steerings(std::span<const GenerateRequest> requests, const GenerateOptions& options) {
    std::vector<Steering> all;
    all.reserve(requests.size());
    for (const auto& request : requests) all.push_back(request.steering.value_or(options.steering));
    return all;
  }

  void admit(std::size_t begin, std::size_t end) {
    std::vector<generation::detail::PrefillRow> rows;
    for (std::size_t r = begin; r < end; ++r)
      rows.push_back({.ids = requests_[r].ids, .shareable = !looks_at_prompt(steerings_[r]), .logits = {}});
    generation::detail::prefill(session_, rows, [&](std::size_t i, SequenceId sequence) {
      const auto computed = static_cast<std::size_t>(session_.length(sequence));
      plan_.bind(sequence, static_cast<std::int64_t>(begin + i), std::span(requests_[begin + i].ids).first(computed));
    });
    std::vector<Row> admitted;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto& request = requests_[begin + i];
      Row row{.request = begin + i,
              .sequence = rows[i].sequence,
              .rng = Rng(request.seed.value_or(derive_seed(options_.seed, "row", begin + i))),
              .history = request.ids,
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
    std::vector<std::optional<std::string>> aborted(rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (plan_.needs_logits(rows[i].sequence)) plan_.observe(rows[i].sequence, logits[static_cast<std::int64_t>(i)]);
      aborted[i] = plan_.abort_reason(rows[i].sequence);
    }
    const generation::detail::DrawRows prepared(logits, options_.sampling);
    std::vector<generation::detail::Draw> draws(rows.size());
    at::parallel_for(0, std::ssize(rows), 16, [&](std::int64_t begin, std::int64_t end) {
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i)
        if (!aborted[i])
          draws[i] = generation::detail::draw_token(prepared[i], rows[i].history, options_.sampling, rows[i].rng);
    });
    std::vector<Row> still;
    for (std::size_t i = 0; i < rows.size(); ++i)
      if (take(rows[i], draws[i], std::move(aborted[i]))) still.push_back(std::move(rows[i]));
    rows = std::move(still);
  }

  /// Adds a drawn token to its row. @return whether the row goes on.
  bool take(Row& row, const generation::detail::Draw& draw, std::optional<std::string> aborted) {
    GenerateResult& result = results_[row.request];
    if (aborted) {
      result.abort_reason = *std::move(aborted);
      return finish(row, FinishReason::aborted);
    }
    const auto [id, log_probability] = draw;
    if (stop_ids_.contains(id)) return finish(row, FinishReason::stop_token);

    row.history.push_back(id);
    result.ids.push_back(id);
    result.log_probabilities.push_back(log_probability);
    const std::string text = row.decoder ? row.stops.push(row.decoder->push(id)) : "";
    if (options_.on_token && !options_.on_token({static_cast<std::int64_t>(row.request), id, text, log_probability})) {
      result.abort_reason = "on_token returned false";
      return finish(row, FinishReason::aborted);
    }
    if (row.stops.stopped()) return finish(row, FinishReason::stop_string);
    if (static_cast<std::int64_t>(result.ids.size()) >= options_.max_tokens) return finish(row, FinishReason::length);
    if (static_cast<std::int64_t>(row.history.size()) >= model_.config().context)
      return finish(row, FinishReason::context);
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
    plan_.unbind(row.sequence);
    session_.close(row.sequence);
    progress_.advance();
    return false;
  }

  const Model& model_;
  std::span<const GenerateRequest> requests_;
  const GenerateOptions& options_;
  std::set<std::int64_t> stop_ids_;
  std::vector<Steering> steerings_;
  SteeringPlan plan_;
  Session session_;
  std::vector<HookHandle> hooks_;
  std::vector<GenerateResult> results_;
  std::vector<Row> active_;
  Progress progress_ = options_.progress;
};

}  // namespace

std::vector<GenerateResult> generate(const Model& model, std::span<const GenerateRequest> requests,
                                     const GenerateOptions& options) {
  check(model, requests, options);
  if (requests.empty()) return {};
  return Generation(model, requests, options).run();
}

GenerateResult generate(const Model& model, const std::vector<Message>& chat, const GenerateOptions& options) {
  const GenerateRequest request{.ids = model.chat().render(chat).ids, .steering = {}, .seed = {}};
  return generate(model, {&request, 1}, options).front();
}

std::string generate(const Model& model, std::string_view text, const GenerateOptions& options) {
  return generate(model, std::vector<Message>{{Role::user, std::string(text)}}, options).text;
}

}  // namespace steer
