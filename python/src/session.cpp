// Sessions, hooks and recorded activations.
#include <ATen/TensorOperators.h>
#include <ATen/ops/stack.h>
#include <steer/core/error.hpp>
#include <steer/model/session.hpp>
#include <steer/steering/steering.hpp>

#include "bind.hpp"
#include "hooks.hpp"

namespace steer::python {
namespace {

InterventionPtr steering_of(const std::optional<Steering>& steering) {
  return steering ? InterventionPtr(*steering) : InterventionPtr();
}

Logits logits_of(std::string_view name, std::string_view where) {
  if (name == "none") return Logits::none;
  if (name == "last") return Logits::last;
  if (name == "all") return Logits::all;
  if (name == "positions") return Logits::positions;
  fail(ErrorCode::argument, where, "expected logits (one of: none, last, all, positions) but got \"{}\"", name);
}

SessionOptions session_options(bool batch_invariant, std::int64_t prompt_chunk, std::int64_t max_cache_bytes,
                               const std::string& cache, const std::string& backend, bool graphs,
                               const std::string& on_warning) {
  constexpr auto kWhere = "Session";
  return {.batch_invariant = batch_invariant,
          .prompt_chunk = prompt_chunk,
          .max_cache_bytes = max_cache_bytes,
          .cache = parse_enum<CacheFormat>(cache, kWhere),
          .backend = parse_enum<BackendKind>(backend, kWhere),
          .graphs = graphs,
          .on_warning = parse_enum<OnWarning>(on_warning, kWhere)};
}

}  // namespace

/// The points of a model, in order of computation.
std::vector<std::string> point_names(const Model& model) {
  Session session(model);
  std::vector<std::string> out;
  const auto add = [&](const HookPoint& point) {
    try {
      session.hook(point, [](HookContext&) {}).remove();
      out.push_back(point.name());
    } catch (const Error&) {  // this family does not compute it
    }
  };
  add({Site::embed, 0});
  for (std::int64_t layer = 0; layer < model.config().n_layers; ++layer)
    for (const auto& site : EnumTable<Site>::entries)
      if (site.value != Site::embed && site.value != Site::ln_final) add({site.value, layer});
  add({Site::ln_final, 0});
  return out;
}

/// Recorded activations of equally long prompts: (logits [rows, tokens, vocab] or None, [(name, value [rows, ...])]).
/// Each value as TransformerLens shapes it.
nb::tuple record(Session& session, const std::vector<Ids>& prompts, const std::vector<std::string>& patterns,
                 const std::optional<Steering>& steering, const std::string& logits, std::int64_t stop_after_layer) {
  const CacheOptions options{.steering = steering_of(steering),
                             .logits = logits_of(logits, "run_with_cache"),
                             .stop_after_layer = stop_after_layer};
  const std::int64_t d_head = session.model().config().d_head;
  std::vector<std::pair<std::string, at::Tensor>> values;
  at::Tensor all;
  without_gil([&] {
    auto caches = session.run_with_cache(prompts, patterns, options);
    const auto joined = [&](auto&& of) {
      if (caches.size() == 1) return of(caches[0]).unsqueeze(0);
      std::vector<at::Tensor> parts;
      for (const auto& cache : caches) parts.push_back(of(cache));
      return at::stack(parts);
    };
    for (std::size_t i = 0; i < caches[0].all().size(); ++i) {
      const HookPoint point = caches[0].all()[i].first;
      at::Tensor value = joined([&](const ActivationCache& c) { return c.all()[i].second; });
      if (point.site == Site::attn_q || point.site == Site::attn_k || point.site == Site::attn_v ||
          point.site == Site::attn_z)
        value = value.view({value.size(0), value.size(1), value.size(2) / d_head, d_head});
      values.emplace_back(point.name(), value);
    }
    if (caches[0].logits.defined()) all = joined([](const ActivationCache& c) { return c.logits; });
  });
  return nb::make_tuple(all, values);
}

void bind_session(nb::module_& m) {
  nb::class_<EditAudit>(m, "EditAudit", "What one edit did in one sequence.")
      .def_ro("edit", &EditAudit::edit, "Its name or description.")
      .def_prop_ro(
          "point", [](const EditAudit& a) { return a.point.name(); }, "The hook point.")
      .def_ro("seen", &EditAudit::seen, "Tokens that passed the hook point.")
      .def_ro("in_scope", &EditAudit::in_scope, "Of those, tokens its scope and condition selected.")
      .def_ro("edited", &EditAudit::edited, "Of those, tokens whose activation it changed.")
      .def_ro("mean_change", &EditAudit::mean_change, "|change| / |h on arrival|, mean over edited tokens.")
      .def_ro("max_change", &EditAudit::max_change, "The largest.");
  nb::class_<SteeringAudit>(m, "SteeringAudit", "What a sequence's steering did; empty edits mean it did nothing.")
      .def(nb::init<>())
      .def_ro("edits", &SteeringAudit::edits, "One EditAudit an edit, in their order.")
      .def_prop_ro("edited", &SteeringAudit::edited, "Tokens changed, over all edits.")
      .def_prop_ro("fired", &SteeringAudit::fired, "Whether any token was changed.")
      .def("require_fired", &SteeringAudit::require_fired, "where"_a = "require_fired",
           "Raises an Error that lists the counts when there are edits and none changed a token.")
      .def("_repr_html_", in_python("steer.display", "audit_html"), nb::sig("def _repr_html_(self) -> str"))
      .def("__repr__", &SteeringAudit::describe);

  bind_hooks(m);

  m.def("point_names", &point_names, "model"_a, "Every hook point of a model, in order of computation.");
  nb::class_<HookHandle>(m, "HookHandle",
                         "Keeps a hook registered: until remove(), the end of a with block, or when it is dropped.")
      .def("remove", &HookHandle::remove, "The hook is not called again. Twice does no harm.")
      .def(
          "__enter__", [](HookHandle& h) -> HookHandle& { return h; }, nb::rv_policy::reference)
      .def(
          "__exit__", [](HookHandle& h, nb::args) { h.remove(); },
          nb::sig("def __exit__(self, *args: object) -> None"));

  nb::class_<ActivationCache>(m, "FlatCache", "Activations by hook point, [tokens, width].")
      .def(
          "__getitem__", [](const ActivationCache& c, std::string_view name) { return c[name]; }, "name"_a)
      .def(
          "__contains__", [](const ActivationCache& c, std::string_view name) { return c.contains(name); }, "name"_a)
      .def(
          "keys",
          [](const ActivationCache& c) {
            std::vector<std::string> out;
            for (const auto& entry : c.all()) out.push_back(entry.first.name());
            return out;
          },
          "Names, in order of computation.")
      .def_ro("logits", &ActivationCache::logits, "As asked for; None when the run stopped before the end.");

  nb::class_<Session>(m, "Session",
                      "Work on one model: sequences, each with its cache and its steering, and hooks. One thread at a "
                      "time; any number of sessions share a model.")
      .def(
          "__init__",
          [](Session* self, const Model& model, bool batch_invariant, std::int64_t prompt_chunk,
             std::int64_t max_cache_bytes, const std::string& cache, const std::string& backend, bool graphs,
             const std::string& on_warning) {
            new (self) Session(model, session_options(batch_invariant, prompt_chunk, max_cache_bytes, cache, backend,
                                                      graphs, on_warning));
          },
          "model"_a, nb::kw_only(), "batch_invariant"_a = false, "prompt_chunk"_a = 512, "max_cache_bytes"_a = 0,
          "cache"_a = "f32", "backend"_a = "automatic", "graphs"_a = true, "on_warning"_a = "keep")
      .def_prop_ro("model", &Session::model, nb::rv_policy::copy, "What it runs.")
      .def(
          "hook",
          [](Session& session, std::string_view point, nb::callable function, const std::string& shape, bool read_only,
             int order) {
            const HookShape how = shape == "rows" ? HookShape::rows : HookShape::flat;
            require(how == HookShape::rows || shape == "flat", ErrorCode::argument, "Session.hook",
                    "expected a shape of \"flat\" or \"rows\" but got \"{}\"", shape);
            return session.hook(point, hook_function(function, how, session.model().config().d_head, read_only),
                                {.read_only = read_only, .order = order});
          },
          "point"_a, "function"_a, nb::kw_only(), "shape"_a = "flat", "read_only"_a = false, "order"_a = 0,
          nb::sig("def hook(self, point: str, function: Callable[[torch.Tensor, HookCall], torch.Tensor | None], *, "
                  "shape: str = 'flat', read_only: bool = False, order: int = 0) -> HookHandle"),
          "Calls function(x, at) whenever the point is computed, decode steps included. x is the activation itself: "
          "edit "
          "it in place, or return a tensor to put in its place. read_only hooks get a copy and may not edit.\n\n"
          "Raises Error(argument) for a point this model does not compute.")
      .def(
          "open",
          [](Session& s, const std::optional<Steering>& steering) {
            return s.open({.steering = steering_of(steering)});
          },
          nb::kw_only(), "steering"_a = nb::none(), "A new, empty sequence.")
      .def(
          "fork", [](Session& s, SequenceId source, std::int64_t length) { return s.fork(source, {.length = length}); },
          "source"_a, nb::kw_only(), "length"_a = -1, "A copy of a sequence that shares its cache until either grows.")
      .def("close", &Session::close, "sequence"_a, "Forgets a sequence, its steering and its audit.")
      .def("audit", &Session::audit, "sequence"_a, "What the sequence's steering has done to its tokens.")
      .def("length", &Session::length, "sequence"_a, "Tokens in the cache of a sequence.")
      .def_prop_ro("warnings", nb::overload_cast<>(&Session::warnings, nb::const_),
                   "What a person should know of the steerings seen so far.")
      .def_prop_ro("cache_bytes", nb::overload_cast<>(&Session::cache_bytes, nb::const_), "Bytes the KV cache holds.")
      .def(
          "step",
          [](Session& session, const std::vector<std::pair<SequenceId, Ids>>& inputs, const std::string& phase,
             const std::string& logits) {
            std::vector<StepInput> steps;
            for (const auto& [sequence, ids] : inputs)
              steps.push_back({sequence, ids, parse_enum<Phase>(phase, "Session.step")});
            const Logits wanted = logits_of(logits, "Session.step");
            return without_gil([&] { return session.step(steps, wanted); });
          },
          "inputs"_a, nb::kw_only(), "phase"_a = "prompt", "logits"_a = "last",
          "Appends tokens to sequences, [(sequence, ids), ...], and computes them in one pass. Logits f32: [inputs, "
          "vocab] for \"last\", [tokens, vocab] for \"all\", None for \"none\".")
      .def(
          "forward",
          [](Session& session, const Ids& ids, const std::optional<Steering>& steering, const std::string& logits,
             const Ids& positions) {
            const ForwardOptions options{.steering = steering_of(steering),
                                         .logits = logits_of(logits, "Session.forward"),
                                         .positions = positions};
            return without_gil([&] { return session.forward(ids, options); });
          },
          "ids"_a, nb::kw_only(), "steering"_a = nb::none(), "logits"_a = "all", "positions"_a = Ids(),
          "Logits, f32, of a prompt on its own: [tokens, vocab]. Gradients flow to tensors that hooks put in.")
      .def(
          "run_with_cache",
          [](Session& session, const Ids& ids, const std::vector<std::string>& patterns,
             const std::optional<Steering>& steering, const std::string& logits, std::int64_t stop_after_layer) {
            const CacheOptions options{.steering = steering_of(steering),
                                       .logits = logits_of(logits, "Session.run_with_cache"),
                                       .stop_after_layer = stop_after_layer};
            return without_gil([&] { return session.run_with_cache(ids, patterns, options); });
          },
          "ids"_a, "patterns"_a, nb::kw_only(), "steering"_a = nb::none(), "logits"_a = "all",
          "stop_after_layer"_a = -1, "`forward`, recording every point whose name matches a glob pattern.")
      .def(
          "record", &record, "prompts"_a, "patterns"_a, nb::kw_only(), "steering"_a = nb::none(), "logits"_a = "all",
          "stop_after_layer"_a = -1,
          nb::sig("def record(self, prompts: Sequence[Sequence[int]], patterns: Sequence[str], *, steering: Steering | "
                  "None = None, logits: str = 'all', stop_after_layer: int = -1) -> tuple[torch.Tensor | None, "
                  "list[tuple[str, torch.Tensor]]]"),
          "`run_with_cache` of equally long prompts, with a dimension for rows and one for heads, as TransformerLens "
          "shapes activations.")
      .def(
          "log_probabilities",
          [](Session& session, const Ids& ids, const std::optional<Steering>& steering, std::int64_t begin,
             std::int64_t end) {
            const LogProbabilityOptions options{.steering = steering_of(steering), .begin = begin, .end = end};
            return without_gil([&] { return session.log_probabilities(ids, options).tokens; });
          },
          "ids"_a, nb::kw_only(), "steering"_a = nb::none(), "begin"_a = 1, "end"_a = -1,
          "How likely each token of a text is, given all before it: natural logarithms.");
}

}  // namespace steer::python
