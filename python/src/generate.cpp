// Generation, live rows and scores.
#include <steer/core/error.hpp>
#include <steer/generate/engine.hpp>
#include <steer/generate/generate.hpp>
#include <steer/generate/score.hpp>

#include <nanobind/stl/map.h>
#include <nanobind/stl/variant.h>

#include "bind.hpp"
#include "hooks.hpp"

namespace steer::python {
namespace {

/// Sets the sampling option of this name. @return whether there is one.
bool set_sampling(SamplingOptions& o, std::string_view name, nb::handle value) {
  if (name == "temperature")
    o.temperature = nb::cast<double>(value);
  else if (name == "top_p")
    o.top_p = nb::cast<double>(value);
  else if (name == "top_k")
    o.top_k = nb::cast<std::int64_t>(value);
  else if (name == "min_p")
    o.min_p = nb::cast<double>(value);
  else if (name == "repetition_penalty")
    o.repetition_penalty = nb::cast<double>(value);
  else if (name == "presence_penalty")
    o.presence_penalty = nb::cast<double>(value);
  else if (name == "frequency_penalty")
    o.frequency_penalty = nb::cast<double>(value);
  else if (name == "logit_bias")
    for (const auto& [id, bias] : nb::cast<std::map<std::int64_t, double>>(value)) o.logit_bias.emplace_back(id, bias);
  else
    return false;
  return true;
}

constexpr auto kSampling =
    "temperature, top_p, top_k, min_p, repetition_penalty, presence_penalty, frequency_penalty, logit_bias";

/// Options of `generate` by their names, shared by its two forms.
struct Options {
  GenerateOptions options;
  std::optional<Held> on_token;
};

/// Sets what `GenerateOptions` and `EngineRequest` call alike. @return whether the name is one of these.
template <class Request>
bool set_common(Request& request, const std::string& name, nb::handle value) {
  if (set_sampling(request.sampling, name, value)) return true;
  if (name == "max_tokens")
    request.max_tokens = nb::cast<std::int64_t>(value);
  else if (name == "min_tokens")
    request.min_tokens = nb::cast<std::int64_t>(value);
  else if (name == "ignore_eos")
    request.ignore_eos = nb::cast<bool>(value);
  else if (name == "stop")
    request.stop = nb::cast<std::vector<std::string>>(value);
  else if (name == "stop_ids")
    request.stop_ids = nb::cast<Ids>(value);
  else if (name == "seed")
    request.seed = nb::cast<std::uint64_t>(value);
  else if (name == "top")
    request.top = nb::cast<std::int64_t>(value);
  else
    return false;
  return true;
}

Options options_of(const nb::kwargs& given) {
  constexpr auto kWhere = "generate";
  Options out;
  GenerateOptions& o = out.options;
  for (const auto& [key, value] : given) {
    const auto name = nb::cast<std::string>(key);
    if (set_common(o, name, value)) continue;
    if (name == "batch")
      o.batch = nb::cast<std::int64_t>(value);
    else if (name == "require_fired")
      o.require_fired = nb::cast<bool>(value);
    else if (name == "on_warning")
      o.on_warning = parse_enum<OnWarning>(nb::cast<std::string>(value), kWhere);
    else if (name == "batch_invariant")
      o.batch_invariant = nb::cast<bool>(value);
    else if (name == "on_token") {
      if (!value.is_none()) out.on_token.emplace(nb::borrow(value));
    } else
      fail(ErrorCode::argument, kWhere,
           "expected options ({}, max_tokens, min_tokens, ignore_eos, stop, stop_ids, seed, batch, require_fired, "
           "on_warning, top, batch_invariant, on_token) but got \"{}\"",
           kSampling, name);
  }
  return out;
}

std::vector<GenerateResult> generate_rows(const std::variant<Model, Session*>& on,
                                          const std::vector<GenerateRequest>& requests, Options given) {
  Signals signals;
  given.options.on_token = [&](const TokenEvent& e) {
    signals.check();
    if (!given.on_token) return true;
    const nb::gil_scoped_acquire gil;
    const nb::object go_on = given.on_token->get()(e.row, e.id, std::string(e.text));
    return go_on.is_none() || nb::cast<bool>(go_on);
  };
  return without_gil([&] {
    if (const auto* session = std::get_if<Session*>(&on)) return generate(**session, requests, given.options);
    return generate(std::get<Model>(on), requests, given.options);
  });
}

std::vector<GenerateRequest> requests_of(const std::vector<Ids>& prompts,
                                         const std::vector<std::optional<Steering>>& steering,
                                         const std::vector<std::uint64_t>& seeds) {
  constexpr auto kWhere = "generate";
  require(steering.empty() || steering.size() == prompts.size(), ErrorCode::argument, kWhere,
          "expected one steering a prompt but got {} for {} prompts", steering.size(), prompts.size());
  require(seeds.empty() || seeds.size() == prompts.size(), ErrorCode::argument, kWhere,
          "expected one seed a prompt but got {} for {} prompts", seeds.size(), prompts.size());
  std::vector<GenerateRequest> out;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    GenerateRequest request{.ids = prompts[i]};
    if (!steering.empty()) request.steering = steering[i];
    if (!seeds.empty()) request.seed = seeds[i];
    out.push_back(std::move(request));
  }
  return out;
}

/// A request of the options by their names.
EngineRequest request_of(const Ids& ids, const std::optional<Steering>& steering, const nb::kwargs& options) {
  EngineRequest r{.ids = ids};
  if (steering) r.steering = *steering;
  for (const auto& [key, value] : options) {
    const auto name = nb::cast<std::string>(key);
    if (set_common(r, name, value)) continue;
    if (name == "samples")
      r.samples = nb::cast<std::int64_t>(value);
    else if (name == "priority")
      r.priority = nb::cast<int>(value);
    else if (name == "score_from")
      r.score_from = nb::cast<std::int64_t>(value);
    else if (name == "prompt_top")
      r.prompt_top = nb::cast<std::int64_t>(value);
    else if (name == "given")
      r.given = nb::cast<Ids>(value);
    else
      fail(ErrorCode::argument, "Engine.submit",
           "expected options ({}, max_tokens, min_tokens, ignore_eos, stop, stop_ids, seed, samples, priority, top, "
           "score_from, prompt_top, given) but got \"{}\"",
           kSampling, name);
  }
  return r;
}

}  // namespace

