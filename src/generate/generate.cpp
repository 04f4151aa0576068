#include <steer/generate/generate.hpp>

#include <algorithm>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>
#include <steer/generate/engine.hpp>

#include "core/format_text.hpp"
#include "generate/row_rules.hpp"

namespace steer {
namespace {

constexpr auto kGenerate = "generate";

void check(const Model& model, std::span<const GenerateRequest> requests, const GenerateOptions& options) {
  require(options.max_tokens >= 1, ErrorCode::argument, kGenerate, "expected max_tokens of at least 1 but got {}",
          options.max_tokens);
  require(options.batch > 0, ErrorCode::argument, kGenerate, "expected a batch of at least 1 row but got {}",
          options.batch);
  for (std::size_t r = 0; r < requests.size(); ++r)
    generation::detail::check_row(
        model,
        {requests[r].ids, {}, options.sampling, options.max_tokens, options.min_tokens, options.top, options.stop},
        format_text("row {}", r), kGenerate);
}

EngineRequest row_of(const GenerateRequest& request, const GenerateOptions& options, std::size_t r) {
  return {.ids = request.ids,
          .steering = request.steering ? *request.steering : options.steering,
          .sampling = options.sampling,
          .max_tokens = options.max_tokens,
          .stop = options.stop,
          .stop_ids = options.stop_ids,
          .seed = request.seed.value_or(derive_seed(options.seed, "row", r)),
          .min_tokens = options.min_tokens,
          .ignore_eos = options.ignore_eos,
          .top = options.top,
          .after = request.after,
          .keep_sequence = options.keep_sequences};
}

}  // namespace

std::vector<GenerateResult> generate(Session& session, std::span<const GenerateRequest> requests,
                                     const GenerateOptions& options) {
  check(session.model(), requests, options);
  if (requests.empty()) return {};
  Engine engine(
      session,
      {.max_rows = options.batch, .step_tokens = 512, .max_waiting = std::ssize(requests), .keep_answers = false});
  for (std::size_t r = 0; r < requests.size(); ++r) engine.submit(row_of(requests[r], options, r));
  std::vector<GenerateResult> results(requests.size());
  Progress progress = options.progress;
  const auto on_event = [&](const EngineEvent& e) {
    if (e.error) std::rethrow_exception(e.error);
    const bool tells = e.id >= 0 || !e.text.empty();
    if (options.on_token && tells && !options.on_token({e.row, e.id, e.text, e.log_probability}))
      engine.cancel(e.row, "on_token returned false");
    if (!e.result) return;
    results[static_cast<std::size_t>(e.row)] = *e.result;
    progress.advance();
  };
  while (engine.step(on_event)) {
  }
  if (options.require_fired)
    for (const GenerateResult& result : results) result.audit.require_fired(kGenerate);
  progress.finish();
  return results;
}

std::vector<GenerateResult> generate(const Model& model, std::span<const GenerateRequest> requests,
                                     const GenerateOptions& options) {
  check(model, requests, options);
  require(!options.keep_sequences && std::ranges::none_of(requests, [](const auto& r) { return r.after.has_value(); }),
          ErrorCode::argument, kGenerate,
          "expected a Session for keep_sequences and GenerateRequest::after but got a Model");
  Session session(model, {.batch_invariant = options.batch_invariant, .on_warning = options.on_warning});
  return generate(session, requests, options);
}

GenerateResult generate(const Model& model, const std::vector<Message>& chat, const GenerateOptions& options) {
  const GenerateRequest request{.ids = model.chat().render(chat).ids, .steering = {}, .seed = {}, .after = {}};
  return generate(model, {&request, 1}, options).front();
}

std::string generate(const Model& model, std::string_view text, const GenerateOptions& options) {
  GenerateResult result = generate(model, std::vector<Message>{{Role::user, std::string(text)}}, options);
  if (options.on_warning == OnWarning::keep && !result.warnings.empty())
    fail(
        ErrorCode::config, kGenerate,
        "expected a steering without a warning but {}; generate for a list of messages returns it with the answer, and "
        "OnWarning::ignore leaves it out",
        result.warnings.front());
  return std::move(result.text);
}

}  // namespace steer