void bind_generate(nb::module_& m) {
  nb::class_<GenerateResult>(m, "GenerateResult", "One generated row.")
      .def_ro("ids", &GenerateResult::ids, "Generated only, without the stop token.")
      .def_ro("text", &GenerateResult::text, "Of `ids`; up to a stop string.")
      .def_prop_ro(
          "finish", [](const GenerateResult& r) { return std::string(to_string(r.finish)); },
          "stop_token, stop_string, length, context, aborted or failed.")
      .def_ro("stop", &GenerateResult::stop, "For stop_string: which one.")
      .def_ro("abort_reason", &GenerateResult::abort_reason, "For aborted and failed.")
      .def_ro("prompt_log_probabilities", &GenerateResult::prompt_log_probabilities, "From score_from on.")
      .def_ro("prompt_top", &GenerateResult::prompt_top,
              "By prompt token from score_from on: (alternative, log-probability).")
      .def_ro("log_probabilities", &GenerateResult::log_probabilities, "Of each id, under the unfiltered distribution.")
      .def_ro("top", &GenerateResult::top, "By id: (alternative, log-probability), likeliest first.")
      .def_ro("audit", &GenerateResult::audit, "What the row's steering did.")
      .def_ro("warnings", &GenerateResult::warnings, "What a person should know of the steering.")
      .def("__repr__", [](const GenerateResult& r) {
        return fmt::format("GenerateResult(finish='{}', tokens={}, edited={}, text={})", to_string(r.finish),
                           r.ids.size(), r.audit.edited(), nb::repr(nb::cast(r.text)).c_str());
      });

  constexpr auto kSignature =
      "(on: Model | Session, prompts: Sequence[Sequence[int]], *, steering: Sequence[Steering | None] = [], seeds: "
      "Sequence[int] = [], **options: object) -> list[GenerateResult]";
  static const std::string signature = std::string("def generate") + kSignature;
  const auto define = [&](auto on) {
    m.def(
        "generate",
        [](decltype(on) where, const std::vector<Ids>& prompts, const std::vector<std::optional<Steering>>& steering,
           const std::vector<std::uint64_t>& seeds, const nb::kwargs& options) {
          if constexpr (std::is_same_v<decltype(on), Session*>)
            return generate_rows(where, requests_of(prompts, steering, seeds), options_of(options));
          else
            return generate_rows(*where, requests_of(prompts, steering, seeds), options_of(options));
        },
        "on"_a, "prompts"_a, nb::kw_only(), "steering"_a = std::vector<std::optional<Steering>>(),
        "seeds"_a = std::vector<std::uint64_t>(), "options"_a,
        "Generates for a batch of prompts. A row depends on its own prompt, steering and seed only. Options are those "
        "of "
        "GenerateOptions; on_token(row, id, text) is called per token, False ends that row.");
  };
  define(static_cast<Session*>(nullptr));
  define(static_cast<const Model*>(nullptr));

  nb::class_<Engine>(m, "Engine",
                     "Generates for rows that come and go at any time; each step is one pass over all of them.")
      .def(
          "__init__",
          [](Engine* self, const Model& model, std::int64_t max_rows, std::int64_t max_cache_bytes,
             std::int64_t step_tokens, bool keep_prefixes, bool batch_invariant) {
            new (self) Engine(model, {.max_rows = max_rows,
                                      .max_cache_bytes = max_cache_bytes,
                                      .step_tokens = step_tokens,
                                      .keep_prefixes = keep_prefixes,
                                      .batch_invariant = batch_invariant});
          },
          "model"_a, nb::kw_only(), "max_rows"_a = 32, "max_cache_bytes"_a = 0, "step_tokens"_a = 256,
          "keep_prefixes"_a = true, "batch_invariant"_a = true)
      .def(
          "submit",
          [](Engine& e, const Ids& ids, const std::optional<Steering>& steering, const nb::kwargs& options) {
            EngineRequest request = request_of(ids, steering, options);
            return without_gil([&] { return e.submit(std::move(request)); });
          },
          "ids"_a, nb::kw_only(), "steering"_a = nb::none(), "options"_a,
          nb::sig(
              "def submit(self, ids: Sequence[int], *, steering: Steering | None = None, **options: object) -> int"),
          "Adds a row, or `samples` of them, from any thread; the first one's id. Options are those of EngineRequest: "
          "temperature, max_tokens (0: the prompt is read only), stop, seed, priority, top, score_from, given and so "
          "on.")
      .def(
          "step",
          [](Engine& e, nb::object on_event) {
            Signals signals;
            const auto report = [&](const EngineEvent& event) {
              const nb::gil_scoped_acquire gil;
              on_event(event.row, event.id, std::string(event.text),
                       event.result ? nb::cast(*event.result) : nb::none());
            };
            const bool left = without_gil([&] { return on_event.is_none() ? e.step() : e.step(report); });
            signals.check();
            return left;
          },
          "on_event"_a = nb::none(),
          nb::sig("def step(self, on_event: Callable[[int, int, str, GenerateResult | None], object] | None = None) -> "
                  "bool"),
          "One pass. Calls on_event(row, id, text, result or None) for every token, and once more for each row that "
          "ends. "
          "Whether rows are left.")
      .def(
          "cancel", [](Engine& e, RowId row) { return static_cast<bool>(e.cancel(row)); }, "row"_a,
          "Ends a row, from any thread; its last event follows. False for a row that has ended or is unknown.")
      .def(
          "load",
          [](const Engine& e) {
            const Engine::Load l = e.load();
            nb::dict out;
            out["running"] = l.running;
            out["waiting"] = l.waiting;
            out["cache_bytes"] = l.cache_bytes;
            out["prompt_tokens"] = l.prompt_tokens;
            out["shared_tokens"] = l.shared_tokens;
            out["tokens"] = l.tokens;
            out["steps"] = l.steps;
            out["set_back"] = l.set_back;
            return out;
          },
          nb::sig("def load(self) -> dict[str, int]"), "What it holds now, and has done so far.");

  m.def(
      "score",
      [](const Model& model, const std::vector<std::pair<Ids, std::int64_t>>& texts,
         const std::optional<Steering>& steering) {
        std::vector<ScoreRequest> requests;
        for (const auto& [ids, begin] : texts) requests.push_back({.ids = ids, .begin = begin, .steering = steering});
        const auto scores = without_gil([&] { return score_texts(model, requests); });
        std::vector<std::vector<double>> out;
        for (const TextScore& s : scores) out.push_back(s.token_log_probabilities);
        return out;
      },
      "model"_a, "texts"_a, nb::kw_only(), "steering"_a = nb::none(),
      "Natural log-probabilities of the tokens from `begin` on of each text, [(ids, begin), ...], under the steering, "
      "if "
      "there is one, as if they had been generated.");
}

}  // namespace steer::python
